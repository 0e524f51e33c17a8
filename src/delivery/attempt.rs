//! One attempt: send, observe, decide, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument;

use super::Delivery;
use crate::core::decide::{Verdict, decide};
use crate::core::health::HealthEvent;
use crate::core::job::{Attempt, AttemptOutcome, DeadReason, Job};
use crate::core::outcome::{Cause, Failure, Outcome, Stage};
use crate::core::provider::{Provider, ProviderName};
use crate::core::time::Time;
use crate::queue::Claim;
use crate::queue::store::StoreError;
use crate::registry::Sending;
use crate::tracer::{Side, Span};

/// How long a lane waits when a content cannot be read for a reason that may pass.
const DISK_PAUSE: Duration = Duration::from_secs(1);

impl Delivery {
    /// One attempt, from the claim to the record of its outcome, in a span of its own.
    pub(super) async fn attempt(
        self: Arc<Self>,
        claim: Box<Claim>,
        provider: Arc<Provider>,
        permit: OwnedSemaphorePermit,
        sending: Sending,
    ) {
        let span = self.begin(claim.job(), &provider);
        let in_log = span.in_log();
        self.try_once(claim, provider, permit, sending, span).instrument(in_log).await;
    }

    fn begin(&self, job: &Job, provider: &Provider) -> Span {
        let parent = job.trace.as_deref();
        let mut span = self.tracer.begin("attempt".to_owned(), Side::Client, parent);
        span.set("job", job.id.to_string());
        span.set("mailprovider", provider.name.to_string());
        span.set("number", i64::from(job.progress.attempts_all.saturating_add(1)));
        span.set("server.address", provider.smtp.host.clone());
        span.set("server.port", i64::from(provider.smtp.port));
        span
    }

    async fn try_once(
        self: Arc<Self>,
        claim: Box<Claim>,
        provider: Arc<Provider>,
        permit: OwnedSemaphorePermit,
        sending: Sending,
        mut span: Span,
    ) {
        let begin = (self.clock.now(), Instant::now());
        let outcome = match self.send(&provider, claim.job()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(job = %claim.job().id, %error, "the attempt was not made");
                // The job goes back, and its permit with it, so that the disk is not asked in a loop.
                tokio::time::sleep(DISK_PAUSE).await;
                return;
            }
        };
        sending.ended(&outcome);
        let event = learned(&outcome);
        let transition =
            event.map(|event| self.registry.observe(&provider, &event)).unwrap_or_default();
        self.metrics.attempt(&provider.name, begin.1.elapsed());

        let now = self.clock.now();
        let catalog = self.registry.catalog();
        let next = match &outcome {
            Outcome::Held(..) => {
                let usable = self.usable();
                self.next(claim.job(), &catalog, |name| usable.contains(name))
            }
            Outcome::Unreachable(_) => self.next_after_failure(claim.job(), &catalog),
            _ => self.next_at_all(claim.job(), &catalog),
        };
        let verdict = decide(claim.job(), &outcome, &provider.retry, next, now);
        let attempt = record(claim.job(), &provider.name, &outcome, begin);
        end(&mut span, &attempt);
        let error = outcome.failure().map(|failure| failure.summary().to_owned());
        log(claim.job(), &attempt, error.as_deref().unwrap_or_default(), &verdict);
        self.registry.sent(&provider.name, attempt.at, error);
        let job = claim.job().clone();
        let after = verdict.apply(&job.progress, true, now);
        if let Err(error) = self.queue.settle(vec![claim.becomes(after, Some(attempt))]).await {
            tracing::error!(job = %job.id, %error, "the outcome was not recorded");
            return;
        }
        // Only now: a crash repeats no more messages than there are connections.
        drop(permit);
        // What it was counted for may be free again, and a hold that it learned of ends one day.
        self.queue.arrival(&provider.name).notify_one();
        self.count(&job, &verdict, outcome.failure().map_or(Cause::Internal, |f| f.cause));
        self.follow(&provider.name, transition).await;
        if let Verdict::Bury { reason: DeadReason::Unreachable, .. } = verdict {
            self.redrive_behind(&*job.progress.chain).await;
        }
    }

    /// A send that never fails: what breaks it is an outcome. The error is a disk that cannot be
    /// read just now, or no more.
    async fn send(&self, provider: &Arc<Provider>, job: &Job) -> Result<Outcome, StoreError> {
        let internal = |detail: String| {
            let (cause, stage) = (Cause::Internal, Stage::Prepare);
            Outcome::Internal(Failure { cause, stage, reply: None, detail })
        };
        let health = self.registry.health_of(provider);
        if let Some(refusal) = health.as_ref().and_then(|h| h.login_refused(self.clock.now())) {
            let (cause, stage) = (Cause::LoginRefused, Stage::Prepare);
            let detail = format!("not tried again yet: {refusal}");
            return Ok(Outcome::Unreachable(Failure { cause, stage, reply: None, detail }));
        }
        let content = match self.queue.content(job.notification).await {
            Ok(content) => content,
            Err(StoreError::Unreadable(what)) => {
                return Ok(internal(format!("its content is unreadable: {what}")));
            }
            Err(error) => return Err(error),
        };
        let send = AssertUnwindSafe(self.transport.send(provider, job, &content)).catch_unwind();
        Ok(send.await.unwrap_or_else(|_| internal("it broke the sender".to_owned())))
    }
}

