//! What the API shows of times, jobs and attempts. Never a content.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Api;
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

/// The names of a chain, in order.
pub(super) fn names(chain: &[ProviderName]) -> Vec<String> {
    chain.iter().map(ToString::to_string).collect()
}

/// Whether a dead letter goes out again by itself when its provider recovers. `None` for a job that
/// is not dead.
pub(super) fn redrive(job: &Job, api: &Api) -> Option<&'static str> {
    let JobState::Dead { .. } = job.progress.state else { return None };
    let goes_out_by_itself = api.redrives && job.progress.is_parked();
    Some(if goes_out_by_itself { "automatic" } else { "manual" })
}

/// An item of `GET /jobs`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobView {
    id: String,
    notification: String,
    recipient: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive: Option<&'static str>,
    provider: String,
    chain: Vec<String>,
    attempts: u32,
    accepted_at: Stamp,
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
            next_attempt_at: next_attempt(job, phase),
        }
    }
}

/// A job of `GET /notifications/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobWithAttempts {
    id: String,
    recipient: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive: Option<&'static str>,
    provider: String,
    chain: Vec<String>,
    next_attempt_at: Option<Stamp>,
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
            next_attempt_at: next_attempt(job, phase),
            attempts: attempts.iter().map(AttemptView::of).collect(),
        }
    }
}

/// The earliest time of the next attempt; a job whose attempt is under way has none.
fn next_attempt(job: &Job, phase: Phase) -> Option<Stamp> {
    match job.progress.state {
        JobState::Queued { due } if phase != Phase::InFlight => Some(Stamp(due)),
        _ => None,
    }
}

/// One attempt.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttemptView {
    number: u32,
    at: Stamp,
    provider: String,
    stage: &'static str,
    outcome: &'static str,
    code: Option<u16>,
    enhanced_code: Option<String>,
    message: String,
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
