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
use super::codec::{Frame, MAGIC, decode, encode};
use super::index::INDEX_VERSION;
use super::journal::{
    End, Location, SEGMENT_HEADER_BYTES, Written, create_segment, parse_segment_header,
    segment_number, segment_path, sync_folder,
};
use crate::migrations::{self, DecodeError, SCHEMA};

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
    pub(super) first_segment: u64,
    pub(super) end: End,
    /// Each file of the index with its length and CRC-32C.
    pub(super) files: Vec<(String, u64, u32)>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    schema: u16,
    store: Id,
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
    let Some(store) = identify(folder, &journal, &numbers, &mut damage)? else {
        return create(folder, &journal);
    };

    let mut expected_segment = note.map_or(numbers[0], |note| note.first_segment);
    let mut end = End { segment: numbers[0], bytes: 0, sequence: 0 };
    let mut segments = Vec::new();
    let last = numbers.last().copied().unwrap_or_default();
    for segment in numbers {
        for missing in expected_segment..segment {
            damage.push(Damage {
                file: relative(&segment_path(&journal, missing)),
                offset: 0,
                what: "the segment is missing".to_owned(),
            });
        }
        expected_segment = segment + 1;
        let path = segment_path(&journal, segment);
        let bytes = fs::read(&path).map_err(|e| OpenError::io("read", &path, &e))?;
        check_header(&path, &bytes, store, &mut damage)?;
        let sequence = end.sequence;
        // Whatever came before another segment or a clean end had been synced.
        let synced =
            if segment == last { note.map_or(0, |note| note.end.sequence) } else { u64::MAX };
        let mut scan = Scan { path: &path, segment, bytes: &bytes, sequence, synced };
        let stop = scan.run(folder, &mut damage, &mut visit)?;
        end = End { segment, bytes: stop, sequence: scan.sequence };
        segments.push((segment, bytes.len() as u64));
    }
    if let Some(note) = note
        && (end.sequence, end.bytes) != (note.end.sequence, note.end.bytes)
    {
        damage.push(Damage {
            file: relative(&segment_path(&journal, note.end.segment)),
            offset: end.bytes,
            what: format!(
                "the journal ended at record {} when it was closed, and now at {}",
                note.end.sequence, end.sequence
            ),
        });
    }
    Ok(Found { store, created: false, end, segments, damage })
}

/// The note of a clean close, when there is one of this program.
pub(super) fn clean_close(folder: &Path) -> Option<CleanClose> {
    let note = read_checked::<CleanClose>(&folder.join("index.clean")).ok().flatten();
    note.filter(|note| note.index_version == INDEX_VERSION)
}

/// One segment being read.
struct Scan<'a> {
    path: &'a Path,
    segment: u64,
    bytes: &'a [u8],
    /// The last one read.
    sequence: u64,
    /// Up to here all records are known to have been on stable storage.
    synced: u64,
}

impl<'a> Scan<'a> {
    /// Answers where the sound part of the segment ends.
    fn run(
        &mut self,
        folder: &Path,
        damage: &mut Vec<Damage>,
        visit: &mut impl FnMut(Written) -> Result<(), OpenError>,
    ) -> Result<u64, OpenError> {
        let mut at = SEGMENT_HEADER_BYTES.min(self.bytes.len());
        loop {
            let Some((found, frame)) = self.next_frame(at) else {
                if at < self.bytes.len() && self.synced > self.sequence {
                    self.set_aside(folder, at, self.bytes.len(), "no record", damage)?;
                }
                return Ok(at as u64);
            };
            let next_expected = self.sequence + 1;
            let was_synced = self.synced.max(frame.synced) >= next_expected;
            if found > at && !was_synced {
                return Ok(at as u64);
            }
            if found > at {
                self.set_aside(folder, at, found, "no record", damage)?;
            } else if self.sequence > 0 && frame.sequence > next_expected {
                let what = format!("records {next_expected} to {} are missing", frame.sequence - 1);
                damage.push(self.damage(at, what));
            }
            let end = found + frame.bytes();
            self.sequence = frame.sequence;
            match self.decode(found, &frame) {
                Ok(written) => {
                    if !frame.content_is_sound() {
                        let what = "the content does not match its checksum".to_owned();
                        damage.push(self.damage(end - frame.content.len(), what));
                    }
                    visit(written)?;
                }
                Err(DecodeError::Newer(schema)) => return Err(OpenError::Newer { schema }),
                Err(error) => self.set_aside(folder, found, end, &error.to_string(), damage)?,
            }
            at = end;
        }
    }

