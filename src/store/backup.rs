//! Copies of a store: `backup` makes one, also while a server works on it, and `restore` makes a data
//! folder of one again. Both are the same copying.
//!
//! A copy is the journal as it was at one moment: records are only ever appended, so a beginning of the
//! journal is a journal. The index is left out, since it is made from the journal. A copy is
//! read back whole before it gets its names, and its folder is no store before that, so what was
//! interrupted is never taken for a copy.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::index::INDEX_VERSION;
use super::notes::{CleanClose, write_checked};
use super::recover::{Found, LOOKS_MAX, create_folders, look, segment_numbers};
use super::segment::{segment_path, sync_folder};
use super::verify::{Verified, verify};
use super::{OpenError, lock};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("{folder} is not empty: name a folder that is empty or does not exist")]
    NotEmpty {
        /// Which folder.
        folder: PathBuf,
    },
    /// Not all of the store can be read.
    #[error(
        "{folder} is damaged in {places_count} places, and no copy of it was kept; the first: {first}"
    )]
    Damaged {
        /// The folder to be copied.
        folder: PathBuf,
        /// The first thing that is wrong.
        first: String,
        /// How many such things there are.
        places_count: usize,
    },
    /// The store cannot be read at all, or the disk refused.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Copies the store in `folder`, which a server may be working on, to `target`: everything that was
/// accepted before is in it. Answers what is in the copy.
///
/// # Errors
/// When there is no whole copy; then nothing of it is left.
pub fn backup(folder: &Path, target: &Path) -> Result<Verified, BackupError> {
    require_empty(target)?;
    create(target)?;
    copy(folder, target)?;
    Ok(verify(target)?)
}

/// Makes a data folder of a backup, which is the same store then. Answers what is in it.
///
/// # Errors
/// When the backup is damaged or `folder` is not free; then nothing of the copy is left.
pub fn restore(backup: &Path, folder: &Path) -> Result<Verified, BackupError> {
    require_empty(folder)?;
    create(folder)?;
    // No server may begin a store in it meanwhile.
    let lock = lock(folder)?;
    if let Err(error) = copy(backup, folder) {
        let path = folder.join("lock");
        fs::remove_file(&path).map_err(|error| OpenError::io("remove", &path, &error))?;
        return Err(error);
    }
    drop(lock);
    Ok(verify(folder)?)
}

/// Where a copy is until it is known to be whole.
const DRAFT: &str = "incomplete";

fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let draft = to.join(DRAFT);
    let copied = fill(from, &draft).and_then(|()| Ok(publish(&draft, to)?));
    if copied.is_err() {
        // The reason is worth more than what this says.
        let _ = fs::remove_dir_all(&draft);
    }
    copied
}

/// Makes a whole copy in `draft`. It begins again as [`look`] does, for the same reasons.
fn fill(from: &Path, draft: &Path) -> Result<(), BackupError> {
    let mut copies_count = 0;
    let mut wrong_before = None;
    let end = loop {
        copies_count += 1;
        match copy_files(from, draft).and_then(|()| look(draft, |(), _| ())) {
            Err(error) if error.is_not_found() && copies_count < LOOKS_MAX => {}
            copied => {
                let ((), Found { end, damage, refusals, .. }) = copied?;
                let damage = damage.iter().map(ToString::to_string);
                let wrong: Vec<_> =
                    damage.chain(refusals.iter().map(ToString::to_string)).collect();
                let Some(first) = wrong.first().cloned() else { break end };
                let (folder, places_count) = (from.to_owned(), wrong.len());
                if wrong_before.replace(wrong.clone()) == Some(wrong) || copies_count == LOOKS_MAX {
                    return Err(BackupError::Damaged { folder, first, places_count });
                }
            }
        }
        fs::remove_dir_all(draft).map_err(|error| OpenError::io("remove", draft, &error))?;
    };

    // What is behind the last whole record was being written at that moment.
    let journal = draft.join("journal");
    for segment in segment_numbers(&journal)?.into_iter().filter(|number| *number > end.segment) {
        let path = segment_path(&journal, segment);
        fs::remove_file(&path).map_err(|error| OpenError::io("remove", &path, &error))?;
    }
    let last = segment_path(&journal, end.segment);
    let cut = || {
        let file = File::options().write(true).open(&last)?;
        file.set_len(end.bytes)?;
        file.sync_all()
    };
    cut().map_err(|error| OpenError::io("truncate", &last, &error))?;
    // With it, a copy that became shorter is told from a whole one.
    let note = CleanClose { index_version: INDEX_VERSION, end, files: Vec::new() };
    write_checked(draft, "index.clean", &note)
        .and_then(|()| sync_folder(&journal))
        .map_err(|error| OpenError::io("write", &draft.join("index.clean"), &error))?;
    Ok(())
}

/// Copies the files as they are, the oldest segment first: it is the next to be freed.
fn copy_files(from: &Path, draft: &Path) -> Result<(), OpenError> {
    create(&draft.join("journal"))?;
    let journal = from.join("journal");
    let numbers = segment_numbers(&journal)?;
    if numbers.is_empty() {
        return Err(OpenError::NoStore { folder: from.to_owned() });
    }
    for name in ["identity", "index.clean"] {
        match copy_file(&from.join(name), &draft.join(name)) {
            Err(error) if error.is_not_found() => {}
            copied => copied?,
        }
    }
    for number in numbers {
        copy_file(&segment_path(&journal, number), &segment_path(&draft.join("journal"), number))?;
    }
    Ok(())
}

/// Copies a file as long as it is now.
fn copy_file(from: &Path, to: &Path) -> Result<(), OpenError> {
    let file = File::open(from).map_err(|error| OpenError::io("read", from, &error))?;
    let copy = || {
        let bytes = file.metadata()?.len();
        let mut copy = File::create_new(to)?;
        io::copy(&mut file.take(bytes), &mut copy)?;
        copy.sync_all()
    };
    copy().map_err(|error| OpenError::io("write", to, &error))
}

/// Gives the copy its names: the journal last, because without it the rest is no store.
fn publish(draft: &Path, to: &Path) -> Result<(), OpenError> {
    let publish = || {
        fs::rename(draft.join("identity"), to.join("identity"))?;
        fs::rename(draft.join("index.clean"), to.join("index.clean"))?;
        sync_folder(to)?;
        fs::rename(draft.join("journal"), to.join("journal"))?;
        fs::remove_dir(draft)?;
        sync_folder(to)
    };
    publish().map_err(|error| OpenError::io("write", to, &error))
}

fn create(folder: &Path) -> Result<(), OpenError> {
    create_folders(folder).map_err(|error| OpenError::io("create", folder, &error))
}

/// A new volume may have a folder of its file system in it.
fn require_empty(folder: &Path) -> Result<(), BackupError> {
    let failed = |error| OpenError::io("read", folder, &error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        if entry.map_err(failed)?.file_name() != "lost+found" {
            return Err(BackupError::NotEmpty { folder: folder.to_owned() });
        }
    }
    Ok(())
}
