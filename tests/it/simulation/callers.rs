//! Callers, and the ledger of what each of them was told.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::job::JobId;
use breakglass_mailer::core::notification::Content;
use breakglass_mailer::core::route::{Wish, route};
use breakglass_mailer::queue::store::IdempotencyKey;
use breakglass_mailer::queue::{Accept, AcceptError, Queue};
use breakglass_mailer::registry::Registry;

use crate::support::api::accept;

/// One notification as its caller means it, and all that was answered to it.
#[derive(Clone, Debug)]
pub struct Request {
    pub subject: String,
    pub recipients_count: usize,
    pub provider: Option<String>,
    pub escalation: Option<&'static str>,
    pub cluster: Option<&'static str>,
    pub lives_for: Option<Duration>,
    pub key: Option<String>,
    pub posts_count: usize,
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted { jobs: Vec<JobId>, replayed: bool },
    Refused(String),
}

impl Request {
    /// The jobs that it was answered.
    pub fn accepted(&self) -> Option<&[JobId]> {
        self.answers.iter().find_map(|answer| match answer {
            Answer::Accepted { jobs, .. } => Some(&jobs[..]),
            Answer::Refused(_) => None,
        })
    }

    /// Whether every post of it was answered, and none with a yes.
    pub fn is_refused(&self) -> bool {
        self.answers.len() == self.posts_count && self.accepted().is_none()
    }
}

/// A clone is the same.
#[derive(Clone, Default)]
pub struct Ledger {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Ledger {
    pub fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().expect("no caller panics")
    }

    /// Thinks of a request, or of an earlier one with a key again; its index.
    pub fn think(&self, lots: &mut fastrand::Rng, providers: &[&str]) -> usize {
        let mut requests = self.requests();
        let nth = requests.len();
        if lots.u8(..) < 40 && nth > 0 {
            let nth = lots.usize(..nth);
            if requests[nth].key.is_some() {
                return nth;
            }
        }
        let some = |lots: &mut fastrand::Rng, of| lots.u8(..) < of;
        requests.push(Request {
            subject: format!("subject {nth}"),
            recipients_count: lots.usize(1..=3),
            provider: some(lots, 100).then(|| providers[lots.usize(..providers.len())].to_owned()),
            escalation: some(lots, 100).then_some("night"),
            cluster: some(lots, 100).then_some("prod"),
            lives_for: some(lots, 40).then(|| Duration::from_secs(lots.u64(1..2_000))),
            key: some(lots, 100).then(|| format!("key-{nth}")),
            posts_count: 0,
            answers: Vec::new(),
        });
        nth
    }

    /// Posts a request; the answer goes into the ledger, if there is one.
    pub async fn post(self, nth: usize, queue: Arc<Queue>, registry: Arc<Registry>, clock: Clock) {
        let request = {
            let mut requests = self.requests();
            requests[nth].posts_count += 1;
            requests[nth].clone()
        };
        let answer = answer(&request, nth, &queue, &registry, clock).await;
        self.requests()[nth].answers.push(answer);
    }
}

/// As the API does it.
async fn answer(
    request: &Request,
    nth: usize,
    queue: &Queue,
    registry: &Registry,
    clock: Clock,
) -> Answer {
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&nth.to_le_bytes());
    let key = request.key.clone().map(|key| IdempotencyKey { key, fingerprint });
    let refused = |error: AcceptError| Answer::Refused(error.to_string());
    if let Some(key) = &key {
        match queue.answered(key).await {
            Ok(Some(earlier)) => return yes(&earlier),
            Ok(None) => {}
            Err(error) => return refused(error),
        }
    }
    let catalog = registry.catalog();
    let Request { provider, escalation, cluster, .. } = request;
    let wish = Wish { provider: provider.as_deref(), escalation: *escalation, cluster: *cluster };
    let route = match route(wish, &catalog) {
        Ok(route) => route,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let first = &route.chain[0];
    let capacity = catalog.enabled(first).map_or(0, |provider| provider.retry.queue_size);
    let short = accept(request.recipients_count, route.chain, capacity);
    let accept = Accept {
        content: Content { subject: request.subject.clone(), ..short.content.clone() },
        expires_at: request.lives_for.map(|age| clock.now().plus(age)),
        warnings: route.warnings,
        key,
        ..short
    };
    match queue.accept(accept).await {
        Ok(accepted) => yes(&accepted),
        Err(error) => refused(error),
    }
}

fn yes(accepted: &breakglass_mailer::queue::Accepted) -> Answer {
    let jobs = accepted.notification.jobs.iter().map(|(id, _)| *id).collect();
    Answer::Accepted { jobs, replayed: accepted.replayed }
}