    /// The first sound frame from `at` on that is newer than the last one.
    fn next_frame(&self, mut at: usize) -> Option<(usize, Frame<'a>)> {
        while at < self.bytes.len() {
            let frame = Frame::parse(&self.bytes[at..]).filter(|f| f.sequence > self.sequence);
            if let Some(frame) = frame {
                return Some((at, frame));
            }
            let rest = &self.bytes[at + 1..];
            at += 1 + rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)?;
        }
        None
    }

    fn decode(&self, at: usize, frame: &Frame<'_>) -> Result<Written, DecodeError> {
        let record = migrations::record(frame.schema, frame.record)?;
        let location = Location {
            segment: self.segment,
            offset: (at + frame.bytes() - frame.content.len()) as u64,
            record_bytes: (frame.bytes() - frame.content.len()) as u64,
            content_bytes: frame.content.len() as u64,
            checksum: frame.content_checksum,
            schema: frame.schema,
        };
        Ok(Written { sequence: frame.sequence, record, location })
    }

    /// Keeps unreadable bytes under `aside/`, by segment and offset.
    fn set_aside(
        &self,
        folder: &Path,
        from: usize,
        to: usize,
        why: &str,
        damage: &mut Vec<Damage>,
    ) -> Result<(), OpenError> {
        let aside = folder.join("aside");
        let path = aside.join(format!("{:010}-{from}.bytes", self.segment));
        fs::create_dir_all(&aside)
            .and_then(|()| fs::write(&path, &self.bytes[from..to]))
            .map_err(|error| OpenError::io("write", &path, &error))?;
        damage.push(self.damage(from, format!("{} bytes are unreadable: {why}", to - from)));
        Ok(())
    }

    fn damage(&self, offset: usize, what: String) -> Damage {
        Damage { file: relative(self.path), offset: offset as u64, what }
    }
}

/// The name of a segment as it is told to people.
fn relative(path: &Path) -> PathBuf {
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

fn check_header(
    path: &Path,
    bytes: &[u8],
    store: Uuid,
    damage: &mut Vec<Damage>,
) -> Result<(), OpenError> {
    match parse_segment_header(bytes) {
        Some((schema, _)) if schema > SCHEMA => Err(OpenError::Newer { schema }),
        Some((_, other)) if other != store => {
            Err(OpenError::Foreign { file: relative(path), store, other })
        }
        Some(_) => Ok(()),
        None => {
            let what = "the header of the segment is unreadable".to_owned();
            damage.push(Damage { file: relative(path), offset: 0, what });
            Ok(())
        }
    }
}

/// Whose store this is: `None` for a folder that holds none yet.
fn identify(
    folder: &Path,
    journal: &Path,
    numbers: &[u64],
    damage: &mut Vec<Damage>,
) -> Result<Option<Uuid>, OpenError> {
    let path = folder.join("identity");
    let identity = read_checked::<Identity>(&path);
    match (&identity, numbers.is_empty()) {
        (Ok(Some(identity)), _) if identity.schema > SCHEMA => {
            return Err(OpenError::Newer { schema: identity.schema });
        }
        (Ok(Some(identity)), false) => return Ok(Some(Uuid::from_bytes(identity.store))),
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
    write_identity(folder, store)?;
    Ok(Some(store))
}

fn create(folder: &Path, journal: &Path) -> Result<Found, OpenError> {
    let store = Uuid::now_v7();
    fs::create_dir_all(journal).map_err(|error| OpenError::io("create", journal, &error))?;
    sync_folder(folder).map_err(|error| OpenError::io("sync", folder, &error))?;
    create_segment(journal, store, 1).map_err(|error| OpenError::io("create", journal, &error))?;
    write_identity(folder, store)?;
    let bytes = SEGMENT_HEADER_BYTES as u64;
    let end = End { segment: 1, bytes, sequence: 0 };
    let segments = vec![(1, bytes)];
    Ok(Found { store, created: true, end, segments, damage: Vec::new() })
}

fn write_identity(folder: &Path, store: Uuid) -> Result<(), OpenError> {
    let identity = Identity { schema: SCHEMA, store: *store.as_bytes() };
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