/// What an outcome tells of the provider; nothing when the connection was lost in the middle.
fn learned(outcome: &Outcome) -> Option<HealthEvent> {
    match outcome {
        Outcome::Unreachable(failure) => {
            Some(HealthEvent::Unreachable(failure.cause, failure.summary().to_owned()))
        }
        Outcome::Delivered(_) | Outcome::Rejected(_) => Some(HealthEvent::Reached),
        Outcome::Deferred(failure) => failure.reply.as_ref().map(|_| HealthEvent::Reached),
        Outcome::Held(quota, failure) => {
            Some(HealthEvent::Held(*quota, failure.summary().to_owned()))
        }
        Outcome::Internal(_) => None,
    }
}

fn record(
    job: &Job,
    provider: &ProviderName,
    outcome: &Outcome,
    begin: (Time, Instant),
) -> Attempt {
    let (stage, reply, message) = match outcome {
        Outcome::Delivered(reply) => {
            (Stage::Dot, Some(reply.clone()), "the server took the message".to_owned())
        }
        Outcome::Deferred(failure)
        | Outcome::Rejected(failure)
        | Outcome::Unreachable(failure)
        | Outcome::Held(_, failure)
        | Outcome::Internal(failure) => {
            (failure.stage, failure.reply.clone(), failure.detail.clone())
        }
    };
    Attempt {
        number: job.progress.attempts_all.saturating_add(1),
        at: begin.0,
        provider: provider.clone(),
        stage,
        outcome: outcome.kind(),
        reply,
        message,
        duration: begin.1.elapsed(),
    }
}

/// What an attempt came to, without the words of the server.
fn end(span: &mut Span, attempt: &Attempt) {
    let outcome = attempt.outcome.as_str();
    span.set("outcome", outcome);
    span.set("stage", attempt.stage.as_str());
    if let Some(reply) = &attempt.reply {
        span.set("code", i64::from(reply.code));
    }
    if attempt.outcome != AttemptOutcome::Delivered {
        span.fail(outcome);
    }
}

fn log(job: &Job, attempt: &Attempt, error: &str, verdict: &Verdict) {
    let (job, mailprovider, number) = (job.id, &attempt.provider, attempt.number);
    let stage = attempt.stage.as_str();
    match verdict {
        Verdict::Done => tracing::debug!(%job, %mailprovider, number, "delivered"),
        Verdict::Retry { .. } | Verdict::Wait | Verdict::Failover { .. } => {
            let outcome = attempt.outcome.as_str();
            tracing::info!(
                %job, %mailprovider, number, outcome, stage, error, "not delivered yet"
            );
        }
        Verdict::Bury { reason, .. } => {
            let reason = reason.as_str();
            tracing::warn!(%job, %mailprovider, number, stage, error, reason, "a dead letter");
        }
    }
}
