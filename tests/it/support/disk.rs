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
use super::sparse::Sparse;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// How the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Everything that was not synced is gone.
    Strict,
    /// Of what was not synced any part is there: each sector, each length, each folder's names.
    Torn(u64),
    /// It does not go: everything is there.
    Never,
}

const ROOT: u64 = INodeNo::ROOT.0;

/// The entries of a folder when it was opened.
pub type Listing = Vec<(u64, FileType, OsString)>;

pub type Names = BTreeMap<OsString, u64>;

pub enum Node {
    Folder { now: Names, synced: Names },
    File { now: Sparse, synced: Sparse, dirty: BTreeSet<usize> },
}

impl Node {
    /// An empty folder.
    pub fn folder() -> Self {
        Self::Folder { now: Names::new(), synced: Names::new() }
    }

    /// An empty file.
    pub fn file() -> Self {
        Self::File { now: Sparse::default(), synced: Sparse::default(), dirty: BTreeSet::new() }
    }
}

/// What a sync that was begun makes safe when it ends.
pub enum Pending {
    Folder(Names),
    File { len: usize, sectors: Vec<(usize, Vec<u8>)> },
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

    /// One on which all of `image` is safe.
    ///
    /// # Panics
    /// When a file of it lies in no folder.
    pub fn holding(image: &Image) -> Self {
        let mut disk = Self::new();
        for folder in &image.folders {
            disk.put(folder, Node::folder());
        }
        for (path, bytes) in &image.files {
            let bytes = Sparse::from(&**bytes);
            let file = Node::File { synced: bytes.clone(), now: bytes, dirty: BTreeSet::new() };
            disk.put(path, file);
        }
        let folders: Vec<u64> = disk.nodes.keys().copied().collect();
        for id in folders {
            disk.sync(INodeNo(id)).expect("it is there");
        }
        disk
    }

    fn put(&mut self, path: &Path, node: Node) {
        let (folder, name) = self.place(path).expect("its folder is there");
        self.add(folder, &name, node).expect("a folder");
    }

    /// The folder and the name that a path means.
    pub fn place(&mut self, path: &Path) -> Result<(INodeNo, OsString), Errno> {
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        Ok((self.at(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// What is at a path.
    pub fn at(&mut self, path: &Path) -> Result<INodeNo, Errno> {
        path.iter().try_fold(INodeNo::ROOT, |folder, name| self.find(folder, name).map(INodeNo))
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

    pub fn read(&self, id: INodeNo, begin: usize, size: usize) -> Result<Vec<u8>, Errno> {
        let Some(Node::File { now, .. }) = self.nodes.get(&id.0) else {
            return Err(Errno::EISDIR);
        };
        Ok(now.read(begin, size))
    }

    pub fn resize(&mut self, id: INodeNo, size: usize) -> Result<(), Errno> {
        let Some(Node::File { now, dirty, .. }) = self.nodes.get_mut(&id.0) else {
            return Err(Errno::EISDIR);
        };
        let (small, large) = (now.len().min(size), now.len().max(size));
        dirty.extend(small / SECTOR..large.div_ceil(SECTOR));
        now.resize(size);
        Ok(())
    }

    pub fn write(&mut self, id: INodeNo, begin: usize, data: &[u8]) -> Result<(), Errno> {
        let Some(Node::File { now, dirty, .. }) = self.nodes.get_mut(&id.0) else {
            return Err(Errno::EISDIR);
        };
        let end = begin + data.len();
        dirty.extend(begin.min(now.len()) / SECTOR..end.div_ceil(SECTOR));
        now.write(begin, data);
        Ok(())
    }

    pub fn sync(&mut self, id: INodeNo) -> Result<(), Errno> {
        let pending = self.begin_sync(id)?;
        self.end_sync(id, pending)
    }

    /// A sync in two steps, for a disk that is looked at between them: nothing is safe before
    /// `end_sync`, and then what was there at `begin_sync`.
    pub fn begin_sync(&self, id: INodeNo) -> Result<Pending, Errno> {
        Ok(match self.nodes.get(&id.0).ok_or(Errno::ENOENT)? {
            Node::Folder { now, .. } => Pending::Folder(now.clone()),
            Node::File { now, dirty, .. } => {
                let sector = |n: &usize| (*n, now.read(n * SECTOR, SECTOR));
                Pending::File { len: now.len(), sectors: dirty.iter().map(sector).collect() }
            }
        })
    }

    pub fn end_sync(&mut self, id: INodeNo, pending: Pending) -> Result<(), Errno> {
        match (self.nodes.get_mut(&id.0).ok_or(Errno::ENOENT)?, pending) {
            (Node::Folder { synced, .. }, Pending::Folder(names)) => *synced = names,
            (Node::File { now, synced, dirty }, Pending::File { len, sectors }) => {
                synced.resize(len);
                for (sector, bytes) in sectors {
                    synced.write(sector * SECTOR, &bytes);
                    // It may have been written again meanwhile.
                    if now.read(sector * SECTOR, SECTOR) == bytes {
                        dirty.remove(&sector);
                    }
                }
            }
            (Node::Folder { .. } | Node::File { .. }, _) => return Err(Errno::EINVAL),
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
            Cut::Torn(seed) => fastrand::Rng::with_seed(seed),
            Cut::Strict | Cut::Never => fastrand::Rng::with_seed(0),
        };
        let mut survives = || match cut {
            Cut::Strict => false,
            Cut::Torn(_) => lots.bool(),
            Cut::Never => true,
        };
        self.collect(ROOT, &PathBuf::new(), &mut survives, &mut image);
        image
    }

    fn collect(
        &self,
        id: u64,
        path: &Path,
        survives: &mut impl FnMut() -> bool,
        image: &mut Image,
    ) {
        match &self.nodes[&id] {
            Node::Folder { now, synced } => {
                let names = if survives() { now } else { synced };
                if id != ROOT {
                    image.folders.insert(path.to_owned());
                }
                for (name, child) in names {
                    self.collect(*child, &path.join(name), survives, image);
                }
            }
            Node::File { now, synced, dirty } => {
                let mut bytes = synced.to_vec();
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
fn copy_sector(from: &Sparse, to: &mut [u8], sector: usize) {
    let begin = (sector * SECTOR).min(to.len());
    let bytes = from.read(begin, SECTOR.min(to.len() - begin));
    to[begin..begin + bytes.len()].copy_from_slice(&bytes);
}
