//! What is done with jobs by hand or by time: revive, redrive, discard, cancel, expire, forget.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Hold, Home, Standing};
use super::store::{Change, StoreError};
use super::{Claim, Phase, Queue};
use crate::core::job::{JobId, JobState};
use crate::core::notification::Notification;
use crate::core::provider::ProviderName;
use crate::core::time::Time;

/// The longest that a job waits after it was redriven.
pub(super) const REDRIVE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// There is no such dead letter, or it is being changed by somebody else just now.
    #[error("there is no such dead letter")]
    NotFound,
    /// The queue that it would go to has no place.
    #[error("the queue of {provider} is full ({capacity} jobs)")]
    Full {
        /// Whose queue.
        provider: ProviderName,
        /// Its `queueSize`.
        capacity: usize,
    },
    /// The disk did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of each job of a notification that was to be cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Taken out.
    pub cancelled: Vec<JobId>,
    /// In flight, or at their end already.
    pub kept: Vec<(JobId, Phase)>,
}

impl Queue {
    /// Queues a dead letter again, with fresh attempts and a new deadline, at the first provider of
    /// its chain, or at `to` alone. `capacity` tells how many jobs a provider takes.
    ///
    /// # Errors
    /// When there is no such dead letter, no place for it, or no room on the disk.
    pub async fn revive(
        self: &Arc<Self>,
        id: JobId,
        to: Option<&ProviderName>,
        capacity: impl Fn(&ProviderName) -> usize,
    ) -> Result<(), ActError> {
        let mut claim = self.take_dead(id).ok_or(ActError::NotFound)?;
        let now = self.clock.now();
        let mut after = claim.job().progress.clone();
        if let Some(provider) = to {
            after.chain = Arc::from([provider.clone()]);
        }
        after.state = JobState::Queued { due: now };
        after.position = 0;
        after.attempts_here = 0;
        after.deadline = now.plus(self.age_max);
        let home = after.home();
        let capacity = capacity(home);
        let is_full = {
            let mut state = self.lock();
            let at_home = state.homes.get(home);
            let has_place = at_home.is_some_and(|home| home.jobs.contains_key(&id));
            let is_full = !has_place && capacity <= at_home.map_or(0, Home::depth);
            if !has_place && !is_full {
                let at_home = state.homes.entry(home.clone()).or_default();
                at_home.jobs.insert(id, Standing::of(&after));
                claim.place = Some(home.clone());
            }
            is_full
        };
        if is_full {
            return Err(ActError::Full { provider: home.clone(), capacity });
        }
        Ok(self.settle_or_refuse(vec![claim.becomes(after, None)]).await?)
    }

    /// Queues all jobs again that are parked and have `provider` in their chain, at that provider,
    /// oldest first; answers how many. A job that was parked again and again waits longer each
    /// time, up to 30 s, so that it cannot keep a provider busy by itself.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn redrive(self: &Arc<Self>, provider: &ProviderName) -> Result<usize, StoreError> {
        let mut count = 0;
        loop {
            let ids: Vec<JobId> = {
                let state = self.lock();
                let parked = state.parked.get(provider);
                parked.into_iter().flatten().take(Self::BATCH).copied().collect()
            };
            if ids.is_empty() {
                return Ok(count);
            }
            let claims: Vec<Claim> =
                ids.into_iter().filter_map(|id| self.take(id, Hold::Change)).collect();
            if claims.is_empty() {
                // Somebody else changes them just now, and they may be parked again then.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            count += claims.len();
            let now = self.clock.now();
            let redriven = claims.into_iter().map(|claim| {
                let mut after = claim.job().progress.clone();
                let position = after.chain.iter().position(|name| name == provider).unwrap_or(0);
                let wait = match after.redrives {
                    0 => Duration::ZERO,
                    n => Duration::from_secs(1 << (n - 1).min(5)).min(REDRIVE_WAIT_MAX),
                };
                after.position = u16::try_from(position).unwrap_or(0);
                after.attempts_here = 0;
                after.redrives = after.redrives.saturating_add(1);
                after.state = JobState::Queued { due: now.plus(wait) };
                claim.becomes(after, None)
            });
            self.settle(redriven.collect()).await?;
        }
    }

    /// Whether any parked job waits for `provider`.
    #[must_use]
    pub fn has_parked(&self, provider: &ProviderName) -> bool {
        self.lock().parked.get(provider).is_some_and(|parked| !parked.is_empty())
    }

