//! What the store's threads share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::Options;
use super::entry::{Entry, Written};
use super::frame::Encoded;
use super::frames::Frames;
use super::index::Index;
use super::journal::{Append, Listener, Location, Waiting};
use super::make::let_go;
use super::progress::Progress;
use super::reserve::Reserve;
use super::rows::LiveJob;
use crate::migrations::latest::Id;
use crate::queue::store::StoreError;

/// See the module.
pub(super) struct Shared {
    pub(super) store: Uuid,
    pub(super) folder: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) slack_bytes: u64,
    /// Kept by the journal's thread.
    is_short: AtomicBool,
    /// Segments up to this one are freed as soon as may be: some of them are damaged.
    pub(super) damaged_through: u64,
    pub(super) progress: Progress,
    pub(super) stopped: watch::Sender<Option<String>>,
    pub(super) reserve: Arc<Reserve>,
    requests: Mutex<Option<Sender<Append>>>,
    /// Where the content of each notification with a queued or dead job lies.
    contents: Mutex<BTreeMap<Id, Location>>,
    pub(super) frames: Frames,
    sizes: Mutex<BTreeMap<u64, u64>>,
    index: Mutex<Option<Arc<Index>>>,
    /// What was alive when the store was opened without an index, until it is asked for.
    alive_at_open: Mutex<Option<Vec<LiveJob>>>,
    opened_at: u64,
    committed: AtomicU64,
    /// The number of the last record before the segment that is being written.
    begun_behind: AtomicU64,
}

/// What a store goes on with after it was opened.
pub(super) enum Basis {
    /// Its index, and where the contents lie that are needed still.
    Index(Box<Index>, BTreeMap<Id, Location>),
    /// What the journal alone tells, because there is no index.
    Journal {
        /// The jobs that are queued or dead.
        jobs: Vec<LiveJob>,
        /// Where the contents lie that they need.
        contents: BTreeMap<Id, Location>,
        /// Why there is no index.
        why: String,
    },
}

impl Basis {
    /// Ends it unused.
    pub(super) fn let_go(self) {
        if let Self::Index(index, _) = self {
            let_go(*index);
        }
    }
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "all of it is known only where a store opens")]
    pub(super) fn new(
        options: &Options,
        store: Uuid,
        requests: Sender<Append>,
        basis: Basis,
        sequence: u64,
        segments: Vec<(u64, u64)>,
        damaged_through: u64,
        reserve: Arc<Reserve>,
    ) -> Self {
        let progress = Progress::default();
        progress.begin(sequence);
        let (index, alive, contents) = match basis {
            Basis::Index(index, contents) => (Some(Arc::from(index)), None, contents),
            Basis::Journal { jobs, contents, why } => {
                progress.fail(&why);
                (None, Some(jobs), contents)
            }
        };
        Self {
            store,
            folder: options.folder.clone(),
            journal: options.folder.join("journal"),
            slack_bytes: options.slack_bytes,
            is_short: AtomicBool::new(false),
            damaged_through,
            progress,
            stopped: watch::channel(None).0,
            reserve,
            requests: Mutex::new(Some(requests)),
            contents: Mutex::new(contents),
            frames: Frames::new(options.folder.join("journal")),
            sizes: Mutex::new(segments.into_iter().collect()),
            index: Mutex::new(index),
            alive_at_open: Mutex::new(alive),
            opened_at: sequence,
            committed: AtomicU64::new(sequence),
            begun_behind: AtomicU64::new(sequence),
        }
    }

    /// The jobs that are queued or dead, where the index cannot tell: once, before anything changed.
    pub(super) fn alive_at_open(&self) -> Option<Vec<LiveJob>> {
        let alive = lock(&self.alive_at_open).take();
        alive.filter(|_| self.committed() == self.opened_at)
    }

    /// Hands records to the journal's thread; the answer comes when they are on stable storage.
    pub(super) fn append(
        &self,
        records: Vec<(Entry, Encoded)>,
        jobs_count: usize,
        leaves_reserve: bool,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, answer) = Waiting::new();
        if leaves_reserve && let Err(error) = self.progress.check() {
            done.answer(Err(error));
            return answer;
        }
        let append = Append { records, leaves_reserve, jobs_count, done };
        let unsent = match &*lock(&self.requests) {
            Some(requests) => requests.send(append).err().map(|SendError(append)| append),
            None => Some(append),
        };
        if let Some(Append { done, .. }) = unsent {
            done.answer(Err(StoreError::Stopped("the journal has ended".to_owned())));
        }
        answer
    }

    /// No more appends: the journal's thread ends when it has written what it has.
    pub(super) fn hang_up(&self) {
        lock(&self.requests).take();
    }

    /// The index, as it is when everything committed so far is applied.
    pub(super) fn index_now(&self) -> Result<Arc<Index>, StoreError> {
        self.progress.wait(self.committed())?;
        self.index().ok_or_else(|| StoreError::Stopped("the store is closed".to_owned()))
    }

    /// The index, as it is when everything in segments that are not written any more is applied.
    pub(super) fn index_of_old(&self) -> Result<Arc<Index>, StoreError> {
        // Some of it may be on the disk and not yet committed: it is being answered.
        self.progress.wait(self.begun_behind.load(Ordering::Acquire))?;
        self.index_now()
    }

    pub(super) fn index(&self) -> Option<Arc<Index>> {
        lock(&self.index).clone()
    }

    pub(super) fn take_index(&self) -> Option<Arc<Index>> {
        lock(&self.index).take()
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Where the content of a notification lies now.
    pub(super) fn content_location(&self, id: &Id) -> Option<Location> {
        lock(&self.contents).get(id).copied()
    }

    /// Whether the volume has no room for new mail.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    pub(super) fn segment_sizes(&self) -> BTreeMap<u64, u64> {
        lock(&self.sizes).clone()
    }

    /// Nothing leads to this segment any more.
    pub(super) fn forget_segment(&self, segment: u64) {
        lock(&self.sizes).remove(&segment);
        self.frames.forget_segment(segment);
    }

    /// These are on stable storage, and will be in the index.
    pub(super) fn written(&self, batch: &[Written]) {
        let mut contents = lock(&self.contents);
        let mut sizes = lock(&self.sizes);
        for Written { entry, location, .. } in batch {
            *sizes.entry(location.segment.into()).or_default() += location.bytes();
            if let Some(id) = entry.notification().filter(|_| 0 < location.content_bytes) {
                contents.insert(*id, *location);
            }
        }
        drop((contents, sizes));
        let sequence = batch.last().map_or(0, |written| written.sequence);
        self.committed.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Lets readers use this index.
    pub(super) fn set_index(&self, index: Index) {
        *lock(&self.index) = Some(Arc::new(index));
    }

    /// Lets go of contents that no job needs any more.
    pub(super) fn release(&self, ids: impl IntoIterator<Item = Id>) {
        let mut contents = lock(&self.contents);
        for id in ids {
            contents.remove(&id);
        }
    }

    /// The notifications whose contents are known.
    pub(super) fn known_contents(&self) -> Vec<Id> {
        lock(&self.contents).keys().copied().collect()
    }
}

impl Listener for Shared {
    fn began(&self, segment: u64, bytes: u64, sequence: u64) {
        self.begun_behind.fetch_max(sequence, Ordering::AcqRel);
        lock(&self.sizes).insert(segment, bytes);
    }

    fn room_changed(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    fn stopped(&self, why: &str) {
        self.stopped.send_replace(Some(why.to_owned()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every one of these is changed by single steps that cannot panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
