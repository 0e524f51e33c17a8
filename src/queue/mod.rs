//! A job's life, on top of a [`Store`].
//!
//! Whatever happens to a job happens in three steps: it is taken out of the order (a [`Claim`]),
//! its change is committed, and only then does memory follow. A claim that is dropped unsettled
//! puts its job back where it was. The bound of each provider is kept on the way in: a job has a
//! place with the provider that accepted it from before its commit until its end.

mod accept;
mod act;
mod due;
mod ids;
mod open;
mod report;
mod state;
pub mod store;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub use accept::{Accept, AcceptError, Accepted};
pub use act::{ActError, Cancelled};
pub use ids::Ids;
pub use report::{DeadFilter, DeadPage, Depth, Phase};

use crate::clock::Clock;
use crate::core::job::{Attempt, Job, JobId, Progress};
use crate::core::notification::{Content, Notification, NotificationId};
use crate::core::pace::Tally;
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use state::{Hold, State};
use store::{Change, Page, Store, StoreError};

/// The queue. Shared by everything that accepts, delivers or looks.
pub struct Queue {
    store: Arc<dyn Store>,
    clock: Clock,
    age_max: Duration,
    opened_at: Time,
    state: Mutex<State>,
    /// The names of all lanes there have been, for whoever runs a worker per lane.
    lanes: watch::Sender<BTreeSet<ProviderName>>,
    /// Wakes when there is an earlier deadline than the one that is waited for.
    deadline_changed: Arc<Notify>,
}

/// One job, taken out of the order. Dropped unsettled, it goes back.
#[must_use]
pub struct Claim {
    queue: Arc<Queue>,
    job: Job,
    /// A place that the job was given beside its own, until it is settled.
    place: Option<ProviderName>,
    settled: bool,
}

impl Claim {
    /// The job as it was when it was claimed.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// This claim settled as `progress`, with the attempt that led there.
    pub fn becomes(self, progress: Progress, attempt: Option<Attempt>) -> Settlement {
        Settlement { claim: self, progress, attempt }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = self.queue.lock();
            if let Some(home) = &self.place {
                state.leave(home, self.job.id);
            }
            state.put(self.job.clone());
            drop(state);
            self.queue.announce(self.job.progress.provider());
        }
    }
}

/// What came of a claim.
#[must_use]
pub struct Settlement {
    claim: Claim,
    progress: Progress,
    attempt: Option<Attempt>,
}

impl Queue {
    /// The names of all lanes, and a wake-up for each new one.
    #[must_use]
    pub fn lanes(&self) -> watch::Receiver<BTreeSet<ProviderName>> {
        self.lanes.subscribe()
    }

    /// Wakes when a job comes to this lane or back to it.
    #[must_use]
    pub fn arrival(&self, provider: &ProviderName) -> Arc<Notify> {
        self.lock().lane(provider).arrival.clone()
    }

    /// When the earliest job of a lane that is not due at `now` is due.
    #[must_use]
    pub fn next_due(&self, provider: &ProviderName, now: Time) -> Option<Time> {
        self.lock().lanes.get(provider)?.next_due(now)
    }

    /// Takes the job of this lane whose turn it is, among those that are due and that `may` admits.
    /// Nothing any more once the store has stopped: what became of an attempt would not be known.
    pub fn claim(
        self: &Arc<Self>,
        provider: &ProviderName,
        may: impl Fn(&Job) -> bool,
    ) -> Option<Claim> {
        let now = self.clock.now();
        let mut state = self.lock();
        let State { lanes, jobs, store_stopped: false, .. } = &mut *state else { return None };
        let lane = lanes.get_mut(provider)?;
        let id = lane.next(now, |id| jobs.get(&id).is_some_and(|slot| may(&slot.job)))?;
        let job = state.take(id, Hold::Attempt)?;
        Some(Claim { queue: self.clone(), job, place: None, settled: false })
    }

