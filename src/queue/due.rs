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
    /// Never tried and due since they were accepted, oldest first.
    fresh: BTreeSet<JobId>,
    /// All others, by the time they are due.
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
            if is_fresh(job, due) {
                self.fresh.insert(job.id);
            } else {
                self.retries.insert((due, job.id));
            }
            self.arrival.notify_one();
        }
    }

    /// Makes its trees as small as they can be.
    pub(super) fn pack(&mut self) {
        self.fresh = std::mem::take(&mut self.fresh).into_iter().collect();
        self.retries = std::mem::take(&mut self.retries).into_iter().collect();
    }

    /// Takes a job out of the order.
    pub(super) fn remove(&mut self, job: &Job) {
        if let JobState::Queued { due } = job.progress.state {
            if is_fresh(job, due) {
                self.fresh.remove(&job.id);
            } else {
                self.retries.remove(&(due, job.id));
            }
        }
    }

    /// The job whose turn it is among those that are due and that `may` admits.
    pub(super) fn next(&mut self, now: Time, may: impl Fn(JobId) -> bool) -> Option<JobId> {
        let fresh = self.fresh.iter().find(|id| may(**id)).copied();
        let due = self.retries.iter().take_while(|(due, _)| *due <= now);
        let retry = due.map(|(_, id)| *id).find(|id| may(*id));
        let takes_retry = retry.is_some() && (self.retry_is_next || fresh.is_none());
        self.retry_is_next = !takes_retry;
        if takes_retry { retry } else { fresh }
    }

    /// When the earliest of its jobs that are not due at `now` is due.
    pub(super) fn next_due(&self, now: Time) -> Option<Time> {
        let behind = (Bound::Excluded((now, JobId(Uuid::max()))), Bound::Unbounded);
        self.retries.range(behind).next().map(|(due, _)| *due)
    }

    /// When the earliest of its jobs is due; long ago, when one of them was never tried.
    pub(super) fn first_due(&self) -> Option<Time> {
        let fresh = self.fresh.first().map(|_| Time(0));
        fresh.or_else(|| self.retries.first().map(|(due, _)| *due))
    }
}

fn is_fresh(job: &Job, due: Time) -> bool {
    job.progress.attempts_all == 0 && due <= job.accepted_at
}
