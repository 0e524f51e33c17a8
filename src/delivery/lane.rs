//! One provider's lane: permit, claim, and what becomes of jobs without an attempt.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Delivery, next_position};
use crate::core::decide::Verdict;
use crate::core::job::{DeadReason, Job};
use crate::core::outcome::Cause;
use crate::core::provider::{Provider, ProviderName};
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
                biased;
                () = stop.cancelled() => return,
                permit = permits.clone().acquire_owned() => permit,
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
                        biased;
                        () = stop.cancelled() => return,
                        () = arrival.notified() => {}
                        () = sleep_until(until.map(|time| self.clock.instant(time))) => {}
                        changed = catalog.changed() => if changed.is_err() { return },
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
                // A failover counts no cause.
                self.move_on(claim, &Verdict::Failover { position }, Cause::Internal)
            });
            let moves: Vec<_> = moves.collect();
            if !moves.is_empty() {
                let jobs_count = moves.len();
                tracing::info!(mailprovider = %name, jobs_count, "jobs follow their chain");
            }
            return self.settle_moves(moves, idle).await;
        };
        let health = self.registry.health(name);
        if health.is_closed() {
            return match self.queue.claim(name, |_| true) {
                // The sweep may be behind: what is too old is not sent all the same.
                Some(claim) if claim.job().progress.deadline <= now => {
                    self.queue.settle(vec![self.expired(claim, now)]).await?;
                    Ok(Turn::Moved)
                }
                Some(claim) => Ok(Turn::Attempt(Box::new(claim), provider.clone())),
                None => Ok(idle()),
            };
        }
        // Known to be unreachable: attempts on it are used up at once, without dialling.
        let (cause, error) =
            health.last_failure.unwrap_or((Cause::ConnectionRefused, String::new()));
        let mut parked: BTreeSet<ProviderName> = BTreeSet::new();
        let mut parked_count = 0;
        let moves = self.claim_some(name, |_| true).into_iter().map(|claim| {
            let verdict = match next_position(claim.job(), &catalog) {
                Some(position) => Verdict::Failover { position },
                None => {
                    parked.extend(claim.job().progress.chain.iter().cloned());
                    parked_count += 1;
                    let detail = format!("{name} is unreachable: {error}");
                    Verdict::Bury { reason: DeadReason::Unreachable, detail }
                }
            };
            self.move_on(claim, &verdict, cause)
        });
        let moves: Vec<_> = moves.collect();
        if !moves.is_empty() {
            let moved_count = moves.len() - parked_count;
            tracing::info!(
                mailprovider = %name, moved_count, parked_count, "jobs were not tried: it is away"
            );
        }
        let turn = self.settle_moves(moves, idle).await;
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

    /// Applies a verdict that no attempt led to.
    fn move_on(&self, claim: Claim, verdict: &Verdict, cause: Cause) -> Settlement {
        let job = claim.job();
        self.count(job, verdict, cause);
        let after = verdict.apply(&claim.job().progress, false, self.clock.now());
        claim.becomes(after, None)
    }

    pub(super) fn count(&self, job: &Job, verdict: &Verdict, cause: Cause) {
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
            // It was parked before, and counted then.
            Verdict::Bury { reason: DeadReason::Unreachable, .. } if 0 < job.progress.redrives => {}
            Verdict::Bury { .. } => self.metrics.buried(provider, cause),
        }
    }
}

/// Returns at this time; never, when there is none.
pub(super) async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
