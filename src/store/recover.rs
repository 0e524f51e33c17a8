//! Opening a folder: tells empty, ours, newer and damaged apart, and finds the journal's end.
//!
//! Every byte of the journal is read and checked. What cannot be read is copied aside by segment
//! and offset, reported, and skipped; the torn end of an interrupted write is cut off. Nothing that
//! holds mail is ever deleted or started over.
//!
//! The offline tools read a folder in the same way, only without changing a byte of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::OpenError;
use super::entry::Scanned;
use super::journal::End;
use super::notes::{self, CleanClose, Identity, write_identity};
use super::scan::{Scan, keep};
use super::segment::{
    SEGMENT_HEADER_BYTES, create_segment, parse_segment_header, segment_number, segment_path,
    sync_folder,
};
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
    pub(super) schema: u16,
    pub(super) created: bool,
    pub(super) end: End,
    /// All segments, oldest first, with their lengths.
    pub(super) segments: Vec<(u64, u64)>,
    pub(super) damage: Vec<Damage>,
    /// Why the folder would not be opened; only after a [`Purpose::Look`].
    pub(super) refusals: Vec<OpenError>,
}

/// What a reading of the journal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To work on it: an empty folder becomes a store, what cannot be read is set aside, and what
    /// a person has to decide is an error.
    Open,
    /// To learn of it: nothing is changed, and it is read on where opening would refuse.
    Look,
}

/// How often a journal is read again from its beginning, because of the server that works on it.
pub(super) const LOOKS_MAX: usize = 20;

/// Reads the journal for [`Purpose::Look`], also while a server works on it: then as far as it was
/// written at one moment. Each sound record goes to `visit` with what it gathers.
///
/// It is read again when a segment was freed that was still to be read, and where something is
/// damaged: what was written while it was read may be there behind what was not yet there before it.
/// That is never in the same place twice.
pub(super) fn look<T: Default>(
    folder: &Path,
    mut visit: impl FnMut(&mut T, Scanned),
) -> Result<(T, Found), OpenError> {
    let mut looks_count = 0;
    let mut damage_before = None;
    loop {
        let mut gathered = T::default();
        let note = notes::clean_close(folder);
        let visit = |scanned| {
            visit(&mut gathered, scanned);
            Ok(())
        };
        looks_count += 1;
        match read_journal(folder, Purpose::Look, note.as_ref(), visit) {
            Err(error) if error.is_not_found() && looks_count < LOOKS_MAX => {}
            found => {
                let mut found = found?;
                if !found.damage.is_empty()
                    && damage_before.replace(found.damage.clone()).as_ref() != Some(&found.damage)
                    && looks_count < LOOKS_MAX
                {
                    continue;
                }
                if let Err(what) = notes::closed(folder) {
                    let file = PathBuf::from("index.clean");
                    found.damage.push(Damage { file, offset: 0, what });
                }
                return Ok((gathered, found));
            }
        }
    }
}

