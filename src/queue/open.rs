//! The order as it was, out of the store: every job keeps its due time, its deadline and its place.
//!
//! Times are those of the wall clock. When that was set back while nobody was there, no job waits
//! longer than it was told to, and none lives longer than a new one; when it was set forward, what
//! waited is due, and what is too old expires.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::act::REDRIVE_WAIT_MAX;
use super::store::{Store, StoreError};
use super::{Queue, State};
use crate::clock::Clock;
use crate::core::job::{Job, JobState};
use crate::core::provider::RetryPolicy;
use crate::core::time::Time;

impl Queue {
    /// Rebuilds the order from what the store holds. `age_max` bounds the life of each job.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Clock,
        age_max: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        let mut state = State::default();
        let now = clock.now();
        for mut job in store.live()? {
            if let JobState::Queued { due } = job.progress.state
                && now < due
            {
                let due = due.min(now.plus(wait_given(&*store, &job, due)?));
                job.progress.state = JobState::Queued { due };
            }
            job.progress.deadline = job.progress.deadline.min(now.plus(age_max));
            state.insert(job);
        }
        let names = state.lanes.keys().cloned().collect();
        let (lanes, _) = watch::channel(names);
        let deadline_changed = Notify::new();
        let state = Mutex::new(state);
        Ok(Arc::new(Self { store, clock, age_max, state, lanes, deadline_changed }))
    }
}

/// How long a job that is due at `due` was told to wait, when its last attempt ended or it was redriven.
fn wait_given(store: &dyn Store, job: &Job, due: Time) -> Result<Duration, StoreError> {
    if job.progress.attempts_here == 0 {
        return Ok(REDRIVE_WAIT_MAX);
    }
    let attempts = store.job(job.id)?.map(|(_, attempts)| attempts).unwrap_or_default();
    let since_last = attempts.last().map(|last| due.since(last.at.plus(last.duration)));
    Ok(since_last.unwrap_or(RetryPolicy::BACKOFF_MAX).min(RetryPolicy::BACKOFF_MAX))
}
