//! What time does to jobs by itself: expiry and forgetting.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Delivery;
use crate::core::decide::Verdict;
use crate::core::job::DeadReason;
use crate::core::outcome::Cause;
use crate::core::pace::Pace;
use crate::core::time::Time;
use crate::queue::{Claim, Settlement};

/// How long what is past is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Jobs that were delivered or cancelled (`--history-retention`).
    pub history: Duration,
    /// Dead letters that are not parked (`--deadletter-retention`).
    pub dead_letters: Duration,
    /// Idempotency keys (`--idempotency-retention`).
    pub keys: Duration,
}

/// How often the past is looked through.
const INTERVAL: Duration = Duration::from_secs(60);

impl Delivery {
    /// Buries each job whose deadline has passed, wherever it waits.
    pub(super) async fn expire(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let claims = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                claims = self.queue.expired() => claims,
            };
            let now = self.clock.now();
            let expired: Vec<_> =
                claims.into_iter().map(|claim| self.expired(claim, now)).collect();
            tracing::warn!(jobs_count = expired.len(), "jobs expired and are dead letters");
            if let Err(error) = self.queue.settle(expired).await {
                tracing::error!(%error, "cannot record expired jobs");
                return;
            }
        }
    }

    /// A claim whose deadline has passed, buried.
    pub(super) fn expired(&self, claim: Claim, now: Time) -> Settlement {
        let job = claim.job();
        let waited = now.since(job.accepted_at).as_secs();
        let verdict = Verdict::Bury {
            reason: DeadReason::Expired,
            detail: format!("it was not delivered within {waited} s"),
        };
        self.metrics.buried(job.progress.provider(), Cause::Expired);
        let after = verdict.apply(&job.progress, false, now);
        claim.becomes(after, None)
    }

    /// Forgets what is older than its retention.
    pub(super) async fn forget(self: Arc<Self>, stop: CancellationToken) {
        let Retention { history, dead_letters, keys } = self.retention;
        loop {
            let now = self.clock.now();
            let before = |kept: Duration| Time(now.0.saturating_sub(millis(kept)));
            // A day that is limited is counted from the history at the next start.
            let catalog = self.registry.catalog();
            // Nor is it known at first in a cluster whether there will be such a limit.
            let is_counted = catalog.is_any_limited() || catalog.providers.is_empty();
            let history = if is_counted { history.max(Pace::DAY) } else { history };
            let gone = self.queue.forget(before(history), before(dead_letters), before(keys)).await;
            match gone {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "dead letters were removed after their time"),
                Err(error) => tracing::error!(%error, "cannot forget what is past"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
