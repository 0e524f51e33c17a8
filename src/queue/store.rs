//! What a queue needs of a disk. The only way to write is [`Store::commit`].

use futures_util::future::BoxFuture;

use crate::core::job::{Attempt, Job, JobId, Progress};
use crate::core::notification::{Content, Notification, NotificationId};
use crate::core::pace::Tally;
use crate::core::time::Time;

/// One durable change. The changes of one commit survive together or not at all when they concern
/// one notification; a change is never half applied.
#[derive(Clone, Debug)]
pub enum Change {
    /// A notification and all its jobs, each at [`Progress::fresh`].
    Accept {
        /// What was accepted.
        notification: Notification,
        /// What its recipients read.
        content: Content,
        /// The deadline of each of its jobs.
        deadline: Time,
        /// The caller's idempotency key.
        key: Option<IdempotencyKey>,
    },
    /// A job moved on.
    Update {
        /// Which.
        job: JobId,
        /// Where it stands now.
        progress: Progress,
        /// The attempt that moved it, if one did.
        attempt: Option<Attempt>,
    },
    /// A job that ended, or a dead letter, left the history.
    ForgetJob(JobId),
    /// The idempotency key of a notification is too old to be honoured.
    ForgetKey(NotificationId),
}

/// What makes a repeated request one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// 1 to 255 visible ASCII characters.
    pub key: String,
    /// A hash of the request as it was meant, so that the same key with another request is told
    /// apart.
    pub fingerprint: [u8; 32],
}

/// A part of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, when there may be one.
    pub next: Option<JobId>,
}

/// A queue's disk. Reads see every commit that returned before they began. Reads may block: call
/// them off the runtime's threads.
pub trait Store: Send + Sync + 'static {
    /// Resolves once the changes survive a power cut, and fails when none of them is stored. Where a
    /// failed sync leaves that in doubt it does not resolve at all: whoever waits must be told neither,
    /// and only a restart learns the truth. From then on every commit fails.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Whether a read may wait for a disk, and has to be kept off the runtime's threads.
    fn blocks(&self) -> bool {
        true
    }

    /// Tells of each job that is queued or dead, in any order. `each` may read from the store.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn live(&self, each: &mut dyn FnMut(Job)) -> Result<(), StoreError>;

    /// The content of a notification that has a queued or dead job.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when its bytes are damaged or gone.
    fn content(&self, id: NotificationId) -> Result<Content, StoreError>;

    /// The same when it can be had without waiting for a disk; `None` also when it cannot be read.
    fn content_at_hand(&self, _id: NotificationId) -> Option<Content> {
        None
    }

    /// A notification that is still remembered.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn notification(&self, id: NotificationId) -> Result<Option<Notification>, StoreError>;

    /// A job that is still remembered, with its attempts, oldest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError>;

    /// Up to `limit` jobs older than `before` that `keep` takes, newest first. A page may hold
    /// fewer while there are more: the work of one call is bounded.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: &dyn Fn(&Job) -> bool,
    ) -> Result<Page<Job>, StoreError>;

    /// The fingerprint and the notification that were accepted under an idempotency key.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn accepted_under(&self, key: &str) -> Result<Option<([u8; 32], NotificationId)>, StoreError>;

    /// Up to `limit` jobs that ended (delivered or cancelled) before `time`.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn ended_before(&self, time: Time, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// How many messages each provider took since `time`, of those that are still remembered. Those
    /// that seem to lie in the future are among them.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn delivered_since(&self, time: Time) -> Result<Tally, StoreError>;

    /// Up to `limit` notifications accepted before `time` whose idempotency key is remembered.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn keys_before(&self, time: Time, limit: usize) -> Result<Vec<NotificationId>, StoreError>;
}

/// Why the disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room. Nothing was stored; with room again the next commit succeeds.
    #[error("the data folder has no space left")]
    NoSpace,
    /// The store stopped working and says why; only a restart helps.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// The disk did not answer, and may do so later.
    #[error("cannot read just now: {0}")]
    Busy(String),
    /// These bytes cannot be read; names the file and the offset.
    #[error("unreadable: {0}")]
    Unreadable(String),
}
