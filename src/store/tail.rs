//! The segment that is being written, and the room behind its end.
//!
//! A sync takes half as long where nothing but bytes has to reach the disk: neither another length of
//! the file nor which blocks are its. So the volume sets the room of a segment aside at once, and a
//! small write that makes the file longer takes zeros along, over which the next ones write. A large
//! one gains nothing by it. Behind the end there is nothing but zeros and, after a crash, what was
//! being written; a start cuts off both.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pwritev};
use uuid::Uuid;

use super::segment::{SEGMENT_HEADER_BYTES, create_segment, sync_data};

/// So many zeros go along with a write.
const FILL_BYTES: u64 = 256 << 10;
static ZEROS: [u8; FILL_BYTES as usize] = [0; FILL_BYTES as usize];
/// With a write that is larger than this, none do.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// The kernel takes no more slices at once (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// See the module.
pub(super) struct Tail {
    file: File,
    /// The length of the file.
    filled_bytes: u64,
    /// So much of the volume is set aside for it; zero when nothing is.
    room_bytes: u64,
}

impl Tail {
    /// Goes on in a file whose records end at `end`: cuts off what is behind it, also what is set aside
    /// and longer than the file.
    pub(super) fn open(path: &Path, end: u64, room_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len();
        file.set_len(end)?;
        if length != end {
            file.sync_all()?;
        }
        Ok(Self::new(file, end, room_bytes))
    }

    /// A new segment; its name and its header are durable.
    pub(super) fn create(
        folder: &Path,
        store: Uuid,
        segment: u64,
        room_bytes: u64,
    ) -> io::Result<Self> {
        let file = create_segment(folder, store, segment)?;
        Ok(Self::new(file, SEGMENT_HEADER_BYTES as u64, room_bytes))
    }

    fn new(file: File, end: u64, room_bytes: u64) -> Self {
        // Only faster: a file system that cannot do it, or not so much, takes the writes all the same.
        let is_set_aside =
            end < room_bytes && fallocate(&file, FallocateFlags::KEEP_SIZE, 0, room_bytes).is_ok();
        Self { file, filled_bytes: end, room_bytes: if is_set_aside { room_bytes } else { 0 } }
    }

    /// Writes what lies between `from` and `to`.
    pub(super) fn write(
        &mut self,
        mut bytes: Vec<IoSlice<'_>>,
        from: u64,
        to: u64,
    ) -> io::Result<()> {
        let mut filled_bytes = self.filled_bytes.max(to);
        if self.filled_bytes < to && to - from <= SMALL_BYTES_MAX {
            let zeros = self.room_bytes.saturating_sub(to).min(FILL_BYTES);
            bytes.push(IoSlice::new(&ZEROS[..zeros as usize]));
            filled_bytes += zeros;
        }
        write_all_at(&self.file, &mut bytes, from)?;
        self.filled_bytes = filled_bytes;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        sync_data(&self.file)
    }

    /// Whether it has room that it could do without.
    pub(super) fn has_room(&self) -> bool {
        self.room_bytes > 0
    }

    /// Gives back all that is behind `end`; what is written from now on takes what there is.
    pub(super) fn cut(&mut self, end: u64) -> io::Result<()> {
        self.room_bytes = 0;
        self.file.set_len(end)?;
        self.filled_bytes = end;
        Ok(())
    }

    /// Makes a [`cut`](Self::cut) durable.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn write_all_at(file: &File, mut bytes: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwritev(file, &bytes[..bytes.len().min(SLICES_MAX)], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut bytes, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
