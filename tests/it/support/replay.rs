//! A trace done again, call by call, on the disk in memory: the power can be cut between any two.
//!
//! What a call does it does when it ends, and a sync makes safe what was written before it began:
//! so nothing is safe here that was not safe there. A file is read from its beginning or by offset,
//! but not where it is written without one: reads are not in the trace.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::disk::{Cut, Disk, Node, Pending};
use super::image::Image;
use super::trace::Call;

/// The calls that a trace must hold.
pub const CALLS: &str = "openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,\
    ftruncate,truncate,fallocate,lseek,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,\
    mkdir,mkdirat,fsync,fdatasync,sync_file_range,copy_file_range,sendfile";

/// See the module.
pub struct Replay<'a> {
    calls: &'a [Call],
    /// The folder that the disk is.
    root: &'a Path,
    /// The beginnings and ends of the calls, in the order of the trace: line, call, whether it ends.
    steps: Vec<(usize, usize, bool)>,
    done: usize,
    disk: Disk,
    /// Where each open file is written next.
    positions: HashMap<u64, usize>,
    syncs: HashMap<usize, Pending>,
}

impl<'a> Replay<'a> {
    /// Begins with `image` as what was in `root`, and safe.
    pub fn new(calls: &'a [Call], root: &'a Path, image: &Image) -> Self {
        let is_sync = |call: &Call| matches!(&*call.name, "fsync" | "fdatasync");
        let mut steps = Vec::new();
        for (n, call) in calls.iter().enumerate().filter(|(_, call)| concerns(call, root)) {
            if is_sync(call) {
                steps.push((call.began, n, false));
            }
            steps.push((call.ended, n, true));
        }
        steps.sort_unstable();
        let (positions, syncs) = (HashMap::new(), HashMap::new());
        Self { calls, root, steps, done: 0, disk: Disk::holding(image), positions, syncs }
    }

    /// How many steps there are.
    pub fn steps_count(&self) -> usize {
        self.steps.len()
    }

    /// The line of the trace before which the disk is as it is after `steps` steps.
    pub fn line_after(&self, steps: usize) -> usize {
        self.steps.get(steps).map_or(usize::MAX, |(line, _, _)| *line)
    }

    /// The numbers of steps after which something of a file below `folder` is written and not
    /// yet safe.
    pub fn unsafe_steps(&self, folder: &str) -> Vec<usize> {
        let mut is_unsafe = false;
        let mut found = Vec::new();
        for (n, (_, call, is_end)) in self.steps.iter().enumerate() {
            let call = &self.calls[*call];
            if call.target.contains(folder) && *is_end {
                is_unsafe = call.name.contains("write");
            }
            if is_unsafe {
                found.push(n + 1);
            }
        }
        found
    }

    /// Goes on until `steps` are done, and cuts the power.
    pub fn cut(&mut self, steps: usize, cut: Cut) -> Image {
        while self.done < steps {
            let (_, call, is_end) = self.steps[self.done];
            self.step(call, is_end);
            self.done += 1;
        }
        self.disk.cut(cut)
    }

    fn below(&self, path: &Path) -> PathBuf {
        let below = path
            .strip_prefix(self.root)
            .unwrap_or_else(|_| panic!("{} is not below {}", path.display(), self.root.display()));
        below.to_owned()
    }

    fn step(&mut self, n: usize, is_end: bool) {
        let call = &self.calls[n];
        let done = if is_end { self.end(n) } else { self.begin_sync(n) };
        done.unwrap_or_else(|error| panic!("{error:?}: {} {:.200}", call.name, call.text));
    }

    fn begin_sync(&mut self, n: usize) -> Result<(), fuser::Errno> {
        let path = self.below(Path::new(&self.calls[n].target));
        let id = self.disk.at(&path)?;
        self.syncs.insert(n, self.disk.begin_sync(id)?);
        Ok(())
    }

