//! The journal: append-only segments and the one thread that writes them.
//!
//! The thread takes all commits that wait, writes them as one batch and syncs once; another thread
//! answers them, while the next batch is written. A frame is acknowledged only after the sync that
//! covers it. A write that finds no room is
//! undone, and the next one may succeed; any other failure stops the journal for good, because what
//! a failed sync left behind is unknown (see "PostgreSQL fsync" 2018: a repeated one may lie).
//!
//! What may or may not be on the disk then is not answered at all: after a refusal it would have to
//! be gone, and the next start may find it. Whoever waits learns of it from the end of the process.

use std::io::{self, IoSlice};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::entry::Entry;
use super::frame::Encoded;
use super::reserve::Reserve;
use super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::tail::Tail;
use crate::queue::store::StoreError;

/// New notifications are refused while the volume has less room than this: what is left is for
/// recording what becomes of those that were accepted.
pub(super) const RESERVE_BYTES: u64 = 4 << 20;
/// A segment never grows to more: a batch fits between this and [`OFFSET_MAX`].
const SEGMENT_BYTES_LIMIT: u64 = OFFSET_MAX / 2;
/// A segment gets its room at once only where there is so many times as much.
const ROOM_PER_SEGMENT: u64 = 16;
/// A batch is written at once when it has grown to this.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// No frame begins behind so many bytes of a segment, so that a [`Location`] is small: a million of
/// them may have to be in memory.
pub(super) const OFFSET_MAX: u64 = u32::MAX as u64;

/// Where a frame lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Of the frame without its content.
    pub(super) record_bytes: u32,
    /// Zero when no content is kept.
    pub(super) content_bytes: u32,
}

impl Location {
    /// How long the frame is, as far as it is needed.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.record_bytes) + u64::from(self.content_bytes)
    }
}

/// One commit on its way to the disk.
pub(super) struct Append {
    pub(super) records: Vec<(Entry, Encoded)>,
    /// Whether it brings contents in; such commits leave a reserve.
    pub(super) leaves_reserve: bool,
    pub(super) jobs_count: usize,
    pub(super) done: Waiting,
}

/// Whoever waits for a commit. Dropped, it is never told anything: what may or may not be on the disk
/// is not answered, whatever ends first.
pub(super) struct Waiting(Option<oneshot::Sender<Result<(), StoreError>>>);

impl Waiting {
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<(), StoreError>>) {
        let (done, answer) = oneshot::channel();
        (Self(Some(done)), answer)
    }

    pub(super) fn answer(mut self, answer: Result<(), StoreError>) {
        if let Some(done) = self.0.take() {
            // Whoever waited may be gone.
            let _ = done.send(answer);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A sender that is dropped tells that there will be no answer.
        mem::forget(self.0.take());
    }
}

/// Where the journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) bytes: u64,
    pub(super) sequence: u64,
}

/// What the writer tells the rest of the store, always from its own thread.
pub(super) trait Listener {
    /// A segment was begun behind the record of this number, and is so long.
    fn began(&self, segment: u64, bytes: u64, sequence: u64);
    /// The volume has no room for new mail, or has it again.
    fn room_changed(&self, is_short: bool);
    /// The journal stopped for good.
    fn stopped(&self, why: &str);
}

/// A batch that is on stable storage and not yet answered.
pub(super) struct Durable {
    pub(super) batch: Vec<Append>,
    /// The number and the place of each of its records.
    pub(super) places: Vec<(u64, Location)>,
    /// How long its write and sync took.
    pub(super) took: Duration,
}

/// The thread's state.
pub(super) struct Writer {
    folder: PathBuf,
    store: Uuid,
    segment_bytes_max: u64,
    tail: Tail,
    end: End,
    is_short: bool,
    stopped: Option<String>,
    reserve: Arc<Reserve>,
}

/// Why a batch was not written.
enum Failure {
    /// Nothing of it is in the journal; the reason is for whoever waits.
    Refused(StoreError),
    /// It may or may not be found by the next start; says why.
    Unknown(String),
}

