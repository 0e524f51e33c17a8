//! How far the index has followed the journal.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::queue::store::StoreError;

/// The last sequence that the index has applied, to be waited for.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    applied: u64,
    closed: bool,
    failed: Option<String>,
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(why) => Err(StoreError::Busy(format!("the index is made again: {why}"))),
            None => Ok(()),
        }
    }
}

impl Progress {
    /// A new index has applied so much.
    pub(super) fn begin(&self, applied: u64) {
        self.update(|state| {
            state.applied = applied;
            state.failed = None;
        });
    }

    pub(super) fn advance(&self, applied: u64) {
        self.update(|state| state.applied = state.applied.max(applied));
    }

    pub(super) fn fail(&self, why: &str) {
        self.update(|state| state.failed = Some(why.to_owned()));
    }

    pub(super) fn close(&self) {
        self.update(|state| state.closed = true);
    }

    pub(super) fn applied(&self) -> u64 {
        self.lock().applied
    }

    /// Whether the index follows.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.lock().check()
    }

    /// Blocks until the index has applied `sequence`.
    pub(super) fn wait(&self, sequence: u64) -> Result<(), StoreError> {
        let waits =
            |state: &mut State| state.applied < sequence && !state.closed && state.failed.is_none();
        let state = self.changed.wait_while(self.lock(), waits);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.check()
    }

    /// Blocks until the index has applied more than `sequence`, through its failures, or until
    /// `limit` has passed; `None` when the store closes.
    pub(super) fn wait_beyond(&self, sequence: u64, limit: Option<Duration>) -> Option<u64> {
        let waits = |state: &mut State| {
            (state.applied <= sequence || state.failed.is_some()) && !state.closed
        };
        let limit = limit.unwrap_or(Duration::MAX);
        let state = self.changed.wait_timeout_while(self.lock(), limit, waits);
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then_some(state.applied)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
