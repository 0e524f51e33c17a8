//! A disk as a value that knows what was synced, and what a power cut would leave of it.
//!
//! A file's bytes are safe from its own fsync on, its name from the fsync of its folder on. It is
//! stricter than ext4 and XFS, which write a new file's name along with its first fsync.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

use super::image::Image;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Everything that was not synced is gone.
    Strict,
    /// Of what was not synced any part is there: each sector, each length, each folder's names.
    Torn(u64),
}

const ROOT: u64 = INodeNo::ROOT.0;

/// The entries of a folder when it was opened.
pub type Listing = Vec<(u64, FileType, OsString)>;

type Names = BTreeMap<OsString, u64>;

pub enum Node {
    Folder { now: Names, synced: Names },
    File { now: Vec<u8>, synced: Vec<u8>, dirty: BTreeSet<usize> },
}

impl Node {
    /// An empty folder.
    pub fn folder() -> Self {
        Self::Folder { now: Names::new(), synced: Names::new() }
    }

    /// An empty file.
    pub fn file() -> Self {
        Self::File { now: vec![], synced: vec![], dirty: BTreeSet::new() }
    }
}

/// See the module.
pub struct Disk {
    nodes: HashMap<u64, Node>,
    /// The listing that each open folder handle reads, so that removals do not shift it.
    listings: HashMap<u64, Listing>,
    next: u64,
}

impl Disk {
    pub fn new() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::folder())]),
            listings: HashMap::new(),
            next: ROOT,
        }
    }

    pub fn names(&mut self, folder: INodeNo) -> Result<&mut Names, Errno> {
        match self.nodes.get_mut(&folder.0) {
            Some(Node::Folder { now, .. }) => Ok(now),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub fn find(&mut self, folder: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.names(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn add(&mut self, folder: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        self.next += 1;
        let id = self.next;
        self.names(folder)?.insert(name.to_owned(), id);
        self.nodes.insert(id, node);
        self.attr(id)
    }

    /// A node without a name stays: someone may have it open, or its name may come back in a cut.
    pub fn remove(&mut self, folder: INodeNo, name: &OsStr) -> Result<(), Errno> {
        self.names(folder)?.remove(name).map(|_| ()).ok_or(Errno::ENOENT)
    }

    pub fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Result<(), Errno> {
        let id = self.names(from.0)?.remove(from.1).ok_or(Errno::ENOENT)?;
        self.names(to.0)?.insert(to.1.to_owned(), id);
        Ok(())
    }

    pub fn list(&mut self, folder: INodeNo) -> Result<u64, Errno> {
        let names = self.names(folder)?.clone();
        let mut listing: Vec<_> =
            [".", ".."].map(|dot| (folder.0, FileType::Directory, dot.into())).into();
        for (name, id) in names {
            listing.push((id, self.attr(id)?.kind, name));
        }
        self.next += 1;
        self.listings.insert(self.next, listing);
        Ok(self.next)
    }

    /// What the handle that `list` gave shows.
    pub fn listing(&self, handle: u64) -> Result<Listing, Errno> {
        self.listings.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    pub fn close_listing(&mut self, handle: u64) -> Result<(), Errno> {
        self.listings.remove(&handle).map(|_| ()).ok_or(Errno::EBADF)
    }

    pub fn read(&self, id: INodeNo, begin: usize, size: usize) -> Result<&[u8], Errno> {
        let Some(Node::File { now, .. }) = self.nodes.get(&id.0) else {
            return Err(Errno::EISDIR);
        };
        let begin = begin.min(now.len());
        Ok(&now[begin..now.len().min(begin + size)])
    }

    pub fn resize(&mut self, id: INodeNo, size: usize) -> Result<(), Errno> {
        let Some(Node::File { now, dirty, .. }) = self.nodes.get_mut(&id.0) else {
            return Err(Errno::EISDIR);
        };
        let (small, large) = (now.len().min(size), now.len().max(size));
        dirty.extend(small / SECTOR..large.div_ceil(SECTOR));
        now.resize(size, 0);
        Ok(())
    }

    pub fn write(&mut self, id: INodeNo, begin: usize, data: &[u8]) -> Result<(), Errno> {
        let Some(Node::File { now, dirty, .. }) = self.nodes.get_mut(&id.0) else {
            return Err(Errno::EISDIR);
        };
        let end = begin + data.len();
        dirty.extend(begin.min(now.len()) / SECTOR..end.div_ceil(SECTOR));
        if now.len() < end {
            now.resize(end, 0);
        }
        now[begin..end].copy_from_slice(data);
        Ok(())
    }

    pub fn sync(&mut self, id: INodeNo) -> Result<(), Errno> {
        match self.nodes.get_mut(&id.0).ok_or(Errno::ENOENT)? {
            Node::Folder { now, synced } => synced.clone_from(now),
            Node::File { now, synced, dirty } => {
                synced.resize(now.len(), 0);
                for sector in std::mem::take(dirty) {
                    copy_sector(now, synced, sector);
                }
            }
        }
        Ok(())
    }

    pub fn attr(&self, id: u64) -> Result<FileAttr, Errno> {
        let (kind, perm, size) = match self.nodes.get(&id).ok_or(Errno::ENOENT)? {
            Node::Folder { .. } => (FileType::Directory, 0o755, 0),
            Node::File { now, .. } => (FileType::RegularFile, 0o644, now.len() as u64),
        };
        let epoch = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(id),
            size,
            blocks: size.div_ceil(512),
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// What a power cut at this moment leaves.
    pub fn cut(&self, cut: Cut) -> Image {
        let mut image = Image::default();
        let mut lots = match cut {
            Cut::Strict => None,
            Cut::Torn(seed) => Some(fastrand::Rng::with_seed(seed)),
        };
        self.collect(ROOT, &PathBuf::new(), &mut lots, &mut image);
        image
    }

    fn collect(&self, id: u64, path: &Path, lots: &mut Option<fastrand::Rng>, image: &mut Image) {
        let mut survives = || lots.as_mut().is_some_and(fastrand::Rng::bool);
        match &self.nodes[&id] {
            Node::Folder { now, synced } => {
                let names = if survives() { now } else { synced };
                if id != ROOT {
                    image.folders.insert(path.to_owned());
                }
                for (name, child) in names {
                    self.collect(*child, &path.join(name), lots, image);
                }
            }
            Node::File { now, synced, dirty } => {
                let mut bytes = synced.clone();
                if survives() {
                    bytes.resize(now.len(), 0);
                }
                for sector in dirty {
                    if survives() {
                        copy_sector(now, &mut bytes, *sector);
                    }
                }
                image.files.insert(path.to_owned(), bytes);
            }
        }
    }
}

/// Copies one sector as far as both have it.
fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let begin = sector * SECTOR;
    let end = (begin + SECTOR).min(from.len()).min(to.len());
    if begin < end {
        to[begin..end].copy_from_slice(&from[begin..end]);
    }
}
