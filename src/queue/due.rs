//! Order in memory: one lane per provider, rebuilt at open.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::core::job::{Job, JobId, JobState};
use crate::core::time::Time;

/// One provider's queued jobs by the time they are due.
///
/// First attempts and retries wait apart and are taken in turn, so that neither a burst of fresh
/// mail nor a backlog of retries starves the other.
#[derive(Debug, Default)]
pub(super) struct Lane {
    fresh: BTreeSet<(Time, JobId)>,
    retries: BTreeSet<(Time, JobId)>,
    retry_is_next: bool,
    /// Attempts under way.
    pub(super) in_flight_count: usize,
    /// Wakes whoever waits for this lane when a job comes in or back.
    pub(super) arrival: Arc<Notify>,
}

impl Lane {
    /// Lets a queued job wait until it is due.
    pub(super) fn insert(&mut self, job: &Job) {
        if let JobState::Queued { due } = job.progress.state {
            self.side(job).insert((due, job.id));
            self.arrival.notify_one();
        }
    }

    /// Takes a job out of the order.
    pub(super) fn remove(&mut self, job: &Job) {
        if let JobState::Queued { due } = job.progress.state {
            self.side(job).remove(&(due, job.id));
        }
    }

    /// The job whose turn it is among those that are due and that `may` admits.
    pub(super) fn next(&mut self, now: Time, may: impl Fn(JobId) -> bool) -> Option<JobId> {
        let first_due = |side: &BTreeSet<(Time, JobId)>| {
            side.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id).find(|id| may(*id))
        };
        let (fresh, retry) = (first_due(&self.fresh), first_due(&self.retries));
        let takes_retry = retry.is_some() && (self.retry_is_next || fresh.is_none());
        self.retry_is_next = !takes_retry;
        if takes_retry { retry } else { fresh }
    }

    /// When the earliest of its jobs that are not due at `now` is due.
    pub(super) fn next_due(&self, now: Time) -> Option<Time> {
        let behind = (Bound::Excluded((now, JobId(Uuid::max()))), Bound::Unbounded);
        let first = |side: &BTreeSet<_>| side.range(behind).next().map(|(due, _)| *due);
        [first(&self.fresh), first(&self.retries)].into_iter().flatten().min()
    }

    /// When the earliest of its jobs is due.
    pub(super) fn first_due(&self) -> Option<Time> {
        let first = |side: &BTreeSet<(Time, JobId)>| side.first().map(|(due, _)| *due);
        [first(&self.fresh), first(&self.retries)].into_iter().flatten().min()
    }

    fn side(&mut self, job: &Job) -> &mut BTreeSet<(Time, JobId)> {
        if job.progress.attempts_all == 0 { &mut self.fresh } else { &mut self.retries }
    }
}
