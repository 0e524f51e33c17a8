//! Opening a folder: tells empty, ours, newer and damaged apart, and finds the journal's end.
//!
//! Every byte of the journal is read and checked. What cannot be read is copied aside by segment
//! and offset, reported, and skipped; the torn end of an interrupted write is cut off. Nothing that
//! holds mail is ever deleted or started over.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::OpenError;
use super::codec::{decode, encode};
use super::index::INDEX_VERSION;
use super::journal::{
    End, SEGMENT_HEADER_BYTES, Written, create_segment, parse_segment_header, segment_number,
    segment_path, sync_folder,
};
use super::scan::{Scan, keep};
use crate::migrations::SCHEMA;

/// Bytes that could not be read, or that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the data folder.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong, as a phrase.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at offset {}: {}", self.file.display(), self.offset, self.what)
    }
}

/// The journal as it was found.
pub(super) struct Found {
    pub(super) store: Uuid,
    pub(super) created: bool,
    pub(super) end: End,
    /// All segments, oldest first, with their lengths.
    pub(super) segments: Vec<(u64, u64)>,
    pub(super) damage: Vec<Damage>,
}

/// What is noted when a store is closed cleanly: with it, the index need not be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CleanClose {
    pub(super) index_version: u32,
    pub(super) end: End,
    /// Each file of the index with its length and CRC-32C.
    pub(super) files: Vec<(String, u64, u32)>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    schema: u16,
    store: Id,
    /// Older segments were freed; this one and all later ones have to be there.
    first_segment: u64,
}

type Id = [u8; 16];

/// Reads the journal and hands each sound record to `visit`, oldest first.
///
/// `note` is the one of a clean close, which knows where the journal ended.
pub(super) fn read_journal(
    folder: &Path,
    note: Option<&CleanClose>,
    mut visit: impl FnMut(Written) -> Result<(), OpenError>,
) -> Result<Found, OpenError> {
    let journal = folder.join("journal");
    let mut damage = Vec::new();
    let numbers = segment_numbers(&journal)?;
    let Some((store, first_segment)) = identify(folder, &journal, &numbers, &mut damage)? else {
        return create(folder, &journal);
    };

    check_numbers(&journal, &numbers, first_segment)?;
    let mut end = None;
    let mut sequence = 0;
    let mut segments = Vec::new();
    let last = numbers.last().copied().unwrap_or_default();
    for segment in numbers {
        let path = segment_path(&journal, segment);
        let bytes = fs::read(&path).map_err(|e| OpenError::io("read", &path, &e))?;
        let is_begun = check_header(&path, &bytes, store)?;
        // Whatever came before another segment or a clean end had been synced.
        let synced =
            if segment == last { note.map_or(0, |note| note.end.sequence) } else { u64::MAX };
        let knows_sequence = segment == 1 || end.is_some();
        let (path, bytes) = (&path, &bytes[..]);
        let mut scan = Scan { path, segment, bytes, sequence, knows_sequence, synced };
        let stop = scan.run(Some(folder), &mut damage, &mut visit)?;
        let is_empty = scan.sequence == sequence;
        if segment == last && !is_begun && is_empty && end.is_some() {
            put_away(folder, path, bytes, &mut damage)?;
            break;
        }
        if !is_begun {
            let what = "the header of the segment is unreadable".to_owned();
            damage.push(Damage { file: relative(path), offset: 0, what });
        }
        sequence = scan.sequence;
        end = Some(End { segment, bytes: stop, sequence });
        segments.push((segment, bytes.len() as u64));
    }
    let mut end = end.ok_or(OpenError::JournalMissing)?;
    if let Some(note) = note {
        check_end(&journal, &segments, note)?;
        // Numbers that were acknowledged are never given to other records.
        end.sequence = end.sequence.max(note.end.sequence);
    }
    Ok(Found { store, created: false, end, segments, damage })
}

/// No segment may be missing: what it held is unknown, so a person decides.
fn check_numbers(journal: &Path, numbers: &[u64], first_segment: u64) -> Result<(), OpenError> {
    // A crash may have come between the note that a segment is free and its removal.
    let mut expected = first_segment.min(numbers[0]);
    for number in numbers {
        if expected < *number {
            return Err(OpenError::SegmentsMissing {
                first: relative(&segment_path(journal, expected)),
                count: number - expected,
                next: relative(&segment_path(journal, *number)),
            });
        }
        expected = number + 1;
    }
    Ok(())
}

