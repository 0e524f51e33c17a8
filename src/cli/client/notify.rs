//! `notify`: hands a notification in, once, however often it has to be posted.

use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::failure::{Failure, Problem};
use super::jobs::Notification;
use super::screen;
use super::server::{Answer, Server};
use crate::config::client::{Draft, Notify};

#[derive(Deserialize)]
struct Accepted {
    id: Uuid,
    jobs: Vec<AcceptedJob>,
    chain: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct AcceptedJob {
    id: String,
    recipient: String,
}

/// Posts the notification and, where that is asked for, waits for the end of its jobs.
///
/// # Errors
/// See [`Failure`]; also when it waited and not every job was delivered.
pub(super) fn run(notify: Notify) -> Result<(), Failure> {
    let begin = Instant::now();
    let server = Server::new(&notify.reach)?;
    let (wait, output) = (notify.wait, notify.reach.output);
    let key = notify.idempotency_key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let accepted = post(&server, &body(notify.draft)?, &key)?;
    for warning in &accepted.view.warnings {
        screen::note(&format!("warning: {warning}"));
    }
    let Some(wait) = wait else { return accepted.show(output, Accepted::table) };
    let id = accepted.view.id;
    screen::note(&format!("accepted as {id}, waiting for the end of its jobs"));
    let found = ended(&server, id, begin, wait)?;
    found.show(output, Notification::table)?;
    let jobs = &found.view.jobs;
    match jobs.iter().filter(|job| !job.state.is_delivered()).count() {
        0 => Ok(()),
        left => Err(Failure::Failed {
            sentence: format!("{left} of {} jobs are not delivered", jobs.len()),
            hint: Some(format!("`breakglass-mailer jobs show {id}` tells how it goes on")),
        }),
    }
}

impl Accepted {
    fn table(&self) -> Result<(), Failure> {
        let row = |job: &AcceptedJob| {
            [self.id.to_string(), job.id.clone(), self.chain.join(","), job.recipient.clone()]
        };
        let header = ["NOTIFICATION", "JOB", "CHAIN", "RECIPIENT"];
        screen::table(header, self.jobs.iter().map(row).collect(), "no jobs")
    }
}

/// The body of a post.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn body(draft: Draft) -> Result<Value, Failure> {
    let is_stdin = |path: &Option<_>| path.as_deref() == Some(Path::new("-"));
    if is_stdin(&draft.text_file) && is_stdin(&draft.html_file) {
        return Err(Failure::Usage("--text-file and --html-file cannot both be standard input"));
    }
    let read = |path: &Option<_>| path.as_deref().map(read).transpose();
    let fields = [
        ("subject", Some(draft.subject)),
        ("text", draft.text.or(read(&draft.text_file)?)),
        ("html", draft.html.or(read(&draft.html_file)?)),
        ("escalation", draft.escalation),
        ("cluster", draft.cluster),
        ("mailProvider", draft.mail_provider),
        ("replyTo", draft.reply_to),
        ("expiresAt", draft.expires_at),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
    let mut body: Map<String, Value> = given.collect();
    if !draft.to.is_empty() {
        body.insert("recipients".into(), draft.to.into());
    }
    Ok(body.into())
}

/// The text of a file, or of standard input.
fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let done = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    done.map_err(|error| Failure::here(format!("cannot read {}: {error}", path.display())))
}

/// Posts, and posts again while that can help. The key makes one notification of it.
fn post(server: &Server, body: &Value, key: &str) -> Result<Answer<Accepted>, Failure> {
    let begin = Instant::now();
    let mut tries = Tries::default();
    loop {
        let failure = match server.post::<Accepted>("/notify", body, Some(key)) {
            Ok(accepted) => {
                if accepted.is_replayed && tries.count == 0 {
                    screen::note("this key was answered before: no second mail is sent");
                }
                return Ok(accepted);
            }
            Err(failure) => failure,
        };
        let Some(wait) = tries.wait_after(&failure, begin.elapsed()) else {
            if tries.is_unsure {
                screen::note(&format!(
                    "it may have been accepted: --idempotency-key {key} repeats it without a \
                     second mail"
                ));
            }
            return Err(failure);
        };
        screen::note(&format!("{failure}; trying again in {} s", wait.as_secs_f32()));
        thread::sleep(wait);
    }
}

const TRIES_COUNT_MAX: u32 = 5;
/// No try begins later than this after the first.
const TRYING_TIME_MAX: Duration = Duration::from_secs(60);
const BACKOFF: Duration = Duration::from_millis(500);

/// The tries of one post that failed.
#[derive(Default)]
struct Tries {
    count: u32,
    /// Whether one of them may have been accepted.
    is_unsure: bool,
}

impl Tries {
    /// How long to wait after this failure before the next try; `None` when there is to be none.
    fn wait_after(&mut self, failure: &Failure, elapsed: Duration) -> Option<Duration> {
        self.count += 1;
        // What is refused was not accepted, and what did not get there neither.
        self.is_unsure |= !matches!(
            failure,
            Failure::Refused(_) | Failure::NotReached { .. } | Failure::Usage(_)
        );
        let backoff = BACKOFF * 2_u32.pow(self.count - 1);
        let wait = match failure {
            Failure::Unanswered { .. } => backoff,
            // A server that starts again: it would know whether it accepted the earlier try.
            Failure::NotReached { .. } if self.is_unsure => backoff,
            // 409: the earlier try is still being answered.
            Failure::Refused(problem) if matches!(problem.status, 409 | 503) => {
                problem.retry_after?
            }
            _ => return None,
        };
        let goes_on =
            self.count < TRIES_COUNT_MAX && elapsed.saturating_add(wait) < TRYING_TIME_MAX;
        goes_on.then_some(wait)
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// The notification once all its jobs are at their end, or the time is over. A server that is away
/// meanwhile, or says when to try again, is asked again.
fn ended(
    server: &Server,
    id: Uuid,
    begin: Instant,
    limit: Duration,
) -> Result<Answer<Notification>, Failure> {
    loop {
        let found = server.get::<Notification>(&format!("/notifications/{id}"), &[]);
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return found;
        }
        let pause = match found {
            Ok(found) if found.view.jobs.iter().all(|job| job.state.is_at_end()) => {
                return Ok(found);
            }
            Ok(_) | Err(Failure::NotReached { .. } | Failure::Unanswered { .. }) => BETWEEN_LOOKS,
            Err(Failure::Refused(Problem { retry_after: Some(after), .. })) => {
                after.max(BETWEEN_LOOKS)
            }
            Err(failure) => return Err(failure),
        };
        thread::sleep(pause.min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered() -> Failure {
        Failure::Unanswered { server: String::new(), error: String::new() }
    }

    fn not_reached() -> Failure {
        Failure::NotReached { server: String::new(), error: String::new() }
    }

    #[test]
    fn tries_are_bounded_in_number_and_in_time() {
        let mut tries = Tries::default();
        let waits: Vec<_> =
            (0..6).map_while(|_| tries.wait_after(&unanswered(), Duration::ZERO)).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.is_sorted());
        assert!(Tries::default().wait_after(&unanswered(), TRYING_TIME_MAX).is_none());
    }

    #[test]
    fn a_server_that_is_away_is_looked_for_again_only_after_it_took_a_post() {
        let mut tries = Tries::default();
        assert!(tries.wait_after(&not_reached(), Duration::ZERO).is_none());
        assert!(tries.wait_after(&unanswered(), Duration::ZERO).is_some());
        assert!(tries.wait_after(&not_reached(), Duration::ZERO).is_some());
    }
}
