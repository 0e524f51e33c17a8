//! A disk that takes its time, lacks room, fails a sync, and at a crash keeps some of what was not
//! synced and loses the rest: a [`MemoryStore`] that follows what is on stable storage.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakglass_mailer::core::job::{Attempt, Job, JobId};
use breakglass_mailer::core::notification::{Content, Notification, NotificationId};
use breakglass_mailer::core::pace::Tally;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Change, Page, Store, StoreError};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, ready};
use tokio::sync::watch;

use crate::support::memory_store::MemoryStore;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Plenty,
    /// For what becomes of jobs, and not for new mail.
    Reserve,
    None,
}

/// See the module. A clone is the same disk.
#[derive(Clone)]
pub struct Disk {
    /// What is on stable storage.
    pub kept: MemoryStore,
    state: Arc<Mutex<State>>,
}

struct State {
    lots: fastrand::Rng,
    room: Room,
    fails_next_sync: bool,
    /// Written and not synced, in order, each with its number.
    unsynced: VecDeque<(u64, Vec<Change>)>,
    written_count: u64,
    stopped: watch::Sender<bool>,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        let state = State {
            lots: fastrand::Rng::with_seed(seed),
            room: Room::Plenty,
            fails_next_sync: false,
            unsynced: VecDeque::new(),
            written_count: 0,
            stopped: watch::Sender::new(false),
        };
        Self { kept: MemoryStore::default(), state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_room(&self, room: Room) {
        self.state().room = room;
    }

    pub fn fail_next_sync(&self) {
        self.state().fails_next_sync = true;
    }

    /// Holds `true` once a sync has failed: the server has to end.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.state().stopped.subscribe()
    }

    /// The server is gone. Of what was not synced a part that was written first may be there.
    pub fn crash(&self) {
        let mut state = self.state();
        let unsynced_count = state.unsynced.len();
        let survivors_count = state.lots.usize(..=unsynced_count);
        let unsynced: Vec<_> = state.unsynced.drain(..).collect();
        for (_, changes) in unsynced.into_iter().take(survivors_count) {
            self.kept.apply(changes);
        }
        state.fails_next_sync = false;
        state.stopped.send_replace(false);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no simulated disk panics")
    }

    /// The end of one commit: everything written so far is synced, or nothing of it.
    fn sync(&self, number: u64) -> Option<Result<(), StoreError>> {
        let mut state = self.state();
        if *state.stopped.borrow() {
            return None;
        }
        let is_accept = |change: &Change| matches!(change, Change::Accept { .. });
        let Some(nth) = state.unsynced.iter().position(|(other, _)| *other == number) else {
            // The sync of another one covered it.
            return Some(Ok(()));
        };
        let has_room = match state.room {
            Room::Plenty => true,
            Room::Reserve => !state.unsynced[nth].1.iter().any(is_accept),
            Room::None => false,
        };
        if !has_room {
            state.unsynced.remove(nth);
            return Some(Err(StoreError::NoSpace));
        }
        if std::mem::take(&mut state.fails_next_sync) {
            state.stopped.send_replace(true);
            return None;
        }
        // Those without room are told so when their own turn comes.
        let room = state.room;
        let mut left = VecDeque::new();
        for (other, changes) in std::mem::take(&mut state.unsynced) {
            if room == Room::Plenty || other == number || !changes.iter().any(is_accept) {
                self.kept.apply(changes);
            } else {
                left.push_back((other, changes));
            }
        }
        state.unsynced = left;
        Some(Ok(()))
    }
}

impl Store for Disk {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut state = self.state();
        if *state.stopped.borrow() {
            return ready(Err(StoreError::Stopped("a sync failed".to_owned()))).boxed();
        }
        let number = state.written_count;
        state.written_count += 1;
        state.unsynced.push_back((number, changes));
        let took = Duration::from_millis(state.lots.u64(0..20));
        drop(state);
        let disk = self.clone();
        let done = async move {
            tokio::time::sleep(took).await;
            match disk.sync(number) {
                Some(answer) => answer,
                // In doubt: nobody is told anything.
                None => pending().await,
            }
        };
        done.boxed()
    }

    fn blocks(&self) -> bool {
        false
    }

    fn live(&self, each: &mut dyn FnMut(Job)) -> Result<(), StoreError> {
        self.kept.live(each)
    }

    fn content(&self, id: NotificationId) -> Result<Content, StoreError> {
        self.kept.content(id)
    }

    fn notification(&self, id: NotificationId) -> Result<Option<Notification>, StoreError> {
        self.kept.notification(id)
    }

    fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError> {
        self.kept.job(id)
    }

    fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: &dyn Fn(&Job) -> bool,
    ) -> Result<Page<Job>, StoreError> {
        self.kept.jobs(before, limit, keep)
    }

    fn accepted_under(&self, key: &str) -> Result<Option<([u8; 32], NotificationId)>, StoreError> {
        self.kept.accepted_under(key)
    }

    fn ended_before(&self, time: Time, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.kept.ended_before(time, limit)
    }

    fn delivered_since(&self, time: Time) -> Result<Tally, StoreError> {
        self.kept.delivered_since(time)
    }

    fn keys_before(&self, time: Time, limit: usize) -> Result<Vec<NotificationId>, StoreError> {
        self.kept.keys_before(time, limit)
    }
}
