//! One provider's lane: permit, claim, and what becomes of jobs without an attempt.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Delivery;
use crate::core::decide::Verdict;
use crate::core::job::{DeadReason, Job};
use crate::core::outcome::Cause;
use crate::core::provider::{Provider, ProviderName};
use crate::core::route::Catalog;
use crate::core::time::Time;
use crate::queue::store::StoreError;
use crate::queue::{Claim, Settlement};
use crate::registry::Sending;

/// What a lane does next.
enum Turn {
    Attempt {
        claim: Box<Claim>,
        provider: Arc<Provider>,
        sending: Sending,
        /// Whether it goes first after a hold.
        is_first: bool,
    },
    /// Jobs moved on without an attempt; there may be more.
    Moved,
    /// Nothing to do before this time, when there is one.
    Idle(Option<Time>),
    /// The provider takes no mail until then, nor does any other that its jobs could go to: these do.
    Held { until: Time, usable: BTreeSet<ProviderName> },
}

/// What a lane remembers of its provider's holds.
#[derive(Default)]
struct Hold {
    was_held: bool,
    /// The message that goes first after a hold, while it is under way.
    first: Option<JoinHandle<()>>,
}

impl Delivery {
    pub(super) async fn lane(
        self: Arc<Self>,
        name: ProviderName,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let arrival = self.queue.arrival(&name);
        let mut catalog = self.registry.watch();
        let mut hold = Hold::default();
        while let Some(permit) = self.permit(&name, &stop).await {
            let turn = loop {
                if stop.is_cancelled() {
                    return;
                }
                catalog.mark_unchanged();
                match self.turn(&name, &mut hold).await {
                    Ok(Turn::Moved) => {}
                    Ok(turn) => break turn,
                    Err(error) => {
                        tracing::error!(mailprovider = %name, %error, "the lane has stopped");
                        return;
                    }
                }
            };
            let (until, usable) = match turn {
                Turn::Attempt { claim, provider, sending, is_first } => {
                    let attempt = self.clone().attempt(claim, provider, permit, sending);
                    let attempt = tasks.spawn(attempt);
                    hold.first = is_first.then_some(attempt);
                    continue;
                }
                Turn::Moved => continue,
                Turn::Idle(until) => (until, None),
                Turn::Held { until, usable } => (Some(until), Some(usable)),
            };
            // Whoever does nothing keeps no connection from a health check.
            drop(permit);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = arrival.notified() => {}
                () = sleep_until(until.map(|time| self.clock.instant(time))) => {}
                changed = catalog.changed() => if changed.is_err() { return },
                () = self.usable_changed(usable) => {}
                () = ended(&mut hold.first) => hold.first = None,
            }
        }
    }

    /// A permit for one connection; nothing when the lane is to end. Its width is looked up anew
    /// whenever the providers change.
    async fn permit(
        &self,
        name: &ProviderName,
        stop: &CancellationToken,
    ) -> Option<OwnedSemaphorePermit> {
        let mut catalog = self.registry.watch();
        loop {
            catalog.mark_unchanged();
            let gate = self.gate(name);
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                permit = gate.enter() => return Some(permit),
                changed = catalog.changed() => changed.ok()?,
            }
        }
    }

    async fn turn(
        self: &Arc<Self>,
        name: &ProviderName,
        hold: &mut Hold,
    ) -> Result<Turn, StoreError> {
        let catalog = self.registry.catalog();
        // Read before the lane is looked through: what becomes due meanwhile is looked at again.
        let now = self.clock.now();
        let idle = || Turn::Idle(self.queue.next_due(name, now));
        let Some(provider) = catalog.enabled(name) else {
            // Gone or disabled: its jobs follow their chain, or wait until it is back.
            let claims = self.claim_some(name, |job| self.next_at_all(job, &catalog).is_some());
            let moves = claims.into_iter().map(|claim| {
                let next = self.next_at_all(claim.job(), &catalog);
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
            if provider.limits.count() {
                self.count_earlier().await;
            }
            let held = self.registry.held(name).map(|held| held.until);
            // Its time is over: one goes first, and the others when that one is through.
            let is_tried = health.held.is_some() && hold.first.is_some();
            if let Some(until) = held.or(is_tried.then_some(Time(u64::MAX))) {
                hold.was_held = true;
                return self.held_turn(name, until, &catalog).await;
            }
            if std::mem::take(&mut hold.was_held) {
                self.redrive(name).await;
            }
            let starts = self.registry.paced(provider, 1);
            if now < starts {
                return Ok(Turn::Idle(Some(starts)));
            }
            return match self.queue.claim(name, |_| true) {
                // The sweep may be behind: what is too old is not sent all the same.
                Some(claim) if claim.job().progress.deadline <= now => {
                    self.queue.settle(vec![self.expired(claim, now)]).await?;
                    Ok(Turn::Moved)
                }
                Some(claim) => Ok(Turn::Attempt {
                    claim: Box::new(claim),
                    provider: provider.clone(),
                    sending: self.registry.begin(name),
                    is_first: health.held.is_some(),
                }),
                None => Ok(idle()),
            };
        }
        // Known to be unreachable: attempts on it are used up at once, without dialling.
        let (cause, error) =
            health.last_failure.unwrap_or((Cause::ConnectionRefused, String::new()));
        let mut parked: BTreeSet<ProviderName> = BTreeSet::new();
        let mut parked_count = 0;
        let moves = self.claim_some(name, |_| true).into_iter().map(|claim| {
            let verdict = match self.next_after_failure(claim.job(), &catalog) {
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

    /// Jobs of a provider that takes no mail go on to one of their chain that does, or wait.
    async fn held_turn(
        self: &Arc<Self>,
        name: &ProviderName,
        until: Time,
        catalog: &Catalog,
    ) -> Result<Turn, StoreError> {
        let usable = self.usable();
        let next = |job: &Job| self.next(job, catalog, |name| usable.contains(name));
        let claims = self.claim_some(name, |job| next(job).is_some());
        let moves = claims.into_iter().map(|claim| {
            let position = next(claim.job()).unwrap_or(claim.job().progress.position);
            self.move_on(claim, &Verdict::Failover { position }, Cause::Internal)
        });
        let moves: Vec<_> = moves.collect();
        if !moves.is_empty() {
            let jobs_count = moves.len();
            tracing::info!(mailprovider = %name, jobs_count, "jobs go on: it takes none for now");
        }
        // Another one may take mail again sooner.
        let ends = catalog.providers.keys().filter_map(|name| self.registry.held(name));
        let until = ends.map(|held| held.until).min().map_or(until, |first| first.min(until));
        self.settle_moves(moves, || Turn::Held { until, usable }).await
    }

    /// Returns when other providers can take mail than these; never, when nobody asks.
    async fn usable_changed(&self, before: Option<BTreeSet<ProviderName>>) {
        let Some(before) = before else { return std::future::pending().await };
        let mut changes = self.registry.changes();
        while self.usable() == before {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
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
            Verdict::Wait => {}
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

/// Returns when the attempt has ended; never, when there is none.
async fn ended(attempt: &mut Option<JoinHandle<()>>) {
    match attempt {
        // It does not panic: what breaks a sender is an outcome.
        Some(attempt) => drop(attempt.await),
        None => std::future::pending().await,
    }
}
