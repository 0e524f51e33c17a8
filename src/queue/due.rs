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
        match Waiting::of(job) {
            Some(Waiting::Fresh(id)) => self.fresh.insert(id),
            Some(Waiting::Retry(due, id)) => self.retries.insert((due, id)),
            None => return,
        };
        self.arrival.notify_one();
    }

    /// A lane in which these jobs wait; those that are not queued are left out.
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a Job> + Clone) -> Self {
        let waiting = || jobs.clone().filter_map(Waiting::of);
        let fresh = waiting().filter_map(|waiting| match waiting {
            Waiting::Fresh(id) => Some(id),
            Waiting::Retry(..) => None,
        });
        let retries = waiting().filter_map(|waiting| match waiting {
            Waiting::Fresh(_) => None,
            Waiting::Retry(due, id) => Some((due, id)),
        });
        Self { fresh: fresh.collect(), retries: retries.collect(), ..Self::default() }
    }

    /// Takes a job out of the order.
    pub(super) fn remove(&mut self, job: &Job) {
        match Waiting::of(job) {
            Some(Waiting::Fresh(id)) => self.fresh.remove(&id),
            Some(Waiting::Retry(due, id)) => self.retries.remove(&(due, id)),
            None => false,
        };
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

/// How a queued job waits.
enum Waiting {
    Fresh(JobId),
    Retry(Time, JobId),
}

impl Waiting {
    fn of(job: &Job) -> Option<Self> {
        let JobState::Queued { due } = job.progress.state else { return None };
        let is_fresh = job.progress.attempts_all == 0 && due <= job.accepted_at;
        Some(if is_fresh { Self::Fresh(job.id) } else { Self::Retry(due, job.id) })
    }
}