impl Writer {
    /// Goes on at `end`, cutting off what a torn write left behind it.
    pub(super) fn open(
        folder: &Path,
        store: Uuid,
        end: End,
        segment_bytes_max: u64,
        reserve: Arc<Reserve>,
    ) -> io::Result<Self> {
        let segment_bytes_max = segment_bytes_max.min(SEGMENT_BYTES_LIMIT);
        let room_bytes = room_bytes(&reserve, segment_bytes_max);
        let tail = Tail::open(&segment_path(folder, end.segment), end.bytes, room_bytes)?;
        let folder = folder.to_owned();
        let (is_short, stopped) = (false, None);
        Ok(Self { folder, store, segment_bytes_max, tail, end, is_short, stopped, reserve })
    }

    /// Writes until all senders are gone; answers where the journal ends. What is on stable storage
    /// goes to `durable`, so that the next batch is written while the last one is answered.
    pub(super) fn run(
        mut self,
        requests: &Receiver<Append>,
        durable: &SyncSender<Durable>,
        listener: &dyn Listener,
    ) -> End {
        while let Ok(first) = requests.recv() {
            let mut batch = vec![first];
            let mut bytes: usize = batch.iter().map(append_bytes).sum();
            while bytes < BATCH_BYTES_MAX
                && let Ok(next) = requests.try_recv()
            {
                bytes += append_bytes(&next);
                batch.push(next);
            }
            self.commit(batch, durable, listener);
        }
        if self.stopped.is_none() {
            // The next start would do it, too.
            let _ = self.tail.cut(self.end.bytes);
        }
        self.end
    }

    fn commit(
        &mut self,
        batch: Vec<Append>,
        durable: &SyncSender<Durable>,
        listener: &dyn Listener,
    ) {
        let begin = Instant::now();
        let mail = batch.iter().filter(|append| append.leaves_reserve);
        let bytes = mail.map(append_bytes).sum::<usize>() as u64;
        let (mut batch, refused): (Vec<_>, Vec<_>) = if self.has_room(bytes, listener) {
            (batch, Vec::new())
        } else {
            batch.into_iter().partition(|append| !append.leaves_reserve)
        };
        for append in refused {
            append.done.answer(Err(StoreError::NoSpace));
        }
        if batch.is_empty() {
            return;
        }
        let mut had_room = self.tail.has_room();
        let mut written = self.write(&mut batch, listener);
        // With a write that failed the volume got that room back.
        while matches!(written, Err(Failure::Refused(StoreError::NoSpace)))
            && (mem::take(&mut had_room) || self.reserve.release())
        {
            written = self.write(&mut batch, listener);
        }
        match written {
            Ok(places) => {
                let sent = durable.send(Durable { batch, places, took: begin.elapsed() });
                if sent.is_err() {
                    self.stop("the thread that answers has ended", listener);
                }
            }
            Err(Failure::Refused(error)) => {
                for append in batch {
                    append.done.answer(Err(error.clone()));
                }
                if let StoreError::Stopped(why) = &error {
                    self.stop(why, listener);
                }
            }
            Err(Failure::Unknown(why)) => self.stop(&why, listener),
        }
    }

    fn stop(&mut self, why: &str, listener: &dyn Listener) {
        if self.stopped.is_none() {
            self.stopped = Some(why.to_owned());
            listener.stopped(why);
        }
    }

    /// Writes and syncs one batch; answers the number and the place of each record.
    fn write(
        &mut self,
        batch: &mut [Append],
        listener: &dyn Listener,
    ) -> Result<Vec<(u64, Location)>, Failure> {
        if let Some(why) = &self.stopped {
            return Err(Failure::Refused(StoreError::Stopped(why.clone())));
        }
        if self.end.bytes >= self.segment_bytes_max {
            match self.begin_segment() {
                Ok((segment, bytes)) => listener.began(segment, bytes, self.end.sequence),
                Err(error) if is_no_space(&error) => {
                    return Err(Failure::Refused(StoreError::NoSpace));
                }
                // The old one may as well grow on until files can be opened again.
                Err(error) if is_out_of_files(&error) && self.end.bytes < SEGMENT_BYTES_LIMIT => {}
                Err(error) => {
                    let why = what_failed("begin a segment after", &self.path(), &error);
                    return Err(Failure::Refused(StoreError::Stopped(why)));
                }
            }
        }
        let mut places = Vec::new();
        let mut end = self.end;
        for (_, encoded) in batch.iter_mut().flat_map(|append| &mut append.records) {
            end.sequence += 1;
            encoded.seal(end.sequence, self.end.sequence);
            places.push((end.sequence, encoded.location(end.segment, end.bytes)));
            end.bytes += encoded.frame().len() as u64;
        }
        let frames = batch.iter().flat_map(|append| &append.records);
        let frames = frames.map(|(_, it)| IoSlice::new(it.frame())).collect();
        if let Err(error) = self.tail.write(frames, self.end.bytes, end.bytes) {
            return Err(self.undo(&error));
        }
        if let Err(error) = self.tail.sync() {
            return Err(Failure::Unknown(what_failed("sync", &self.path(), &error)));
        }
        self.end = end;
        Ok(places)
    }

