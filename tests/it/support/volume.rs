//! A real file system, in a file.
//!
//! It is mounted for one server only, in a mount namespace of that server's own: when the server is
//! gone, however it or the test ended, the kernel takes the mount and its loop device down.

use std::path::Path;
use std::process::Command;

/// Which one.
#[derive(Clone, Copy, Debug)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// Makes an empty one in a new file, whose name is safe.
    ///
    /// # Panics
    /// When that fails.
    pub fn make(self, file: &Path) {
        // 300 MB are the least that XFS takes.
        let (program, mib) = match self {
            Self::Ext4 => ("/usr/sbin/mkfs.ext4", 128),
            Self::Xfs => ("/usr/sbin/mkfs.xfs", 320),
        };
        let disk = std::fs::File::create_new(file).expect("a file");
        disk.set_len(mib << 20).expect("its length");
        let made = Command::new(program).arg("-q").arg(file).output().expect("mkfs runs");
        assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
        let folder = file.parent().expect("a folder");
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.and_then(|()| disk.sync_all()).expect("a sync");
    }

    /// What is put before a server so that it sees the file system in `file` at `mountpoint`. The
    /// kernel replays what the file system's own journal holds.
    pub fn command(self, file: &Path, mountpoint: &Path) -> Vec<String> {
        // Two with the same identity may be mounted at once: a live one, and what a cut left of it.
        let (name, options) = match self {
            Self::Ext4 => ("ext4", "loop"),
            Self::Xfs => ("xfs", "loop,nouuid"),
        };
        let script = format!("mount -t {name} -o {options} \"$0\" \"$1\" && shift && exec \"$@\"");
        let [file, mountpoint] = [file, mountpoint].map(|path| path.to_str().expect("UTF-8"));
        ["unshare", "--mount", "sh", "-c", &script, file, mountpoint].map(str::to_owned).into()
    }
}

/// The files of loop devices, as far as they lie below `folder`.
///
/// # Panics
/// When the kernel does not tell.
pub fn loops_below(folder: &Path) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").expect("the kernel's block devices");
    let files = devices.filter_map(|device| {
        std::fs::read_to_string(device.ok()?.path().join("loop/backing_file")).ok()
    });
    let folder = folder.to_str().expect("UTF-8");
    files.filter(|file| file.starts_with(folder)).collect()
}