/// Reads the journal and hands each sound record to `visit`, oldest first.
///
/// `note` is the one of a clean close, which knows where the journal ended.
pub(super) fn read_journal(
    folder: &Path,
    purpose: Purpose,
    note: Option<&CleanClose>,
    mut visit: impl FnMut(Scanned) -> Result<(), OpenError>,
) -> Result<Found, OpenError> {
    let journal = folder.join("journal");
    let (mut damage, mut refusals) = (Vec::new(), Vec::new());
    let mut refuse = |error| match purpose {
        Purpose::Open => Err(error),
        Purpose::Look => {
            refusals.push(error);
            Ok(())
        }
    };
    let numbers = segment_numbers(&journal)?;
    let identity = identify(folder, purpose, &journal, &numbers, &mut damage)?;
    let Some(Identity { schema, store, first_segment }) = identity else {
        return match purpose {
            Purpose::Open => create(folder, &journal),
            Purpose::Look => Err(OpenError::NoStore { folder: folder.to_owned() }),
        };
    };
    let store = Uuid::from_bytes(store);
    let set_aside_in = (purpose == Purpose::Open).then_some(folder);

    check_numbers(&journal, &numbers, first_segment).or_else(&mut refuse)?;
    let mut end = None;
    let mut sequence = 0;
    let mut segments = Vec::new();
    let last = numbers.last().copied().unwrap_or_default();
    for segment in numbers {
        let path = segment_path(&journal, segment);
        let bytes = fs::read(&path).map_err(|e| OpenError::io("read", &path, &e))?;
        let is_begun = match check_header(&path, &bytes, store) {
            Err(error @ OpenError::Foreign { .. }) => {
                refuse(error)?;
                continue;
            }
            is_begun => is_begun?,
        };
        // Whatever came before another segment or a clean end had been synced.
        let synced =
            if segment == last { note.map_or(0, |note| note.end.sequence) } else { u64::MAX };
        let knows_sequence = segment == 1 || end.is_some();
        let (path, bytes) = (&path, &bytes[..]);
        let mut scan = Scan { path, segment, bytes, sequence, knows_sequence, synced };
        let stop = scan.run(set_aside_in, &mut damage, &mut visit)?;
        let is_empty = scan.sequence == sequence;
        if segment == last && !is_begun && is_empty && end.is_some() {
            put_away(set_aside_in, path, bytes, &mut damage)?;
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
        check_end(&journal, &segments, note).or_else(&mut refuse)?;
        // Numbers that were acknowledged are never given to other records.
        end.sequence = end.sequence.max(note.end.sequence);
    }
    Ok(Found { store, schema, created: false, end, segments, damage, refusals })
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
    folder: Option<&Path>,
    path: &Path,
    bytes: &[u8],
    damage: &mut Vec<Damage>,
) -> Result<(), OpenError> {
    if bytes.iter().any(|byte| *byte != 0) {
        if let Some(folder) = folder {
            let aside = folder.join("aside").join(path.file_name().unwrap_or_default());
            keep(&aside, bytes).map_err(|error| OpenError::io("write", &aside, &error))?;
        }
        let what = format!("{} bytes are no segment of this store", bytes.len());
        damage.push(Damage { file: relative(path), offset: 0, what });
    }
    let Some(_) = folder else { return Ok(()) };
    fs::remove_file(path).map_err(|error| OpenError::io("remove", path, &error))
}

/// The name of a segment as it is told to people.
pub(super) fn relative(path: &Path) -> PathBuf {
    Path::new("journal").join(path.file_name().unwrap_or_default())
}

/// The segments in a folder, oldest first.
pub(super) fn segment_numbers(journal: &Path) -> Result<Vec<u64>, OpenError> {
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
    purpose: Purpose,
    journal: &Path,
    numbers: &[u64],
    damage: &mut Vec<Damage>,
) -> Result<Option<Identity>, OpenError> {
    let identity = notes::identity(folder);
    let reason = match (identity, numbers.is_empty()) {
        (Ok(Some(identity)), _) if identity.schema > SCHEMA => {
            return Err(OpenError::Newer { schema: identity.schema });
        }
        (Ok(Some(identity)), false) => return Ok(Some(identity)),
        (Ok(Some(_)), true) => return Err(OpenError::JournalMissing),
        (Ok(None), true) => return Ok(None),
        (Ok(None), false) if is_barely_begun(folder, journal, numbers) => return Ok(None),
        (Err(_), true) => return Err(OpenError::NotOurs { file: PathBuf::from("identity") }),
        (Ok(None), false) if purpose == Purpose::Open => None,
        (Ok(None), false) => Some("the file is missing".to_owned()),
        (Err(reason), false) => Some(reason),
    };
    // The journal names its store in each segment, so a lost identity can be written again.
    let named = numbers
        .iter()
        .find_map(|number| parse_segment_header(&fs::read(segment_path(journal, *number)).ok()?));
    let Some((schema, store)) = named else {
        return Err(OpenError::NotOurs { file: PathBuf::from("journal") });
    };
    let lost = reason.map(|what| Damage { file: PathBuf::from("identity"), offset: 0, what });
    damage.extend(lost);
    if purpose == Purpose::Open {
        write_identity(folder, store, numbers[0])?;
    }
    Ok(Some(Identity { schema, store: *store.as_bytes(), first_segment: numbers[0] }))
}

/// Whether a first start was interrupted before the store had a name: there is one segment, and not
/// even its header. What was closed once, or has a name, is no such folder.
fn is_barely_begun(folder: &Path, journal: &Path, numbers: &[u64]) -> bool {
    let first = || fs::read(segment_path(journal, 1));
    let is_empty = |bytes: Vec<u8>| {
        bytes.len() <= SEGMENT_HEADER_BYTES && parse_segment_header(&bytes).is_none()
    };
    numbers == [1] && !folder.join("index.clean").exists() && first().is_ok_and(is_empty)
}

/// Creates the data folder and what is missing above it, and makes these names durable: a segment is
/// only as safe as its path.
pub(super) fn create_folders(folder: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing_count = folder.ancestors().take_while(is_missing).count();
    fs::create_dir_all(folder)?;
    let mut above = folder.canonicalize()?;
    for _ in 0..missing_count {
        above.pop();
        sync_folder(&above)?;
    }
    if missing_count == 0 && above.pop() {
        // Perhaps created by a start that was killed. Who may not read a folder created nothing in it.
        let _ = sync_folder(&above);
    }
    Ok(())
}

fn create(folder: &Path, journal: &Path) -> Result<Found, OpenError> {
    let store = Uuid::now_v7();
    fs::create_dir_all(journal).map_err(|error| OpenError::io("create", journal, &error))?;
    sync_folder(folder).map_err(|error| OpenError::io("sync", folder, &error))?;
    let first = segment_path(journal, 1);
    match fs::remove_file(&first) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::io("remove", &first, &error));
        }
        _ => {}
    }
    create_segment(journal, store, 1).map_err(|error| OpenError::io("create", journal, &error))?;
    write_identity(folder, store, 1)?;
    let bytes = SEGMENT_HEADER_BYTES as u64;
    let end = End { segment: 1, bytes, sequence: 0 };
    let segments = vec![(1, bytes)];
    let (damage, refusals) = (Vec::new(), Vec::new());
    Ok(Found { store, schema: SCHEMA, created: true, end, segments, damage, refusals })
}
