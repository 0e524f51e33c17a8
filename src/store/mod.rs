//! The queue's disk, and the only code that knows sled, bincode and the journal's files.
//!
//! ```text
//! identity        whose store this is, and its schema
//! lock            held by the process that works on the folder
//! journal/        segments of records, the truth
//! index/          a sled database made from them, thrown away when in doubt
//! index.clean     written at a clean end: the index is whole, and these are its checksums
//! reserve         room that is given up when the volume is full
//! aside/          bytes of the journal that could not be read
//! ```
//!
//! The tools for a folder (`verify`, `stats`, `backup`, `restore`) read it as opening does and change
//! no byte of it, without its lock, so a server may work on it meanwhile.
//!
//! A commit is encoded by its caller, written and synced by the journal's thread together with all
//! others that wait, and answered by another while the next are written. The index follows on a thread
//! of its own; reads wait until it has caught up with what was committed before they began.
//!
//! A store opens and delivers without its index, from the journal and memory: on a volume without
//! room for one, and on a disk that fails under it. Until the index is made again, new mail is
//! refused, and nothing can be looked up.

mod ages;
mod answer;
mod backup;
mod carried;
mod codec;
mod compact;
mod entry;
mod follow;
mod frame;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod index;
mod journal;
mod make;
mod notes;
mod open_error;
mod progress;
mod read;
mod recover;
mod reserve;
mod rows;
mod scan;
mod seen;
mod segment;
mod shared;
mod stats;
mod strays;
mod table;
mod tail;
mod verify;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::queue::store::StoreError;

pub use backup::{BackupError, backup, restore};
pub use open_error::OpenError;
pub use recover::Damage;
pub use stats::{JobCounts, Stats, stats};
pub use verify::{IndexState, Records, StoredFile, Verified, verify};

use index::INDEX_VERSION;
use journal::{End, RESERVE_BYTES, Writer};
use make::{Making, open_whole};
use notes::CleanClose;
use recover::{Found, Purpose, read_journal};
use reserve::Reserve;
use seen::Seen;
use shared::{Basis, Shared};

/// How a store is opened.
pub struct Options {
    /// The data folder; created when it does not exist.
    pub folder: PathBuf,
    /// A segment that has grown to this is followed by a new one.
    pub segment_bytes_max: u64,
    /// So much of the journal may be needed no more before the oldest segment is freed.
    pub slack_bytes: u64,
    /// Told of each batch: how long its write and sync took, and how many jobs it held.
    pub on_commit: Box<dyn Fn(Duration, usize) + Send>,
}

impl Options {
    /// The usual sizes.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            segment_bytes_max: 32 << 20,
            slack_bytes: 32 << 20,
            on_commit: Box::new(|_, _| {}),
        }
    }
}

/// What was found at open; for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The name of the store, the same for its whole life.
    pub store: Uuid,
    /// The folder held no store: nothing is continued.
    pub created: bool,
    /// Why the index was made again, unless it was whole.
    pub rebuilt: Option<&'static str>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// See the module.
pub struct DiskStore {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    _lock: File,
}

struct Threads {
    writer: JoinHandle<End>,
    answerer: JoinHandle<()>,
    follower: JoinHandle<()>,
    compactor: JoinHandle<()>,
}

/// How many batches the index may be behind before the journal waits for it.
const BATCHES_BEHIND_MAX: usize = 1024;
/// How many batches on stable storage may wait for their answers.
const BATCHES_UNANSWERED_MAX: usize = 1;

impl DiskStore {
    /// Opens the folder, or begins a store in an empty one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options) -> Result<(Arc<Self>, Opened), OpenError> {
        let folder = &options.folder;
        recover::create_folders(folder).map_err(|error| OpenError::io("create", folder, &error))?;
        let lock = lock(folder)?;
        let reserve = Arc::new(Reserve::new(folder));
        if reserve.room() < RESERVE_BYTES {
            reserve.release();
        }
        let (basis, found, rebuilt) = open_index(folder, &reserve)?;
        let Found { store, created, end, mut segments, damage, .. } = found;

        let journal = folder.join("journal");
        let damaged_through = if damage.is_empty() { 0 } else { end.segment };
        let begun = Writer::open(&journal, store, end, options.segment_bytes_max, reserve.clone())
            .and_then(|mut writer| {
                if damaged_through > 0 {
                    // What can be read of the damaged segments is carried out of them.
                    segments.push(writer.begin_segment()?);
                }
                Ok(writer)
            });
        let writer = match begun {
            Ok(writer) => writer,
            Err(error) => {
                basis.let_go();
                return Err(OpenError::io("open", &journal, &error));
            }
        };
        reserve.hold();
        let (requests, appends) = channel();
        let (batches, followed) = sync_channel(BATCHES_BEHIND_MAX);
        let shared = Shared::new(
            &options,
            store,
            requests,
            basis,
            end.sequence,
            segments,
            damaged_through,
            reserve,
        );
        let shared = Arc::new(shared);