    fn end(&mut self, n: usize) -> Result<(), fuser::Errno> {
        let call = &self.calls[n];
        let (descriptor, (result, opened)) = (call.descriptor(), call.result());
        let target = Path::new(&call.target);
        match &*call.name {
            "openat" => {
                let (folder, name) = self.disk.place(&self.below(Path::new(opened)))?;
                self.positions.insert(result, 0);
                assert!(!call.text.contains("O_APPEND"), "appending is not known here");
                match self.disk.find(folder, &name) {
                    Ok(id) if call.text.contains("O_TRUNC") => {
                        self.disk.resize(fuser::INodeNo(id), 0)?;
                    }
                    Ok(_) => {}
                    Err(_) => drop(self.disk.add(folder, &name, Node::file())?),
                }
            }
            "write" | "pwrite64" | "pwritev" => {
                let id = self.disk.at(&self.below(target))?;
                let mut bytes = call.strings().0.concat();
                bytes.truncate(size(result));
                if let "pwrite64" | "pwritev" = &*call.name {
                    let offset = call.numbers().pop().expect("the last argument");
                    return self.disk.write(id, size(offset), &bytes);
                }
                let descriptor = descriptor.expect("a descriptor");
                let position = self.positions.get_mut(&descriptor).expect("it is open");
                self.disk.write(id, *position, &bytes)?;
                *position += bytes.len();
            }
            "lseek" => drop(self.positions.insert(descriptor.expect("a descriptor"), size(result))),
            "ftruncate" => {
                let id = self.disk.at(&self.below(target))?;
                self.disk.resize(id, size(call.numbers()[0]))?;
            }
            // Room that is set aside changes no byte and no length.
            "fallocate" if call.text.contains("KEEP_SIZE") => {}
            "fallocate" => {
                let id = self.disk.at(&self.below(target))?;
                let [mode, offset, length] = call.numbers()[..] else { panic!("{}", call.text) };
                assert_eq!(mode, 0, "only what makes a file longer is known here");
                let end = size(offset) + size(length);
                let now = size(self.disk.attr(id.0)?.size);
                self.disk.resize(id, end.max(now))?;
            }
            "mkdir" => {
                let (folder, name) = self.disk.place(&self.below(&self.paths(n)[0]))?;
                self.disk.add(folder, &name, Node::folder())?;
            }
            "rename" => {
                let paths = self.paths(n);
                let from = self.disk.place(&self.below(&paths[0]))?;
                let to = self.disk.place(&self.below(&paths[1]))?;
                self.disk.rename((from.0, &from.1), (to.0, &to.1))?;
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let path = Path::new(&call.target).join(&self.paths(n)[0]);
                let (folder, name) = self.disk.place(&self.below(&path))?;
                self.disk.remove(folder, &name)?;
            }
            "fsync" | "fdatasync" => {
                let id = self.disk.at(&self.below(target))?;
                let pending = self.syncs.remove(&n).expect("it was begun");
                self.disk.end_sync(id, pending)?;
            }
            // It may write, and makes nothing safe.
            "sync_file_range" => {}
            other => panic!("{other} is not known here: {:.200}", call.text),
        }
        Ok(())
    }

    /// The paths among the arguments of a call.
    fn paths(&self, n: usize) -> Vec<PathBuf> {
        let (strings, _) = self.calls[n].strings();
        strings.iter().map(|bytes| std::ffi::OsStr::from_bytes(bytes).into()).collect()
    }
}

/// Whether a call changed something below `root`, or made it safe.
fn concerns(call: &Call, root: &Path) -> bool {
    let is_below = |path: &str| Path::new(path).starts_with(root);
    let has_descriptor = call.descriptor().is_some();
    call.ok
        && match &*call.name {
            "openat" => !call.text.contains("O_RDONLY") && is_below(call.result().1),
            "unlinkat" => is_below(&call.target) || is_below(&first_path(call)),
            _ if has_descriptor => is_below(&call.target),
            _ => is_below(&first_path(call)),
        }
}

fn first_path(call: &Call) -> String {
    call.text.split('"').nth(1).unwrap_or_default().to_owned()
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("64-bit")
}