    /// After a failed write the file is cut back to what was acknowledged.
    fn undo(&mut self, error: &io::Error) -> Failure {
        let cut = self.tail.cut(self.end.bytes).and_then(|()| self.tail.sync_all());
        match cut {
            Ok(()) if is_no_space(error) => Failure::Refused(StoreError::NoSpace),
            Ok(()) => {
                let why = what_failed("write", &self.path(), error);
                Failure::Refused(StoreError::Stopped(why))
            }
            Err(cut) => {
                let why = what_failed("write", &self.path(), error);
                Failure::Unknown(format!("{why}; nor can it be undone: {cut}"))
            }
        }
    }

    /// Goes on in a new segment; answers its number and length.
    pub(super) fn begin_segment(&mut self) -> io::Result<(u64, u64)> {
        let segment = self.end.segment + 1;
        let room_bytes = room_bytes(&self.reserve, self.segment_bytes_max);
        let tail = Tail::create(&self.folder, self.store, segment, room_bytes)?;
        // A reader would know the zeros behind its end for what they are.
        let _ = mem::replace(&mut self.tail, tail).cut(self.end.bytes);
        self.end.segment = segment;
        self.end.bytes = SEGMENT_HEADER_BYTES as u64;
        Ok((segment, self.end.bytes))
    }

    /// Whether so many bytes of new mail may come in; says when that changes.
    fn has_room(&mut self, bytes: u64, listener: &dyn Listener) -> bool {
        // Back only when there is clearly more, so that it does not change with every batch.
        let wanted = if self.is_short { 2 * RESERVE_BYTES } else { RESERVE_BYTES };
        let lacks = || self.reserve.room() < self.reserve.wanted(wanted + bytes);
        let mut is_short = lacks();
        if is_short && self.tail.has_room() {
            // What was set aside for this segment may be needed elsewhere.
            let _ = self.tail.cut(self.end.bytes);
            is_short = lacks();
        }
        let folder = self.folder.display().to_string();
        match (self.is_short, is_short) {
            (false, true) => {
                tracing::error!(
                    folder,
                    "the volume is full: new mail is refused, delivery goes on"
                );
                // What is needed no more can be freed only out of a segment that is not written.
                if self.end.bytes > SEGMENT_HEADER_BYTES as u64
                    && let Ok((segment, bytes)) = self.begin_segment()
                {
                    listener.began(segment, bytes, self.end.sequence);
                }
            }
            (true, false) => {
                self.reserve.hold();
                tracing::info!(folder, "the volume has room again");
            }
            (true, true) | (false, false) => return !is_short,
        }
        self.is_short = is_short;
        listener.room_changed(is_short);
        !is_short
    }

    fn path(&self) -> PathBuf {
        segment_path(&self.folder, self.end.segment)
    }
}

/// How much is set aside for a segment.
fn room_bytes(reserve: &Reserve, segment_bytes_max: u64) -> u64 {
    let is_spacious = segment_bytes_max <= reserve.room() / ROOM_PER_SEGMENT;
    if is_spacious { segment_bytes_max } else { 0 }
}

fn append_bytes(append: &Append) -> usize {
    append.records.iter().map(|(_, encoded)| encoded.frame().len()).sum()
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn what_failed(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