        let on_commit = options.on_commit;
        let (durable, to_answer) = sync_channel(BATCHES_UNANSWERED_MAX);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let spawned = |error| OpenError::io("start threads for", folder, &error);
        let threads = Threads {
            writer: {
                let shared = shared.clone();
                let run = move || stops(&shared, || writer.run(&appends, &durable, &*shared));
                named("journal").spawn(run).map_err(spawned)?
            },
            answerer: {
                let shared = shared.clone();
                let run = move || {
                    stops(&shared, || answer::run(&shared, &to_answer, &batches, &on_commit));
                };
                named("answers").spawn(run).map_err(spawned)?
            },
            follower: {
                let shared = shared.clone();
                named("index").spawn(move || follow::run(&shared, &followed)).map_err(spawned)?
            },
            compactor: {
                let shared = shared.clone();
                named("compact").spawn(move || compact::run(&shared)).map_err(spawned)?
            },
        };
        let opened = Opened { store, created, rebuilt, damage };
        Ok((Arc::new(Self { shared, threads: Mutex::new(Some(threads)), _lock: lock }), opened))
    }

    /// Holds the reason once the journal has stopped for good. Only a restart helps then.
    #[must_use]
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.shared.stopped.subscribe()
    }

    /// Ends the threads and notes that the index is whole. Commits fail from now on. A store that
    /// is dropped without it opens too, only slower.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn close(&self) -> Result<(), OpenError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return Ok(()) };
        self.shared.hang_up();
        let end = threads.writer.join();
        let answered = threads.answerer.join();
        let followed = threads.follower.join();
        self.shared.progress.close();
        let compacted = threads.compactor.join();
        let (Ok(end), Ok(()), Ok(()), Ok(())) = (end, answered, followed, compacted) else {
            return Ok(());
        };
        if self.shared.stopped.borrow().is_some() {
            // What lies behind the last answered record is for the next start to read.
            return Ok(());
        }
        let index = self.shared.take_index();
        let whole = self.shared.progress.applied() == end.sequence;
        let Some(index) = index.and_then(Arc::into_inner).filter(|_| whole) else { return Ok(()) };
        make::close(index).map_err(StoreError::Stopped)?;
        let folder = &self.shared.folder;
        let files = notes::checksums(&folder.join("index"))
            .map_err(|error| OpenError::io("read", &folder.join("index"), &error))?;
        let note = CleanClose { index_version: INDEX_VERSION, end, files };
        notes::write_checked(folder, "index.clean", &note)
            .map_err(|error| OpenError::io("write", &folder.join("index.clean"), &error))
    }
}

/// Opens the index as it was closed, or makes it again from the journal. Where neither works, the
/// store goes on with what the journal alone tells.
fn open_index(
    folder: &Path,
    reserve: &Reserve,
) -> Result<(Basis, Found, Option<&'static str>), OpenError> {
    let path = folder.join("index");
    let note = notes::clean_close(folder);
    let is_same = |note: &CleanClose| {
        note.has_index() && notes::checksums(&path).is_ok_and(|now| now == note.files)
    };
    let same = note.as_ref().is_some_and(is_same);
    let mut reason = match (&note, same) {
        (None, _) => "it was not closed cleanly",
        (Some(note), false) if note.files.is_empty() => "a backup has none",
        (Some(note), false) if !note.has_index() => "another version of the program made it",
        (Some(_), false) => "its files are not as they were closed",
        (Some(_), true) => "",
    };
    // Only the first reading may change something, and only it sees all damage.
    let mut found = None;
    if same && reserve.has_room_for_index() {
        let read = read_journal(folder, Purpose::Open, note.as_ref(), |_| Ok(()))?;
        forget_note(folder)?;
        match open_whole(&path) {
            Ok((index, contents)) => {
                return Ok((Basis::Index(Box::new(index), contents), read, None));
            }
            Err(_) => reason = "it does not open",
        }
        found = Some(read);
    }
    let mut making = Making::begin(&path, reserve);
    let mut seen = (!making.is_possible()).then(Seen::default);
    let purpose = if found.is_some() { Purpose::Look } else { Purpose::Open };
    let read = read_journal(folder, purpose, note.as_ref(), |scanned| {
        if let Some(seen) = &mut seen {
            seen.take(scanned.clone());
        }
        making.apply(scanned);
        Ok(())
    })?;
    let found = found.unwrap_or(read);
    forget_note(folder)?;
    let why = match making.finish() {
        Ok((index, contents)) => {
            let rebuilt = (!found.created).then_some(reason);
            return Ok((Basis::Index(Box::new(index), contents), found, rebuilt));
        }
        Err(why) => why,
    };
    let seen = match seen {
        Some(seen) => seen,
        None => {
            let mut seen = Seen::default();
            read_journal(folder, Purpose::Look, note.as_ref(), |scanned| {
                seen.take(scanned);
                Ok(())
            })?;
            seen
        }
    };
    let (jobs, contents) = seen.alive();
    Ok((Basis::Journal { jobs, contents, why }, found, None))
}

/// A panic of a thread that answers depend on stops the store.
fn stops<T>(shared: &Shared, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        shared.stopped.send_replace(Some("the journal panicked".to_owned()));
        resume_unwind(panic)
    })
}

/// From the first write on the note would be wrong.
fn forget_note(folder: &Path) -> Result<(), OpenError> {
    let path = folder.join("index.clean");
    match fs::remove_file(&path) {
        Ok(()) => {
            segment::sync_folder(folder).map_err(|error| OpenError::io("sync", folder, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::io("remove", &path, &error)),
    }
}

/// Takes the folder for this process; the lock ends with it, however it ends.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let error = |what, error| OpenError::io(what, &path, &error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| error("open", e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim().to_owned();
            return Err(OpenError::InUse { folder: folder.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(error("lock", e)),
    }
    // In place, because on a full volume bytes that are given back do not return.
    let holder = format!("process {}\n", std::process::id());
    match file.write_all_at(holder.as_bytes(), 0).and_then(|()| file.set_len(holder.len() as u64)) {
        Err(e) if !journal::is_no_space(&e) => Err(error("write", e)),
        _ => Ok(file),
    }
}
