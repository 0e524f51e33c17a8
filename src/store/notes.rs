//! The small files beside the journal: whose store it is, and how it was closed.
//!
//! Each is replaced whole, durably, and carries its own checksum.

use std::fs;
use std::io::{self, Write};
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

/// The note of a clean close, when there is one of this program.
pub(super) fn clean_close(folder: &Path) -> Option<CleanClose> {
    closed(folder).ok().flatten().filter(|note| note.index_version == INDEX_VERSION)
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
