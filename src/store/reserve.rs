//! Room that is held for the worst day: a file that goes when the volume is full.
//!
//! On a volume that somebody filled to its last byte nothing could be recorded of the mail that goes
//! out, so it would have to stay, or be sent again after a restart. The file goes when the volume is
//! full at a start, or when a record finds no room, and comes back when there is plenty again. New
//! mail waits for that.
//!
//! It is for the journal alone. The index takes many times what is queued and cannot be given a
//! bound, so on a full volume there is none: delivery needs only the journal and memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::journal::RESERVE_BYTES;
use super::segment::sync_folder;

/// The length of the file: enough for what becomes of about 7,000 jobs.
const HELD_BYTES: u64 = 4 << 20;
/// With less room than this beside what is for records an index is not begun.
const INDEX_BYTES_MIN: u64 = 4 << 20;

/// See the module.
pub(super) struct Reserve {
    folder: PathBuf,
    path: PathBuf,
    is_held: AtomicBool,
}

impl Reserve {
    /// The reserve of a data folder, as it was left.
    pub(super) fn new(folder: &Path) -> Self {
        let path = folder.join("reserve");
        // A copy of it may be a hole.
        let is_held = fs::metadata(&path).is_ok_and(|file| HELD_BYTES <= 512 * file.blocks());
        Self { folder: folder.to_owned(), path, is_held: AtomicBool::new(is_held) }
    }

    /// The bytes that are left on the volume for anybody.
    pub(super) fn room(&self) -> u64 {
        // A file system that cannot tell is asked by writing; some say that they have no size at all.
        let volume = statvfs(&self.folder).ok().filter(|volume| 0 < volume.f_blocks);
        volume.map_or(u64::MAX, |volume| volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    /// What has to be left beside `bytes`, before the room is for anything but records.
    pub(super) fn wanted(&self, bytes: u64) -> u64 {
        let missing = if self.is_held() { 0 } else { HELD_BYTES };
        missing + bytes
    }

    /// Whether there is room to begin an index.
    pub(super) fn has_room_for_index(&self) -> bool {
        // Not the file, too: on a small volume room is made by freeing segments, which needs an index.
        RESERVE_BYTES + INDEX_BYTES_MIN <= self.room()
    }

    /// Whether an index that is being made leaves the journal its room.
    pub(super) fn is_left_alone(&self) -> bool {
        RESERVE_BYTES <= self.room()
    }

    /// Gives the room back to the volume; `false` when there was nothing to give.
    pub(super) fn release(&self) -> bool {
        if !self.is_held.swap(false, Ordering::AcqRel) {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                let reserve = self.path.display();
                tracing::warn!(%reserve, bytes = HELD_BYTES, "the reserve is used for records");
                true
            }
            Err(error) => {
                tracing::error!(%error, reserve = %self.path.display(), "cannot use the reserve");
                false
            }
        }
    }

    /// Takes the room again when there is plenty.
    pub(super) fn hold(&self) {
        if self.is_held() || self.room() < self.wanted(2 * RESERVE_BYTES) {
            return;
        }
        match self.create() {
            Ok(()) => self.is_held.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!(%error, reserve = %self.path.display(), "cannot hold a reserve");
                // A part of it would only be in the way.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    fn create(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, HELD_BYTES) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; 1 << 20];
                for _ in 0..HELD_BYTES >> 20 {
                    file.write_all(&zeros)?;
                }
            }
            taken => taken?,
        }
        file.sync_all()?;
        sync_folder(&self.folder)
    }
}
