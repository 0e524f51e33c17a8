//! The disk in memory, mounted: what programs do to it and when they sync is known.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use super::disk::{Cut, Disk, Node};
use super::faults::{Change, Faults};
use super::image::Image;

const FOREVER: Duration = Duration::from_secs(3600);
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: i32 = 1;

/// The mounted file system. Unmounted when dropped.
pub struct CrashFs {
    disk: Arc<Mutex<Disk>>,
    mountpoint: PathBuf,
    faults: Arc<Faults>,
    _session: BackgroundSession,
}

impl Drop for CrashFs {
    fn drop(&mut self) {
        // The kernel may hold a file of it a little longer, as the disk of a loop device: what is
        // detached so goes with the last of them. The session tries again, in vain.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mountpoint).output();
    }
}

impl CrashFs {
    /// Mounts a new, empty one at `mountpoint`.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn mount(mountpoint: &Path) -> Self {
        let disk = Arc::new(Mutex::new(Disk::new()));
        let faults = Arc::new(Faults::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("crashfs".into())];
        let session =
            fuser::spawn_mount(Fuse(Arc::clone(&disk), Arc::clone(&faults)), mountpoint, &config)
                .expect("mount a FUSE file system");
        Self { disk, faults, mountpoint: mountpoint.to_owned(), _session: session }
    }

    /// What is to fail.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What a power cut at this moment leaves. Programs go on without notice.
    ///
    /// # Panics
    /// When a request panicked before.
    pub fn cut(&self, cut: Cut) -> Image {
        self.disk.lock().expect("no request panicked").cut(cut)
    }
}

/// The kernel's side: each request under one lock.
struct Fuse(Arc<Mutex<Disk>>, Arc<Faults>);

impl Fuse {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        act(&mut *self.0.lock().map_err(|_| Errno::EIO)?)
    }

    /// The same for what may be told to fail.
    fn change<T>(
        &self,
        change: Change,
        id: INodeNo,
        name: Option<&OsStr>,
        act: impl FnOnce(&mut Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.with(|disk| {
            self.1.check(disk, change, id, name)?;
            act(disk)
        })
    }
}

/// Answers with the value by the reply's own method, or with the error.
macro_rules! answer {
    ($reply:expr, $result:expr, $value:pat => $say:expr) => {
        match $result {
            Ok($value) => $say,
            Err(error) => $reply.error(error),
        }
    };
}

#[allow(clippy::cast_possible_truncation)] // offsets and sizes fit: 64-bit
impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(|disk| disk.find(folder, name).and_then(|id| disk.attr(id)));
        answer!(reply, found, attr => reply.entry(&FOREVER, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, id: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.with(|disk| disk.attr(id.0));
        answer!(reply, attr, attr => reply.attr(&FOREVER, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        id: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let attr = self.change(Change::Resize, id, None, |disk| {
            size.map_or(Ok(()), |size| disk.resize(id, size as usize))?;
            disk.attr(id.0)
        });
        answer!(reply, attr, attr => reply.attr(&FOREVER, &attr));
    }

    fn mkdir(&self, _: &Request, up: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let node = Node::folder();
        let attr = self.change(Change::Create, up, Some(name), |disk| disk.add(up, name, node));
        answer!(reply, attr, attr => reply.entry(&FOREVER, &attr, Generation(0)));
    }

    fn create(
        &self,
        _: &Request,
        up: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let node = Node::file();
        let attr = self.change(Change::Create, up, Some(name), |disk| disk.add(up, name, node));
        let (first, handle, flags) = (Generation(0), FileHandle(0), FopenFlags::empty());
        answer!(reply, attr, attr => reply.created(&FOREVER, &attr, first, handle, flags));
    }

    fn open(&self, _: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Ok(()),
            _ => self.change(Change::OpenToWrite, id, None, |_| Ok(())),
        };
        answer!(reply, opened, () => reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        id: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let data = self.with(|disk| disk.read(id, offset as usize, size as usize));
        answer!(reply, data, data => reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        id: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written =
            self.change(Change::Write, id, None, |disk| disk.write(id, offset as usize, data));
        answer!(reply, written, () => reply.written(data.len() as u32));
    }

    fn fallocate(
        &self,
        _: &Request,
        id: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.change(Change::Resize, id, None, |disk| match mode {
            0 => {
                let size = (offset + length).max(disk.attr(id.0)?.size);
                disk.resize(id, size as usize)
            }
            // Room that is set aside changes no byte and no length.
            KEEP_SIZE => disk.attr(id.0).map(drop),
            _ => Err(Errno::EOPNOTSUPP),
        });
        answer!(reply, done, () => reply.ok());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, id: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.change(Change::Sync, id, None, |disk| disk.sync(id)), () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, id: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.change(Change::Sync, id, None, |disk| disk.sync(id)), () => reply.ok());
    }

    fn unlink(&self, _: &Request, up: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.change(Change::Remove, up, Some(name), |disk| disk.remove(up, name));
        answer!(reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, up: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.change(Change::Remove, up, Some(name), |disk| {
            let id = INodeNo(disk.find(up, name)?);
            if !disk.names(id)?.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            disk.remove(up, name)
        });
        answer!(reply, done, () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        up: INodeNo,
        name: &OsStr,
        to_up: INodeNo,
        to_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.change(Change::Rename, up, Some(name), |disk| {
            disk.rename((up, name), (to_up, to_name))
        });
        answer!(reply, done, () => reply.ok());
    }

    fn opendir(&self, _: &Request, id: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.with(|disk| disk.list(id));
        answer!(reply, handle, handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.with(|disk| disk.listing(handle.0));
        answer!(reply, listing, listing => {
            for (n, (id, kind, name)) in (1..).zip(listing).skip(offset as usize) {
                if reply.add(INodeNo(id), n, kind, &name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.with(|disk| disk.close_listing(handle.0)), () => reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096);
    }
}
