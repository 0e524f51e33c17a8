//! Taking a notification in: bound, idempotency, commit.

use std::sync::Arc;

use super::Queue;
use super::state::{Home, State};
use super::store::{Change, IdempotencyKey, StoreError};
use crate::core::job::{Job, JobId, Progress};
use crate::core::notification::{Address, Content, Notification, NotificationId};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::core::trace::TraceContext;

/// A notification that was checked and routed.
#[derive(Clone, Debug)]
pub struct Accept {
    /// At least one, without repeats.
    pub recipients: Vec<Address>,
    /// What they read.
    pub content: Content,
    /// The caller's own end of life for it.
    pub expires_at: Option<Time>,
    /// Never empty; the first accepts.
    pub chain: Arc<[ProviderName]>,
    /// How many jobs the first provider of the chain takes.
    pub capacity: usize,
    /// What the caller should be told.
    pub warnings: Vec<String>,
    /// The caller's idempotency key.
    pub key: Option<IdempotencyKey>,
    /// The span that it is accepted in.
    pub trace: Option<TraceContext>,
}

/// The answer to a notification that is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What was accepted.
    pub notification: Notification,
    /// Whether it was accepted by an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Why a notification was not accepted. No mail of it is ever sent.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The provider that would accept it has no place.
    #[error(
        "the queue of {provider} has no place for {wanted} more jobs: {depth} of {capacity} are taken"
    )]
    Full {
        /// Whose queue.
        provider: ProviderName,
        /// Its `queueSize`.
        capacity: usize,
        /// How many of its places are taken.
        depth: usize,
        /// How many the notification needs.
        wanted: usize,
    },
    /// The key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The first request with this key is still being answered.
    #[error("the first request with this Idempotency-Key is still being answered")]
    KeyBusy,
    /// The process is ending.
    #[error("the server is shutting down")]
    Stopping,
    /// The disk did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Queue {
    /// Makes a notification durable: returns once all its jobs survive a power cut, or none exists.
    ///
    /// Run it to its end: a caller that may go away spawns it.
    ///
    /// # Errors
    /// See [`AcceptError`]; after any of them nothing of it is stored.
    pub async fn accept(&self, accept: Accept) -> Result<Accepted, AcceptError> {
        let Some(key) = accept.key.clone() else {
            return self.accept_new(accept).await;
        };
        let _answering = Answering::begin(self, &key.key, key.fingerprint)?;
        match self.answered(&key).await? {
            Some(earlier) => Ok(earlier),
            None => self.accept_new(accept).await,
        }
    }

    /// The first answer to a request that was accepted under `key`, if there was one. It holds
    /// whatever became of the providers since, so ask before the request is routed.
    ///
    /// # Errors
    /// [`AcceptError::KeyReused`] when it was another request; or when the store cannot be read.
    pub async fn answered(&self, key: &IdempotencyKey) -> Result<Option<Accepted>, AcceptError> {
        let lookup = key.key.clone();
        match self.read(move |store| store.accepted_under(&lookup)).await? {
            Some((earlier, _)) if earlier != key.fingerprint => Err(AcceptError::KeyReused),
            Some((_, id)) => {
                let found = self.notification(id).await?;
                let notification = found.ok_or_else(|| {
                    StoreError::Unreadable(format!("notification {id} of an idempotency key"))
                })?;
                Ok(Some(Accepted { notification, replayed: true }))
            }
            None => Ok(None),
        }
    }

    async fn accept_new(&self, accept: Accept) -> Result<Accepted, AcceptError> {
        let Accept { recipients, content, expires_at, chain, capacity, warnings, key, trace } =
            accept;
        let count = recipients.len();
        let now = self.clock.now();
        let (id, jobs) = self.reserve(&chain[0], count, capacity, now)?;
        let deadline = now.plus(self.age_max).min(expires_at.unwrap_or(Time(u64::MAX)));
        let notification = Notification {
            id,
            subject: content.subject.clone(),
            accepted_at: now,
            expires_at,
            chain: chain.clone(),
            warnings,
            jobs: std::iter::zip(jobs, recipients).collect(),
            trace: trace.map(Arc::new),
        };
        let change = Change::Accept { notification: notification.clone(), content, deadline, key };
        let committed = self.store.commit(vec![change]).await;

        let mut state = self.lock();
        state.homes.entry(chain[0].clone()).or_default().reserved_count -= count;
        committed?;
        for (id, recipient) in &notification.jobs {
            state.insert(Job {
                id: *id,
                notification: notification.id,
                recipient: recipient.clone(),
                accepted_at: now,
                trace: notification.trace.clone(),
                progress: Progress::fresh(chain.clone(), now, deadline),
            });
        }
        drop(state);
        self.announce(&chain[0]);
        Ok(Accepted { notification, replayed: false })
    }

    /// How many places are taken at `provider`, and whether `count` more jobs would find theirs now.
    /// Takes none.
    ///
    /// # Errors
    /// Beside the places: what [`Queue::accept`] would say before it turns to the disk.
    pub fn place(
        &self,
        provider: &ProviderName,
        count: usize,
        capacity: usize,
    ) -> (usize, Result<(), AcceptError>) {
        let state = self.lock();
        (state.depth(provider), state.check_place(provider, count, capacity))
    }

    /// Takes places for so many jobs, and names them and their notification.
    fn reserve(
        &self,
        provider: &ProviderName,
        count: usize,
        capacity: usize,
        now: Time,
    ) -> Result<(NotificationId, Vec<JobId>), AcceptError> {
        let mut state = self.lock();
        state.check_place(provider, count, capacity)?;
        let home: &mut Home = state.homes.entry(provider.clone()).or_default();
        home.reserved_count += count;
        let id = NotificationId(state.ids.next(now));
        Ok((id, (0..count).map(|_| JobId(state.ids.next(now))).collect()))
    }
}

impl State {
    /// Queued and parked jobs of `provider`, and those that are just being accepted.
    fn depth(&self, provider: &ProviderName) -> usize {
        self.homes.get(provider).map_or(0, Home::depth)
    }

    fn check_place(
        &self,
        provider: &ProviderName,
        count: usize,
        capacity: usize,
    ) -> Result<(), AcceptError> {
        if self.stopping {
            return Err(AcceptError::Stopping);
        }
        let depth = self.depth(provider);
        if depth + count > capacity {
            let provider = provider.clone();
            return Err(AcceptError::Full { provider, capacity, depth, wanted: count });
        }
        Ok(())
    }
}

/// An idempotency key whose first request is being answered; ends when dropped.
struct Answering<'a> {
    queue: &'a Queue,
    key: String,
}

impl<'a> Answering<'a> {
    fn begin(queue: &'a Queue, key: &str, fingerprint: [u8; 32]) -> Result<Self, AcceptError> {
        let mut state = queue.lock();
        match state.answering.get(key) {
            Some(other) if *other != fingerprint => return Err(AcceptError::KeyReused),
            Some(_) => return Err(AcceptError::KeyBusy),
            None => state.answering.insert(key.to_owned(), fingerprint),
        };
        Ok(Self { queue, key: key.to_owned() })
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.queue.lock().answering.remove(&self.key);
    }
}
