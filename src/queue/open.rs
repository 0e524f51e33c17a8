//! The order as it was, out of the store: every job keeps its due time, its deadline and its place.
//!
//! Times are those of the wall clock. When that was set back while nobody was there, no job waits
//! longer than it was told to, and none lives longer than a new one; when it was set forward, what
//! waited is due, and what is too old expires.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::act::REDRIVE_WAIT_MAX;
use super::state::{Slot, State};
use super::store::{Store, StoreError};
use super::{Ids, Queue};
use crate::clock::Clock;
use crate::core::job::{Job, JobState};
use crate::core::provider::RetryPolicy;
use crate::core::time::Time;

impl Queue {
    /// Rebuilds the order from what the store holds. `ids` names what comes; `age_max` bounds the
    /// life of each job.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Clock,
        ids: Ids,
        age_max: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        let now = clock.now();
        let mut slots = Vec::new();
        store.live(&mut |mut job| {
            if let JobState::Queued { due } = job.progress.state
                && now < due
            {
                let due = due.min(now.plus(wait_given(&*store, &job, due)));
                job.progress.state = JobState::Queued { due };
            }
            let deadline = &mut job.progress.deadline;
            if *deadline < job.accepted_at {
                // Written under a clock that was far behind.
                *deadline = job.accepted_at.plus(age_max);
            }
            *deadline = now.plus(age_max).min(*deadline);
            slots.push(Slot::free(job));
        })?;
        let state = State::of(slots, ids);
        let names = state.lanes.keys().cloned().collect();
        let (lanes, _) = watch::channel(names);
        let deadline_changed = state.deadline_changed.clone();
        let state = Mutex::new(state);
        let opened_at = now;
        Ok(Arc::new(Self { store, clock, age_max, opened_at, state, lanes, deadline_changed }))
    }
}

/// How long a job that is due at `due` was told to wait, when its last attempt ended or it was
/// redriven; the longest wait there is, when its attempts cannot be looked up just now.
fn wait_given(store: &dyn Store, job: &Job, due: Time) -> Duration {
    if job.progress.attempts_here == 0 {
        return REDRIVE_WAIT_MAX;
    }
    let attempts = store.job(job.id).ok().flatten().map(|(_, attempts)| attempts);
    let last = attempts.as_ref().and_then(|attempts| attempts.last());
    let since_last = last.map(|last| due.since(last.at.plus(last.duration)));
    since_last.unwrap_or(RetryPolicy::BACKOFF_MAX).min(RetryPolicy::BACKOFF_MAX)
}
