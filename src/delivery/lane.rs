//! One provider's lane: permit, claim, send, decide, settle.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Delivery, next_position};
use crate::core::decide::{Verdict, decide};
use crate::core::job::{Attempt, DeadReason, Job};
use crate::core::outcome::{Cause, Failure, Outcome, Stage};
use crate::core::provider::{HealthEvent, Provider, ProviderName};
use crate::core::time::Time;
use crate::queue::store::StoreError;
use crate::queue::{Claim, Settlement};

/// What a lane does next.
enum Turn {
    Attempt(Box<Claim>, Arc<Provider>),
    /// Jobs moved on without an attempt; there may be more.
    Moved,
    /// Nothing to do before this time, when there is one.
    Idle(Option<Time>),
}

impl Delivery {
    pub(super) async fn lane(
        self: Arc<Self>,
        name: ProviderName,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(self.connections_max));
        let arrival = self.queue.arrival(&name);
        let mut catalog = self.registry.watch();
        loop {
            let permit = tokio::select! {
                permit = permits.clone().acquire_owned() => permit,
                () = stop.cancelled() => return,
            };
            let Ok(permit) = permit else { return };
            let (claim, provider) = loop {
                if stop.is_cancelled() {
                    return;
                }
                catalog.mark_unchanged();
                match self.turn(&name).await {
                    Ok(Turn::Attempt(claim, provider)) => break (claim, provider),
                    Ok(Turn::Moved) => {}
                    Ok(Turn::Idle(until)) => tokio::select! {
                        () = arrival.notified() => {}
                        () = sleep_until(until.map(|time| self.clock.instant(time))) => {}
                        changed = catalog.changed() => if changed.is_err() { return },
                        () = stop.cancelled() => return,
                    },
                    Err(error) => {
                        tracing::error!(mailprovider = %name, %error, "the lane has stopped");
                        return;
                    }
                }
            };
            tasks.spawn(self.clone().attempt(claim, provider, permit));
        }
    }

    async fn turn(&self, name: &ProviderName) -> Result<Turn, StoreError> {
        let catalog = self.registry.catalog();
        // Read before the lane is looked through: what becomes due meanwhile is looked at again.
        let now = self.clock.now();
        let idle = || Turn::Idle(self.queue.next_due(name, now));
        let Some(provider) = catalog.enabled(name) else {
            // Gone or disabled: its jobs follow their chain, or wait until it is back.
            let claims = self.claim_some(name, |job| next_position(job, &catalog).is_some());
            let moves = claims.into_iter().map(|claim| {
                let next = next_position(claim.job(), &catalog);
                let position = next.unwrap_or(claim.job().progress.position);
                self.move_on(claim, &Verdict::Failover { position })
            });
            return self.settle_moves(moves.collect(), idle).await;
        };
        if self.registry.health(name).is_closed() {
            return Ok(match self.queue.claim(name, |_| true) {
                Some(claim) => Turn::Attempt(Box::new(claim), provider.clone()),
                None => idle(),
            });
        }
        // Known to be unreachable: attempts on it are used up at once, without dialling.
        let last_error = self.registry.health(name).last_error.unwrap_or_default();
        let mut parked: BTreeSet<ProviderName> = BTreeSet::new();
        let moves = self.claim_some(name, |_| true).into_iter().map(|claim| {
            let verdict = match next_position(claim.job(), &catalog) {
                Some(position) => Verdict::Failover { position },
                None => {
                    parked.extend(claim.job().progress.chain.iter().cloned());
                    let detail = format!("{name} is unreachable: {last_error}");
                    Verdict::Bury { reason: DeadReason::Unreachable, detail }
                }
            };
            self.move_on(claim, &verdict)
        });
        let turn = self.settle_moves(moves.collect(), idle).await;
        self.redrive_behind(&parked).await;
        turn
    }

    fn claim_some(&self, name: &ProviderName, may: impl Fn(&Job) -> bool) -> Vec<Claim> {
        const BATCH: usize = 256;
        std::iter::from_fn(|| self.queue.claim(name, &may)).take(BATCH).collect()
    }

    async fn settle_moves(
        &self,
        moves: Vec<Settlement>,
        otherwise: impl FnOnce() -> Turn,
    ) -> Result<Turn, StoreError> {
        if moves.is_empty() {
            return Ok(otherwise());
        }
        self.queue.settle(moves).await?;
        Ok(Turn::Moved)
    }

    fn move_on(&self, claim: Claim, verdict: &Verdict) -> Settlement {
        self.count(claim.job(), verdict, Cause::ConnectionRefused);
        let after = verdict.apply(&claim.job().progress, false, self.clock.now());
        claim.becomes(after, None)
    }

    /// One attempt, from the claim to the record of its outcome.
    async fn attempt(
        self: Arc<Self>,
        claim: Box<Claim>,
        provider: Arc<Provider>,
        permit: OwnedSemaphorePermit,
    ) {
        let begin = (self.clock.now(), Instant::now());
        let outcome = match self.send(&provider, claim.job()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(job = %claim.job().id, %error, "the attempt was not made");
                return;
            }
        };
        let event = match &outcome {
            Outcome::Unreachable(failure) => {
                Some(HealthEvent::Unreachable(failure.cause, failure.detail.clone()))
            }
            Outcome::Internal(_) => None,
            Outcome::Delivered(_) | Outcome::Deferred(_) | Outcome::Rejected(_) => {
                Some(HealthEvent::Reached)
            }
        };
        let transition =
            event.map(|event| self.registry.observe(&provider.name, &event)).unwrap_or_default();
        drop(permit);
        self.metrics.attempt(&provider.name, begin.1.elapsed());

        let now = self.clock.now();
        let catalog = self.registry.catalog();
        let next = next_position(claim.job(), &catalog);
        let verdict = decide(claim.job(), &outcome, &provider.retry, next, now);
        let attempt = record(claim.job(), &provider.name, &outcome, begin);
        log(claim.job(), &attempt, &verdict);
        let job = claim.job().clone();
        let after = verdict.apply(&job.progress, true, now);
        if let Err(error) = self.queue.settle(vec![claim.becomes(after, Some(attempt))]).await {
            tracing::error!(job = %job.id, %error, "the outcome was not recorded");
            return;
        }
        self.count(&job, &verdict, outcome.failure().map_or(Cause::Internal, |f| f.cause));
        self.follow(&provider.name, transition).await;
        if let Verdict::Bury { reason: DeadReason::Unreachable, .. } = verdict {
            self.redrive_behind(&*job.progress.chain).await;
        }
    }

    /// A send that never fails: what breaks it is an outcome. The error is a store that stopped.
    async fn send(&self, provider: &Arc<Provider>, job: &Job) -> Result<Outcome, StoreError> {
        let internal = |detail: String| {
            let (cause, stage) = (Cause::Internal, Stage::Prepare);
            Outcome::Internal(Failure { cause, stage, reply: None, detail })
        };
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

    fn count(&self, job: &Job, verdict: &Verdict, cause: Cause) {
        let provider = job.progress.provider();
        match verdict {
            Verdict::Done => {
                self.metrics.sent(provider, self.clock.now().since(job.accepted_at));
            }
            Verdict::Retry { .. } => self.metrics.retried(provider),
            Verdict::Failover { position } => {
                if let Some(to) = job.progress.chain.get(usize::from(*position)) {
                    self.metrics.failed_over(provider, to);
                }
            }
            Verdict::Bury { .. } => self.metrics.buried(provider, cause),
        }
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

fn log(job: &Job, attempt: &Attempt, verdict: &Verdict) {
    let outcome = attempt.outcome.as_str();
    let (mailprovider, stage) = (attempt.provider.as_str(), attempt.stage.as_str());
    let (number, error) = (attempt.number, attempt.message.as_str());
    match verdict {
        Verdict::Done => tracing::debug!(job = %job.id, mailprovider, number, "delivered"),
        Verdict::Retry { .. } | Verdict::Failover { .. } => {
            tracing::info!(job = %job.id, mailprovider, number, outcome, stage, error, "not delivered yet");
        }
        Verdict::Bury { reason, .. } => {
            let reason = reason.as_str();
            tracing::warn!(job = %job.id, mailprovider, number, stage, error, reason, "a dead letter");
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
