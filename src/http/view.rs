//! What the API shows of times, jobs and attempts. Never a content.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::Api;
use super::openapi::strings;
use crate::core::job::{Attempt, Job, JobState};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::queue::Phase;

/// A time as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp(pub Time);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
        serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

impl JsonSchema for Stamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Stamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// The names of a chain, in order.
pub(super) fn names(chain: &[ProviderName]) -> Vec<String> {
    chain.iter().map(ToString::to_string).collect()
}

/// What [`redrive`] says.
pub(super) const REDRIVES: [&str; 2] = ["automatic", "manual"];

/// Whether a dead letter goes out again by itself when its provider recovers. `None` for a job that
/// is not dead.
pub(super) fn redrive(job: &Job, api: &Api) -> Option<&'static str> {
    let JobState::Dead { .. } = job.progress.state else { return None };
    let goes_out_by_itself = api.redrives && job.progress.is_parked();
    let [automatic, manual] = REDRIVES;
    Some(if goes_out_by_itself { automatic } else { manual })
}

/// One recipient's delivery of a notification.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Job")]
pub(super) struct JobView {
    /// Of the job.
    #[schemars(with = "strings::Id")]
    id: String,
    /// The id of its notification.
    #[schemars(with = "strings::Id")]
    notification: String,
    /// To whom it goes.
    #[schemars(with = "strings::Mailbox")]
    recipient: String,
    /// Where it stands; `scheduled` waits for its backoff.
    #[schemars(with = "strings::JobState")]
    state: &'static str,
    /// Of a dead job only: whether it goes out by itself when its provider recovers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "strings::Redrive")]
    redrive: Option<&'static str>,
    /// The provider that has it now.
    #[schemars(with = "strings::Name")]
    provider: String,
    /// The providers that may carry it, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// How many attempts were made.
    attempts: u32,
    /// When its notification was taken in.
    accepted_at: Stamp,
    /// The earliest time of the next attempt, of a job that waits for one.
    next_attempt_at: Option<Stamp>,
}

impl JobView {
    pub(super) fn of(job: &Job, phase: Phase, api: &Api) -> Self {
        Self {
            id: job.id.to_string(),
            notification: job.notification.to_string(),
            recipient: job.recipient.to_string(),
            state: phase.as_str(),
            redrive: redrive(job, api),
            provider: job.progress.provider().to_string(),
            chain: names(&job.progress.chain),
            attempts: job.progress.attempts_all,
            accepted_at: Stamp(job.accepted_at),
            next_attempt_at: next_attempt(job, phase, api),
        }
    }
}

/// A job of one notification, with every attempt.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobWithAttempts {
    /// Of the job.
    #[schemars(with = "strings::Id")]
    id: String,
    /// To whom it goes.
    #[schemars(with = "strings::Mailbox")]
    recipient: String,
    /// Where it stands; `scheduled` waits for its backoff.
    #[schemars(with = "strings::JobState")]
    state: &'static str,
    /// Of a dead job only: whether it goes out by itself when its provider recovers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "strings::Redrive")]
    redrive: Option<&'static str>,
    /// The provider that has it now.
    #[schemars(with = "strings::Name")]
    provider: String,
    /// The providers that may carry it, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// The earliest time of the next attempt, of a job that waits for one.
    next_attempt_at: Option<Stamp>,
    /// In the order in which they were made.
    attempts: Vec<AttemptView>,
}

impl JobWithAttempts {
    pub(super) fn of(job: &Job, attempts: &[Attempt], api: &Api) -> Self {
        let phase = api.queue.phase(job);
        Self {
            id: job.id.to_string(),
            recipient: job.recipient.to_string(),
            state: phase.as_str(),
            redrive: redrive(job, api),
            provider: job.progress.provider().to_string(),
            chain: names(&job.progress.chain),
            next_attempt_at: next_attempt(job, phase, api),
            attempts: attempts.iter().map(AttemptView::of).collect(),
        }
    }
}

/// The earliest time of the next attempt: it is due, and its provider takes mail. A job whose attempt is
/// under way has none.
fn next_attempt(job: &Job, phase: Phase, api: &Api) -> Option<Stamp> {
    match job.progress.state {
        JobState::Queued { due } if phase != Phase::InFlight => {
            let takes_from = api.registry.takes_from(job.progress.provider(), 1);
            Some(Stamp(due.max(takes_from.unwrap_or_default())))
        }
        _ => None,
    }
}

/// One try to hand a job to a provider's SMTP server.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Attempt")]
pub(super) struct AttemptView {
    /// Counted from 1 over the life of the job.
    number: u32,
    /// When it began.
    at: Stamp,
    /// By which provider.
    #[schemars(with = "strings::Name")]
    provider: String,
    /// Where in the dialogue it ended; `dot` is the end of the message.
    #[schemars(with = "strings::Stage")]
    stage: &'static str,
    /// What came of it.
    #[schemars(with = "strings::Outcome")]
    outcome: &'static str,
    /// The code of the reply that decided it, when there was one.
    code: Option<u16>,
    /// The enhanced status code of that reply (RFC 3463), when it had one.
    #[schemars(with = "Option<strings::EnhancedCode>")]
    enhanced_code: Option<String>,
    /// One sentence: the reply's text or what went wrong.
    message: String,
    /// How long it took.
    duration_ms: u64,
}

impl AttemptView {
    pub(super) fn of(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: Stamp(attempt.at),
            provider: attempt.provider.to_string(),
            stage: attempt.stage.as_str(),
            outcome: attempt.outcome.as_str(),
            code: attempt.reply.as_ref().map(|reply| reply.code),
            enhanced_code: enhanced_code(attempt),
            message: attempt.message.clone(),
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The enhanced status code of the reply (RFC 3463), like `5.1.1`.
pub(super) fn enhanced_code(attempt: &Attempt) -> Option<String> {
    let [class, subject, detail] = attempt.reply.as_ref()?.enhanced?;
    Some(format!("{class}.{subject}.{detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_utc_with_milliseconds_and_never_fails() {
        let shown = |millis| serde_json::to_string(&Stamp(Time(millis))).expect("a string");
        assert_eq!(shown(0), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(shown(1_800_000_000_123), "\"2027-01-15T08:00:00.123Z\"");
        assert!(shown(u64::MAX).starts_with("\"9999-12-30"));
    }
}
