//! Faults of a disk: which changes of a mounted [`CrashFs`](super::crashfs::CrashFs) fail, and how.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuser::{Errno, INodeNo};

use super::disk::Disk;

/// What a program asks of a disk that changes it, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    OpenToWrite,
    Create,
    Write,
    Resize,
    Sync,
    Rename,
    Remove,
}

/// Which changes are meant.
pub type Which = fn(Change, &Path) -> bool;

/// A fault that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which changes count.
    pub counts: Which,
    /// So many of them succeed before it.
    pub after: usize,
    /// Whether all of them fail from then on, or that one alone.
    pub stays: bool,
    /// As which error.
    pub errno: fn() -> Errno,
}

/// The error of a disk that fails.
pub fn io_error() -> Errno {
    Errno::EIO
}

/// The error of a file system that became read-only.
pub fn read_only() -> Errno {
    Errno::EROFS
}

/// The faults of one file system.
#[derive(Default)]
pub struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// The changes that counted so far.
    seen_count: usize,
    failed: Vec<(Change, PathBuf)>,
}

impl Faults {
    /// From now on this is to come.
    pub fn arm(&self, fault: Fault) {
        *self.lock() = State { fault: Some(fault), ..State::default() };
    }

    /// The disk works again; answers how many changes counted.
    pub fn disarm(&self) -> usize {
        let mut state = self.lock();
        state.fault = None;
        state.seen_count
    }

    /// What has failed since it was armed.
    pub fn failed(&self) -> Vec<(Change, PathBuf)> {
        self.lock().failed.clone()
    }

    /// Whether a change of this node, or of a name in it, may be made.
    ///
    /// # Errors
    /// The one that is to come, when its time is there.
    pub fn check(
        &self,
        disk: &mut Disk,
        change: Change,
        node: INodeNo,
        name: Option<&OsStr>,
    ) -> Result<(), Errno> {
        let mut state = self.lock();
        let Some(fault) = state.fault else { return Ok(()) };
        // What has no name any more, nobody will find again.
        let Some(mut path) = path(disk, INodeNo::ROOT, node, PathBuf::new()) else {
            return Ok(());
        };
        path.extend(name);
        if !(fault.counts)(change, &path) {
            return Ok(());
        }
        state.seen_count += 1;
        let nth = state.seen_count - 1;
        if nth == fault.after || (fault.stays && fault.after < nth) {
            state.failed.push((change, path));
            return Err((fault.errno)());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a node below `folder`.
fn path(disk: &mut Disk, folder: INodeNo, node: INodeNo, at: PathBuf) -> Option<PathBuf> {
    if folder == node {
        return Some(at);
    }
    let names = disk.names(folder).ok()?.clone();
    names.into_iter().find_map(|(name, id)| path(disk, INodeNo(id), node, at.join(name)))
}