    /// Takes a dead letter out for good. It stays in the history as cancelled.
    ///
    /// # Errors
    /// When there is no such dead letter.
    pub async fn discard(self: &Arc<Self>, id: JobId) -> Result<(), ActError> {
        let claim = self.take_dead(id).ok_or(ActError::NotFound)?;
        let mut after = claim.job().progress.clone();
        after.state = JobState::Cancelled { at: self.clock.now() };
        Ok(self.settle_or_refuse(vec![claim.becomes(after, None)]).await?)
    }

    /// Cancels the jobs of a notification that are not in flight and not at their end.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn cancel(
        self: &Arc<Self>,
        notification: &Notification,
    ) -> Result<Cancelled, StoreError> {
        let mut done = Cancelled::default();
        let mut settlements = Vec::new();
        for (id, _) in &notification.jobs {
            if let Some(claim) = self.take(*id, Hold::Change) {
                let mut after = claim.job().progress.clone();
                after.state = JobState::Cancelled { at: self.clock.now() };
                settlements.push(claim.becomes(after, None));
                done.cancelled.push(*id);
            } else if self.lock().jobs.contains_key(id) {
                // Held: by an attempt, or by a change that is being recorded.
                done.kept.push((*id, Phase::InFlight));
            } else if let Some((job, _)) = self.job(*id).await? {
                done.kept.push((*id, self.phase(&job)));
            }
        }
        self.settle_or_refuse(settlements).await?;
        Ok(done)
    }

    /// Waits until a job's deadline may have passed, then takes those whose deadline has, queued
    /// and parked, a batch at a time.
    pub async fn expired(self: &Arc<Self>) -> Vec<Claim> {
        loop {
            let now = self.clock.now();
            let (ids, next): (Vec<JobId>, Option<Time>) = {
                let mut state = self.lock();
                let past = state.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
                let ids = past.take(Self::BATCH).map(|(_, id)| *id).collect();
                let next = state.deadlines.first().map(|(deadline, _)| *deadline);
                state.deadline_awaited = next.unwrap_or(Time(u64::MAX));
                (ids, next)
            };
            let claims: Vec<Claim> =
                ids.into_iter().filter_map(|id| self.take(id, Hold::Change)).collect();
            if !claims.is_empty() {
                return claims;
            }
            match next {
                Some(deadline) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(self.clock.instant(deadline)) => {}
                    () = self.deadline_changed.notified() => {}
                },
                None => self.deadline_changed.notified().await,
            }
        }
    }

    /// Forgets what is older than the given times: history, dead letters that are not parked, and
    /// idempotency keys. Answers how many dead letters went.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn forget(
        self: &Arc<Self>,
        history: Time,
        dead_letters: Time,
        keys: Time,
    ) -> Result<usize, StoreError> {
        loop {
            let ended = self.read(move |store| store.ended_before(history, Self::BATCH)).await?;
            let old = self.read(move |store| store.keys_before(keys, Self::BATCH)).await?;
            if ended.is_empty() && old.is_empty() {
                break;
            }
            let jobs = ended.into_iter().map(Change::ForgetJob);
            let changes = jobs.chain(old.into_iter().map(Change::ForgetKey)).collect();
            self.store.commit(changes).await?;
        }
        let old: Vec<JobId> = {
            let state = self.lock();
            let past = state.dead.iter().take_while(|(at, _)| *at < dead_letters);
            let ids = past.map(|(_, id)| *id);
            ids.filter(|id| state.jobs.get(id).is_some_and(|s| !s.job.progress.is_parked()))
                .collect()
        };
        let mut count = 0;
        for id in &old {
            // Since it was listed it may have been revived and given up again.
            let is_old = |claim: &Claim| match claim.job.progress.state {
                JobState::Dead { at, .. } => at < dead_letters && !claim.job.progress.is_parked(),
                _ => false,
            };
            if let Some(mut claim) = self.take_dead(*id).filter(is_old) {
                self.store.commit(vec![Change::ForgetJob(*id)]).await?;
                claim.settled = true;
                self.lock().jobs.remove(id);
                count += 1;
            }
        }
        Ok(count)
    }

    fn take_dead(self: &Arc<Self>, id: JobId) -> Option<Claim> {
        let is_dead =
            matches!(self.lock().jobs.get(&id)?.job.progress.state, JobState::Dead { .. });
        if is_dead { self.take(id, Hold::Change) } else { None }
    }

    /// How many jobs change in one commit: bounds the record, not the work.
    const BATCH: usize = 256;
}
