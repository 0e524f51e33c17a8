//! What the store's threads share.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::{ReadWriteFlags, preadv2};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::Options;
use super::codec::{Encoded, content_of};
use super::index::Index;
use super::journal::{Append, Listener, Location, Written};
use super::make::let_go;
use super::progress::Progress;
use super::reserve::Reserve;
use super::rows::LiveJob;
use super::segment::segment_path;
use crate::migrations::{
    self,
    latest::{Content, Id, Record},
};
use crate::queue::store::StoreError;

/// So many segments are kept open for reading.
const FILES_MAX: usize = 8;

/// With so many records before a batch that the index has not applied, the journal waits for it.
const RECORDS_BEHIND_MAX: u64 = 4096;

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
    files: Mutex<HashMap<u64, Arc<File>>>,
    sizes: Mutex<BTreeMap<u64, u64>>,
    index: Mutex<Option<Arc<Index>>>,
    /// What was alive when the store was opened without an index, until it is asked for.
    alive_at_open: Mutex<Option<Vec<LiveJob>>>,
    opened_at: u64,
    committed: AtomicU64,
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
            files: Mutex::default(),
            sizes: Mutex::new(segments.into_iter().collect()),
            index: Mutex::new(index),
            alive_at_open: Mutex::new(alive),
            opened_at: sequence,
            committed: AtomicU64::new(sequence),
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
        records: Vec<(Record, Encoded)>,
        jobs_count: usize,
        leaves_reserve: bool,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        if leaves_reserve && let Err(error) = self.progress.check() {
            let _ = done.send(Err(error));
            return answer;
        }
        if let Some(requests) = &*lock(&self.requests) {
            // An error drops `done`, and whoever waits for the answer learns it from that.
            let _ = requests.send(Append { records, leaves_reserve, jobs_count, done });
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

    /// A content; `None` when the location holds none.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the bytes are damaged or gone, [`StoreError::Busy`] when
    /// the disk does not give them just now.
    pub(super) fn read_content(&self, location: &Location) -> Result<Option<Content>, StoreError> {
        if location.content_bytes == 0 {
            return Ok(None);
        }
        let path = segment_path(&self.journal, location.segment.into());
        let place = || format!("{} at offset {}", path.display(), location.offset);
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::UnexpectedEof => {
                StoreError::Unreadable(format!("{}: {error}", place()))
            }
            _ => StoreError::Busy(format!("{}: {error}", place())),
        };
        let file = {
            let mut files = lock(&self.files);
            match files.get(&location.segment.into()) {
                Some(file) => file.clone(),
                None => {
                    let file = File::open(&path).map_err(failed)?;
                    if files.len() >= FILES_MAX {
                        files.clear();
                    }
                    files.entry(location.segment.into()).or_insert(Arc::new(file)).clone()
                }
            }
        };
        let mut frame = vec![0; frame_bytes(location)];
        file.read_exact_at(&mut frame, location.offset.into()).map_err(failed)?;
        let unreadable = |why: &str| StoreError::Unreadable(format!("{}: {why}", place()));
        let content = content_of(&frame, location.record_bytes as usize);
        let (schema, bytes) =
            content.ok_or_else(|| unreadable("the content does not match its checksum"))?;
        let content = migrations::content(schema, bytes);
        content.map(Some).map_err(|error| unreadable(&error.to_string()))
    }

    /// The same when the file is open and its bytes are in memory.
    pub(super) fn content_at_hand(&self, location: &Location) -> Option<Content> {
        if location.content_bytes == 0 {
            return None;
        }
        let file = lock(&self.files).get(&location.segment.into())?.clone();
        let mut frame = vec![0; frame_bytes(location)];
        let mut to = [IoSliceMut::new(&mut frame)];
        let offset = location.offset.into();
        let count = preadv2(&file, &mut to, offset, ReadWriteFlags::NOWAIT).ok()?;
        let (schema, bytes) = content_of(&frame[..count], location.record_bytes as usize)?;
        migrations::content(schema, bytes).ok()
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
        lock(&self.files).remove(&segment);
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

/// Tells the rest of the store what the journal's thread has done.
pub(super) struct Follower {
    shared: Arc<Shared>,
    batches: SyncSender<Vec<Written>>,
    on_commit: Box<dyn Fn(Duration, usize) + Send>,
}

impl Follower {
    pub(super) fn new(
        shared: Arc<Shared>,
        batches: SyncSender<Vec<Written>>,
        on_commit: Box<dyn Fn(Duration, usize) + Send>,
    ) -> Self {
        Self { shared, batches, on_commit }
    }
}

impl Listener for Follower {
    fn written(&mut self, batch: Vec<Written>) {
        let mut contents = lock(&self.shared.contents);
        let mut sizes = lock(&self.shared.sizes);
        for Written { record, location, .. } in &batch {
            *sizes.entry(location.segment.into()).or_default() += location.bytes();
            let id = match record {
                Record::Accepted(accepted) => accepted.notification.id,
                Record::Carried(carried) => carried.notification.id,
                Record::Updated(_) | Record::JobForgotten(_) | Record::KeyForgotten(_) => continue,
            };
            if location.content_bytes > 0 {
                contents.insert(id, *location);
            }
        }
        drop((contents, sizes));
        let sequence = batch.last().map_or(0, |written| written.sequence);
        self.shared.committed.fetch_max(sequence, Ordering::AcqRel);
        // What the index has still to apply is in memory. An index that failed holds up nothing.
        let before = batch.first().map_or(0, |written| written.sequence - 1);
        let _ = self.shared.progress.wait(before.saturating_sub(RECORDS_BEHIND_MAX));
        // The thread of the index ends only after this one.
        let _ = self.batches.send(batch);
    }

    fn began(&mut self, segment: u64, bytes: u64) {
        lock(&self.shared.sizes).insert(segment, bytes);
    }

    fn room_changed(&mut self, is_short: bool) {
        self.shared.is_short.store(is_short, Ordering::Relaxed);
    }

    fn committed(&mut self, took: Duration, jobs_count: usize) {
        (self.on_commit)(took, jobs_count);
    }

    fn stopped(&mut self, why: &str) {
        self.shared.stopped.send_replace(Some(why.to_owned()));
    }
}

fn frame_bytes(location: &Location) -> usize {
    location.record_bytes as usize + location.content_bytes as usize
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every one of these is changed by single steps that cannot panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
