//! A segment of the journal as a file: its name, its header, and what makes both durable.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::frame::array;
use crate::migrations::SCHEMA;

/// The length of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 36;
const SEGMENT_MAGIC: [u8; 4] = *b"BGMS";

/// The path of a segment.
pub(super) fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:010}.seg"))
}

/// The number in a segment's file name.
pub(super) fn segment_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (name.len() == 10).then(|| name.parse::<u32>().ok()).flatten().map(u64::from)
}

/// The header of a segment: magic, schema, two zero bytes, number, store id, CRC-32C of these.
pub(super) fn segment_header(store: Uuid, segment: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..4].copy_from_slice(&SEGMENT_MAGIC);
    header[4..6].copy_from_slice(&SCHEMA.to_le_bytes());
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    header[16..32].copy_from_slice(store.as_bytes());
    let checksum = crc32c::crc32c(&header[..32]);
    header[32..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The schema and the store id in a segment's header, when it is sound.
pub(super) fn parse_segment_header(bytes: &[u8]) -> Option<(u16, Uuid)> {
    let header = bytes.get(..SEGMENT_HEADER_BYTES)?;
    let sound =
        header[..4] == SEGMENT_MAGIC && crc32c::crc32c(&header[..32]).to_le_bytes() == header[32..];
    let schema = u16::from_le_bytes(array(&header[4..]));
    sound.then(|| (schema, Uuid::from_bytes(array(&header[16..]))))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if syncs_are_off() {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

/// The control of the power-cut test: a build whose sync does nothing must lose mail there. It
/// does not exist in a release build.
fn syncs_are_off() -> bool {
    cfg!(debug_assertions) && std::env::var_os("BREAKGLASS_MAILER_TEST_NO_SYNC").is_some()
}

/// Makes what was written to a segment durable.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    if syncs_are_off() {
        return Ok(());
    }
    file.sync_data()
}

/// Creates a segment and makes its name durable.
pub(super) fn create_segment(folder: &Path, store: Uuid, segment: u64) -> io::Result<File> {
    let path = segment_path(folder, segment);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let begun = file
        .write_all(&segment_header(store, segment))
        .and_then(|()| sync_data(&file))
        .and_then(|()| sync_folder(folder));
    if let Err(error) = begun {
        drop(file);
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}
