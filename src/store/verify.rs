//! What is in a data folder and whether it is whole, told without changing a byte of it.
//!
//! The journal is read as it is read when the folder is opened, so both find the same damage.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::OpenError;
use super::entry::Scanned;
use super::notes;
use super::notes::checksums;
use super::recover::{Damage, look, relative};
use super::segment::segment_path;
use crate::migrations::latest::Record;

/// What is in a data folder.
#[derive(Debug)]
pub struct Verified {
    /// Whose store it is.
    pub store: Uuid,
    /// The schema of its identity.
    pub schema: u16,
    /// The segments of the journal, then what was set aside earlier.
    pub files: Vec<StoredFile>,
    /// What is to be thought of its index.
    pub index: IndexState,
    /// Each thing that is not as it was written.
    pub damage: Vec<Damage>,
    /// Why a server would refuse to open it.
    pub refusals: Vec<OpenError>,
}

/// A file of the store.
#[derive(Debug)]
pub struct StoredFile {
    /// Relative to the data folder.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What can be read of it; `None` for bytes that were set aside.
    pub records: Option<Records>,
}

/// The records of a segment that can be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records {
    /// All of them.
    pub count: u64,
    /// The jobs that they bring in or carry forward.
    pub jobs_count: u64,
}

/// Whether the next start can use the index. It is made from the journal, so it holds nothing that
/// could be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// It is as it was closed.
    Whole,
    /// A server is at work, or was not stopped cleanly: nothing tells how the index should be.
    NotClosed,
    /// There is none, or none that this program would use.
    Missing,
    /// It is not as it was closed.
    Damaged,
}

impl Verified {
    /// Whether nothing is damaged and a server would open it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.refusals.is_empty()
    }
}

/// Reads and checks everything in `folder`, also while a server works on it.
///
/// # Errors
/// When there is no store, or nothing of it can be read.
pub fn verify(folder: &Path) -> Result<Verified, OpenError> {
    let (records, found) = look(folder, |records: &mut BTreeMap<u64, Records>, scanned| {
        let of_segment = records.entry(scanned.location.segment.into()).or_default();
        of_segment.count += 1;
        of_segment.jobs_count += jobs_count(&scanned);
    })?;
    let segment = |&(segment, bytes): &(u64, u64)| StoredFile {
        file: relative(&segment_path(folder, segment)),
        bytes,
        records: Some(records.get(&segment).copied().unwrap_or_default()),
    };
    let mut files: Vec<_> = found.segments.iter().map(segment).collect();
    files.extend(set_aside(folder)?);
    let mut damage = found.damage;
    let index = index_state(folder, &mut damage)?;
    let (store, schema, refusals) = (found.store, found.schema, found.refusals);
    Ok(Verified { store, schema, files, index, damage, refusals })
}

fn jobs_count(scanned: &Scanned) -> u64 {
    let jobs_count = match &scanned.record {
        Record::Accepted(accepted) => accepted.notification.jobs.len(),
        Record::Carried(carried) => carried.jobs.len(),
        Record::Updated(_) | Record::JobForgotten(_) | Record::KeyForgotten(_) => 0,
    };
    jobs_count as u64
}

fn set_aside(folder: &Path) -> Result<Vec<StoredFile>, OpenError> {
    let aside = folder.join("aside");
    let failed = |error| OpenError::io("read", &aside, &error);
    let entries = match fs::read_dir(&aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let bytes = entry.metadata().map_err(failed)?.len();
        files.push(StoredFile {
            file: Path::new("aside").join(entry.file_name()),
            bytes,
            records: None,
        });
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(files)
}

/// Holds the index against the note of the last clean close.
fn index_state(folder: &Path, damage: &mut Vec<Damage>) -> Result<IndexState, OpenError> {
    let note = match notes::closed(folder) {
        Ok(Some(note)) => note,
        Ok(None) => return Ok(IndexState::NotClosed),
        Err(_) => return Ok(IndexState::Damaged),
    };
    if !note.has_index() {
        return Ok(IndexState::Missing);
    }
    let index = folder.join("index");
    let now = match checksums(&index) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        now => now.map_err(|error| OpenError::io("read", &index, &error))?,
    };
    if now == note.files {
        return Ok(IndexState::Whole);
    }
    if matches!(notes::closed(folder), Ok(None)) {
        // A server began to work on it meanwhile.
        return Ok(IndexState::NotClosed);
    }
    let by_name = |files: Vec<(String, u64, u32)>| -> BTreeMap<_, _> {
        files.into_iter().map(|(name, bytes, checksum)| (name, (bytes, checksum))).collect()
    };
    let (now, closed) = (by_name(now), by_name(note.files));
    for (name, (bytes, checksum)) in &closed {
        let (offset, what) = match now.get(name) {
            None => (0, "the file is missing".to_owned()),
            Some((has, _)) if has != bytes => {
                (*has.min(bytes), format!("the file was closed with {bytes} bytes and has {has}"))
            }
            Some((_, has)) if has != checksum => {
                (0, "the file does not match its checksum".to_owned())
            }
            Some(_) => continue,
        };
        damage.push(Damage { file: Path::new("index").join(name), offset, what });
    }
    for name in now.keys().filter(|name| !closed.contains_key(*name)) {
        let what = "the file was not there when the index was closed".to_owned();
        damage.push(Damage { file: Path::new("index").join(name), offset: 0, what });
    }
    Ok(IndexState::Damaged)
}
