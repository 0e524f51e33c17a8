//! A folder as a value: read, changed and written out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Folders and files by their path below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub folders: BTreeSet<PathBuf>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// Reads the folder `root`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut image = Self::default();
        let mut left = vec![PathBuf::new()];
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    image.folders.insert(path.clone());
                    left.push(path);
                } else {
                    image.files.insert(path, std::fs::read(entry.path())?);
                }
            }
        }
        Ok(image)
    }

    /// Writes it below `root`, which is created. Zeros stay holes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        std::fs::create_dir_all(root)?;
        for folder in &self.folders {
            std::fs::create_dir_all(root.join(folder))?;
        }
        for (path, bytes) in &self.files {
            let file = File::create(root.join(path))?;
            file.set_len(bytes.len() as u64)?;
            for (n, block) in bytes.chunks(BLOCK).enumerate() {
                if *block != ZEROS[..block.len()] {
                    file.write_all_at(block, (n * BLOCK) as u64)?;
                }
            }
        }
        Ok(())
    }
}
