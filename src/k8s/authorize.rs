//! `--auth kubernetes`: the API server vouches for a token, and its RBAC says what it may do.
//!
//! A TokenReview with our audience, then a SubjectAccessReview. What they said counts for a minute.
//! Nobody is let in while the API server cannot be asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::client::told;
use crate::core::access::{Act, Refusal};

/// How long an answer counts.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How many answers are kept; the oldest goes first.
const ANSWERS_COUNT_MAX: usize = 1024;
/// How many callers the API server is asked about at once.
const REVIEWS_COUNT_MAX: usize = 16;
/// How long asking may take, waiting for a turn included.
const REVIEW_TIME_MAX: Duration = Duration::from_secs(5);
/// The group of the resource that the rules of RBAC name.
const GROUP: &str = "breakglass.t-caas.telekom.com";

type Answer = Result<(), Refusal>;
/// The digest of a token, and what it wants to do.
type Key = ([u8; 32], Act);

/// Asks the API server about callers.
pub struct Reviewer {
    client: Client,
    audience: String,
    answers: Mutex<Answers>,
    turns: Semaphore,
    /// Whether the last one that was asked about could not be, which is told once.
    is_failing: AtomicBool,
}

impl Reviewer {
    /// Lets in tokens that were made for `audience`.
    #[must_use]
    pub fn new(client: Client, audience: String) -> Self {
        let turns = Semaphore::new(REVIEWS_COUNT_MAX);
        let is_failing = AtomicBool::new(false);
        Self { client, audience, answers: Mutex::default(), turns, is_failing }
    }

    /// Whether the caller with this token may do this.
    ///
    /// # Errors
    /// Why not.
    pub async fn authorize(&self, token: &str, act: Act) -> Answer {
        let key = (Sha256::digest(token).into(), act);
        if let Some(answer) = self.lock_answers().get(&key, Instant::now()) {
            return answer;
        }
        let asked = timeout(REVIEW_TIME_MAX, self.ask(token, act)).await;
        let error = match asked {
            Ok(Ok(answer)) => {
                self.is_failing.store(false, Ordering::Relaxed);
                // A token that nobody knows is made up anew as easily as it is repeated.
                if answer != Err(Refusal::Unauthenticated) {
                    self.lock_answers().insert(key, answer.clone(), Instant::now());
                }
                return answer;
            }
            Ok(Err(error)) => told(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(error, "cannot ask the API server about callers");
        }
        Err(Refusal::Unavailable)
    }

    async fn ask(&self, token: &str, act: Act) -> Result<Answer, kube::Error> {
        let _turn = self.turns.acquire().await;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        // An API server that knows nothing of audiences leaves them out, and vouches for its own.
        let is_ours = status.audiences.unwrap_or_default().contains(&self.audience);
        let user = match status.user {
            Some(user) if status.authenticated == Some(true) && is_ours => user,
            _ => return Ok(Err(Refusal::Unauthenticated)),
        };
        let (verb, subresource) = permission(act);
        let who = user.username.clone().unwrap_or_default();
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = access_review(user, verb, subresource);
        let reviewed = api.create(&PostParams::default(), &review).await?;
        if reviewed.status.is_some_and(|status| status.allowed) {
            return Ok(Ok(()));
        }
        Ok(Err(Refusal::Forbidden(format!(
            "{who} may not {verb} mailproviders/{subresource} in the API group {GROUP}."
        ))))
    }

    fn lock_answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        // Whatever a panic left of it, an answer that is found is one that was given.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verb and the subresource of `mailproviders` that RBAC names for an act.
#[must_use]
pub fn permission(act: Act) -> (&'static str, &'static str) {
    match act {
        Act::Notify => ("create", "notify"),
        Act::Read => ("get", "queue"),
        Act::Cancel => ("delete", "queue"),
        Act::ReadDeadLetters => ("get", "deadletters"),
        Act::Retry => ("update", "deadletters"),
        Act::Discard => ("delete", "deadletters"),
    }
}

fn access_review(user: UserInfo, verb: &str, subresource: &str) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        resource: Some("mailproviders".to_owned()),
        subresource: Some(subresource.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let extra: Option<BTreeMap<_, _>> = user.extra;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra,
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The answers of the last minute.
#[derive(Default)]
struct Answers {
    by_key: HashMap<Key, Answer>,
    /// In the order of their ends.
    ends: VecDeque<(Instant, Key)>,
}

impl Answers {
    fn get(&mut self, key: &Key, now: Instant) -> Option<Answer> {
        while let Some((end, key)) = self.ends.front().filter(|(end, _)| *end <= now) {
            let _ = end;
            self.by_key.remove(key);
            self.ends.pop_front();
        }
        self.by_key.get(key).cloned()
    }

    fn insert(&mut self, key: Key, answer: Answer, now: Instant) {
        // Two calls may have asked at once; the first answer's end counts for both.
        if self.by_key.insert(key, answer).is_some() {
            return;
        }
        self.ends.push_back((now + ANSWER_TIME, key));
        if self.ends.len() > ANSWERS_COUNT_MAX
            && let Some((_, oldest)) = self.ends.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        (Sha256::digest(n.to_string()).into(), Act::Read)
    }

    #[test]
    fn an_answer_counts_for_a_minute() {
        let (mut answers, begin) = (Answers::default(), Instant::now());
        answers.insert(key(1), Ok(()), begin);
        let just_before = begin + ANSWER_TIME - Duration::from_millis(1);
        assert_eq!(answers.get(&key(1), just_before), Some(Ok(())));
        assert_eq!(answers.get(&(key(1).0, Act::Retry), begin), None, "another act is asked for");
        assert_eq!(answers.get(&key(1), begin + ANSWER_TIME), None);
        assert!(answers.ends.is_empty() && answers.by_key.is_empty());
    }

    #[test]
    fn the_answers_are_bounded_and_the_oldest_goes_first() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        for n in 0..=ANSWERS_COUNT_MAX {
            answers.insert(key(n), Err(Refusal::Unauthenticated), now);
            answers.insert(key(n), Err(Refusal::Unauthenticated), now);
        }
        assert_eq!(
            (answers.by_key.len(), answers.ends.len()),
            (ANSWERS_COUNT_MAX, ANSWERS_COUNT_MAX)
        );
        assert_eq!(answers.get(&key(0), now), None);
        assert!(answers.get(&key(1), now).is_some());
    }
}
