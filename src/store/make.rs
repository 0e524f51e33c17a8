//! Making the index again from the journal, at a start and while the store works.
//!
//! Whatever goes wrong with it, a panic of sled included, costs only the index: its files go, so that
//! they take no room from the journal, and the store works on without it until it is made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::carried::Replay;
use super::entry::Scanned;
use super::index::Index;
use super::journal::Location;
use super::reserve::Reserve;
use crate::migrations::latest::Id;
use crate::queue::store::StoreError;

/// So many records are applied between two looks at the room.
const RECORDS_BETWEEN_LOOKS: u64 = 64;

/// An index that is being made.
pub(super) struct Making<'a> {
    folder: PathBuf,
    reserve: &'a Reserve,
    index: Result<Index, String>,
    replay: Replay,
    records_count: u64,
}

impl<'a> Making<'a> {
    /// Begins an empty index in place of what there is.
    pub(super) fn begin(folder: &Path, reserve: &'a Reserve) -> Self {
        let begun = throw_away(folder).map_err(|error| error.to_string()).and_then(|()| {
            if reserve.has_room_for_index() {
                guarded(|| Index::open(folder))
            } else {
                Err("the volume has no room for it".to_owned())
            }
        });
        let (folder, replay) = (folder.to_owned(), Replay::default());
        if begun.is_err() {
            remove_files(&folder);
        }
        Self { folder, reserve, index: begun, replay, records_count: 0 }
    }

    /// Applies a record; nothing any more once something failed.
    pub(super) fn apply(&mut self, scanned: Scanned) {
        let Ok(index) = &self.index else { return };
        self.records_count += 1;
        let looks = self.records_count.is_multiple_of(RECORDS_BETWEEN_LOOKS);
        let replay = &mut self.replay;
        let applied = if looks && !self.reserve.is_left_alone() {
            Err("the volume has no room for it".to_owned())
        } else {
            guarded(|| index.apply(scanned.into(), Some(replay)))
        };
        if let Err(why) = applied {
            self.fail(why);
        }
    }

    /// Whether it can still succeed.
    pub(super) fn is_possible(&self) -> bool {
        self.index.is_ok()
    }

    /// The index, and where the contents lie that are needed still.
    ///
    /// # Errors
    /// Why there is none; then nothing is left of it.
    pub(super) fn finish(mut self) -> Result<(Index, BTreeMap<Id, Location>), String> {
        let finished = match &self.index {
            Ok(index) => guarded(|| index.finish(&self.replay).and_then(|()| index.tally())),
            Err(why) => Err(why.clone()),
        };
        match finished {
            Ok(contents) => self.take().map(|index| (index, contents)),
            Err(why) => {
                self.fail(why.clone());
                Err(why)
            }
        }
    }

    /// Gives it up; nothing is left of it.
    pub(super) fn fail(&mut self, why: String) {
        if let Ok(index) = std::mem::replace(&mut self.index, Err(why)) {
            discard(index, &self.folder);
        }
    }

    fn take(&mut self) -> Result<Index, String> {
        std::mem::replace(&mut self.index, Err("it was taken".to_owned()))
    }
}

impl Drop for Making<'_> {
    /// The start was given up for another reason.
    fn drop(&mut self) {
        if let Ok(index) = self.take() {
            let_go(index);
        }
    }
}

/// Opens an index that was closed cleanly; answers also where the contents lie that are needed.
pub(super) fn open_whole(folder: &Path) -> Result<(Index, BTreeMap<Id, Location>), String> {
    guarded(|| {
        let index = Index::open(folder)?;
        let contents = index.tally()?;
        Ok((index, contents))
    })
}

/// Takes away an index that nobody reads any more, and its files.
pub(super) fn discard(index: Index, folder: &Path) {
    let_go(index);
    remove_files(folder);
}

/// Ends an index: it writes what it still has, and panics when that fails.
pub(super) fn let_go(index: Index) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(index)));
}

/// Writes everything out. Without it, the next start makes the index again.
pub(super) fn close(index: Index) -> Result<(), String> {
    guarded(|| index.close())
}

fn remove_files(folder: &Path) {
    if let Err(error) = throw_away(folder) {
        tracing::warn!(%error, index = %folder.display(), "cannot remove the files of an index");
    }
}

/// Removes the files of an index; where there are none, that is fine.
fn throw_away(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// sled may panic, on damaged files and on a disk that fails.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}