/// A journal that was closed has not become shorter.
fn check_end(journal: &Path, segments: &[(u64, u64)], note: &CleanClose) -> Result<(), OpenError> {
    let closed_at = (note.end.segment, note.end.bytes);
    match segments.last() {
        Some(now) if *now < closed_at => Err(OpenError::Short {
            file: relative(&segment_path(journal, note.end.segment)),
            bytes: if now.0 == note.end.segment { now.1 } else { 0 },
            closed_at: note.end.bytes,
        }),
        _ => Ok(()),
    }
}

/// A segment whose creation was interrupted holds nothing; something else in its place is kept.
fn put_away(
    folder: &Path,
    path: &Path,
    bytes: &[u8],
    damage: &mut Vec<Damage>,
) -> Result<(), OpenError> {
    if bytes.iter().any(|byte| *byte != 0) {
        let aside = folder.join("aside").join(path.file_name().unwrap_or_default());
        keep(&aside, bytes).map_err(|error| OpenError::io("write", &aside, &error))?;
        let what = format!("{} bytes are no segment of this store", bytes.len());
        damage.push(Damage { file: relative(path), offset: 0, what });
    }
    fs::remove_file(path).map_err(|error| OpenError::io("remove", path, &error))
}

/// The note of a clean close, when there is one of this program.
pub(super) fn clean_close(folder: &Path) -> Option<CleanClose> {
    let note = read_checked::<CleanClose>(&folder.join("index.clean")).ok().flatten();
    note.filter(|note| note.index_version == INDEX_VERSION)
}

/// The name of a segment as it is told to people.
pub(super) fn relative(path: &Path) -> PathBuf {
    Path::new("journal").join(path.file_name().unwrap_or_default())
}

fn segment_numbers(journal: &Path) -> Result<Vec<u64>, OpenError> {
    let entries = match fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io("read", journal, &error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| OpenError::io("read", journal, &error))?.path();
        numbers.extend(segment_number(&path));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether the header of a segment can be read; then it is one of this store.
fn check_header(path: &Path, bytes: &[u8], store: Uuid) -> Result<bool, OpenError> {
    match parse_segment_header(bytes) {
        Some((schema, _)) if schema > SCHEMA => Err(OpenError::Newer { schema }),
        Some((_, other)) if other != store => {
            Err(OpenError::Foreign { file: relative(path), store, other })
        }
        header => Ok(header.is_some()),
    }
}

/// Whose store this is and where its journal begins: `None` for a folder that holds none yet.
fn identify(
    folder: &Path,
    journal: &Path,
    numbers: &[u64],
    damage: &mut Vec<Damage>,
) -> Result<Option<(Uuid, u64)>, OpenError> {
    let path = folder.join("identity");
    let identity = read_checked::<Identity>(&path);
    match (&identity, numbers.is_empty()) {
        (Ok(Some(identity)), _) if identity.schema > SCHEMA => {
            return Err(OpenError::Newer { schema: identity.schema });
        }
        (Ok(Some(identity)), false) => {
            return Ok(Some((Uuid::from_bytes(identity.store), identity.first_segment)));
        }
        (Ok(Some(_)), true) => return Err(OpenError::JournalMissing),
        (Ok(None), true) => return Ok(None),
        (Err(_), true) => return Err(OpenError::NotOurs { file: PathBuf::from("identity") }),
        (Ok(None) | Err(_), false) => {}
    }
    // The journal names its store in each segment, so a lost identity can be written again.
    let named = numbers
        .iter()
        .find_map(|number| parse_segment_header(&fs::read(segment_path(journal, *number)).ok()?));
    let Some((_, store)) = named else {
        return Err(OpenError::NotOurs { file: PathBuf::from("journal") });
    };
    if let Err(reason) = identity {
        damage.push(Damage { file: PathBuf::from("identity"), offset: 0, what: reason });
    }
    write_identity(folder, store, numbers[0])?;
    Ok(Some((store, numbers[0])))
}

fn create(folder: &Path, journal: &Path) -> Result<Found, OpenError> {
    let store = Uuid::now_v7();
    fs::create_dir_all(journal).map_err(|error| OpenError::io("create", journal, &error))?;
    sync_folder(folder).map_err(|error| OpenError::io("sync", folder, &error))?;
    create_segment(journal, store, 1).map_err(|error| OpenError::io("create", journal, &error))?;
    write_identity(folder, store, 1)?;
    let bytes = SEGMENT_HEADER_BYTES as u64;
    let end = End { segment: 1, bytes, sequence: 0 };
    let segments = vec![(1, bytes)];
    Ok(Found { store, created: true, end, segments, damage: Vec::new() })
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
