//! The small files beside the journal: whose store it is, and how it was closed.
//!
//! Each is replaced whole, durably, and carries its own checksum.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::OpenError;
use super::codec::{decode, encode};
use super::index::INDEX_VERSION;
use super::journal::End;
use super::segment::sync_folder;
use crate::migrations::SCHEMA;

/// What is noted when a store is closed cleanly: with it, the index need not be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CleanClose {
    pub(super) index_version: u32,
    pub(super) end: End,
    /// Each file of the index with its length and CRC-32C; none in a backup, which has no index.
    pub(super) files: Vec<(String, u64, u32)>,
}

/// Whose store this is.
#[derive(Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) schema: u16,
    pub(super) store: Id,
    /// Older segments were freed; this one and all later ones have to be there.
    pub(super) first_segment: u64,
}

type Id = [u8; 16];

/// The identity of the store in a folder; `None` when there is no such file.
pub(super) fn identity(folder: &Path) -> Result<Option<Identity>, String> {
    read_checked(&folder.join("identity"))
}

/// The note of the last clean close; `None` when there is no such file.
pub(super) fn closed(folder: &Path) -> Result<Option<CleanClose>, String> {
    read_checked(&folder.join("index.clean"))
}

/// The note of a clean close, by whichever version of the program: where the journal ended is known
/// also when the index is of another one.
pub(super) fn clean_close(folder: &Path) -> Option<CleanClose> {
    closed(folder).ok().flatten()
}

impl CleanClose {
    /// Whether there was an index then that this program can use.
    pub(super) fn has_index(&self) -> bool {
        // An empty folder is none: a start that was killed, or a power cut, leaves one.
        self.index_version == INDEX_VERSION && !self.files.is_empty()
    }
}

/// Notes whose store this is and where its journal begins.
pub(super) fn write_identity(
    folder: &Path,
    store: Uuid,
    first_segment: u64,
) -> Result<(), OpenError> {
    let identity = Identity { schema: SCHEMA, store: *store.as_bytes(), first_segment };
    write_checked(folder, "identity", &identity)
        .map_err(|error| OpenError::io("write", &folder.join("identity"), &error))
}

/// Replaces a small file whole: its bytes and their CRC-32C, durable before the name is.
pub(super) fn write_checked<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let mut bytes = encode(value);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let draft = folder.join(format!("{name}.new"));
    let mut file = fs::File::create(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(name))?;
    sync_folder(folder)
}

/// Reads what [`write_checked`] wrote; `None` when there is no such file.
fn read_checked<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or("the file is too short")?;
    if crc32c::crc32c(body).to_le_bytes() != *checksum {
        return Err("the file does not match its checksum".to_owned());
    }
    decode(body).map(Some)
}

/// Every file below a folder, with its length and CRC-32C, in the order of the names.
pub(super) fn checksums(folder: &Path) -> io::Result<Vec<(String, u64, u32)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            let (length, checksum) = checksum(&path)?;
            found.push((name, length, checksum));
        }
    }
    found.sort();
    Ok(found)
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    let (mut length, mut checksum) = (0, 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((length, checksum));
        }
        checksum = crc32c::crc32c_append(checksum, &buffer[..count]);
        length += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_journal_ended_is_known_also_when_the_index_is_of_another_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let end = End { segment: 3, bytes: 4711, sequence: 42 };
        let files = vec![("db".to_owned(), 1, 2)];
        let note = CleanClose { index_version: INDEX_VERSION - 1, end, files };
        write_checked(folder.path(), "index.clean", &note).expect("written");
        let read = clean_close(folder.path()).expect("it is there");
        assert_eq!(read.end, end);
        assert!(!read.has_index());
    }
}