    /// Commits what came of the claims, together, and lets memory follow. Waits as long as the disk
    /// has no room: what an SMTP server took must not be sent again for want of a record.
    ///
    /// # Errors
    /// When the store has stopped. The jobs go back to where they were; the disk is the truth.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let changes = Self::changes(&settlements);
        loop {
            match self.store.commit(changes.clone()).await {
                Ok(()) => break,
                Err(StoreError::NoSpace) => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(error) => {
                    self.lock().store_stopped = true;
                    return Err(error);
                }
            }
        }
        self.follow(settlements);
        Ok(())
    }

    /// Like [`settle`](Self::settle), for what a person asked for: fails at once when the disk has
    /// no room, because nothing is lost and the person can ask again.
    async fn settle_or_refuse(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        self.store.commit(Self::changes(&settlements)).await?;
        self.follow(settlements);
        Ok(())
    }

    fn changes(settlements: &[Settlement]) -> Vec<Change> {
        let update = |settlement: &Settlement| Change::Update {
            job: settlement.claim.job.id,
            progress: settlement.progress.clone(),
            attempt: settlement.attempt.clone(),
        };
        settlements.iter().map(update).collect()
    }

    /// Lets memory follow what was committed.
    fn follow(&self, settlements: Vec<Settlement>) {
        for Settlement { mut claim, progress, .. } in settlements {
            claim.settled = true;
            let job = Job { progress, ..claim.job.clone() };
            let provider = job.progress.provider().clone();
            let home = job.progress.home().clone();
            let leaves = claim.job.progress.is_bounded() && !job.progress.is_bounded();
            let mut state = self.lock();
            state.put(job);
            if leaves {
                state.left(&home, self.opened_at, self.clock.now());
            }
            drop(state);
            self.announce(&provider);
        }
    }

    /// The content of a claimed job.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when its bytes are damaged.
    pub async fn content(&self, id: NotificationId) -> Result<Content, StoreError> {
        if let Some(content) = self.store.content_at_hand(id) {
            return Ok(content);
        }
        self.read(move |store| store.content(id)).await
    }

    /// A notification that is still remembered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn notification(
        &self,
        id: NotificationId,
    ) -> Result<Option<Notification>, StoreError> {
        self.read(move |store| store.notification(id)).await
    }

    /// A job that is still remembered, with its attempts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError> {
        let mut seen_count = None;
        loop {
            let Some((job, attempts)) = self.read(move |store| store.job(id)).await? else {
                return Ok(None);
            };
            let count = job.progress.attempts_all;
            let job = self.as_it_counts(job);
            // Where memory counts more, one ended since the store was read, which knows it by now.
            if job.progress.attempts_all <= count || seen_count == Some(count) {
                return Ok(Some((job, attempts)));
            }
            seen_count = Some(count);
        }
    }

    /// How many messages each provider took since a time, as far as the history goes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn delivered_since(&self, time: Time) -> Result<Tally, StoreError> {
        self.read(move |store| store.delivered_since(time)).await
    }

    /// Jobs older than `before`, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: impl Fn(&Job) -> bool + Send + 'static,
    ) -> Result<Page<Job>, StoreError> {
        let mut page = self.read(move |store| store.jobs(before, limit, &keep)).await?;
        page.items = page.items.into_iter().map(|job| self.as_it_counts(job)).collect();
        Ok(page)
    }

    /// A job of the store as memory has it, which is what everything that is done with it goes by:
    /// memory follows a commit by a moment, and [`open`](Self::open) may have brought times forward.
    fn as_it_counts(&self, mut job: Job) -> Job {
        if let Some(slot) = self.lock().jobs.get(&job.id) {
            job.progress = slot.job.progress.clone();
        }
        job
    }

    /// Refuses new notifications from now on; claims stay possible.
    pub fn stop_accepting(&self) {
        self.lock().stopping = true;
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.store.blocks() {
            return work(&*self.store);
        }
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        done.unwrap_or_else(|_| Err(StoreError::Busy("the reading was cut short".to_owned())))
    }

    fn take(self: &Arc<Self>, id: JobId, hold: Hold) -> Option<Claim> {
        let job = self.lock().take(id, hold)?;
        Some(Claim { queue: self.clone(), job, place: None, settled: false })
    }

    /// Makes a lane known to those who run workers.
    fn announce(&self, provider: &ProviderName) {
        self.lanes
            .send_if_modified(|names| !names.contains(provider) && names.insert(provider.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way: a panic would mean that an invariant is broken already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
