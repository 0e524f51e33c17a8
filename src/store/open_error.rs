//! Why a folder is not opened, told to a person with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::migrations::SCHEMA;
use crate::queue::store::StoreError;

/// Why a folder was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error("the data folder {folder} is in use by {holder}")]
    InUse {
        /// Which folder.
        folder: PathBuf,
        /// What the lock says of its holder.
        holder: String,
    },
    /// There is nothing to look at.
    #[error("there is no store in {folder}: name the data folder of a server")]
    NoStore {
        /// Which folder.
        folder: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the store has schema {schema}, and this program knows schemas up to {SCHEMA}: \
             start the newer program, or restore a backup"
    )]
    Newer {
        /// The schema found.
        schema: u16,
    },
    /// There is something, but no store of ours.
    #[error(
        "{file} is unreadable and no journal tells whose store this is: \
             choose an empty folder, or restore a backup"
    )]
    NotOurs {
        /// Which file, relative to the data folder.
        file: PathBuf,
    },
    /// A segment belongs to another store.
    #[error("{file} belongs to store {other}, not to {store}: take it out of the folder")]
    Foreign {
        /// Which file.
        file: PathBuf,
        /// Whose folder this is.
        store: Uuid,
        /// Whose segment it is.
        other: Uuid,
    },
    /// The store has an identity, and its mail is gone.
    #[error(
        "the store has an identity but no journal, neither journal/0000000001.seg nor a later \
         segment: restore it from a backup, or choose an empty folder"
    )]
    JournalMissing,
    /// A part of the journal is gone.
    #[error(
        "segments from {first} on are missing before {next}, {count} in all: restore them from a \
         backup, or create empty files of these names to go on without what they held"
    )]
    SegmentsMissing {
        /// The first of them.
        first: PathBuf,
        /// How many.
        count: u64,
        /// The segment that follows.
        next: PathBuf,
    },
    /// The end of the journal is gone.
    #[error(
        "{file} ends at offset {bytes} and was closed at offset {closed_at}: restore it from a \
             backup, or remove index.clean to go on with what is left"
    )]
    Short {
        /// The last segment.
        file: PathBuf,
        /// Its length.
        bytes: u64,
        /// Its length when the store was closed.
        closed_at: u64,
    },
    /// The operating system refused.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The index could not be made.
    #[error(transparent)]
    Index(#[from] StoreError),
}

impl OpenError {
    pub(super) fn io(what: &'static str, path: &Path, error: &io::Error) -> Self {
        let error = io::Error::new(error.kind(), error.to_string());
        Self::Io { what, path: path.to_owned(), error }
    }

    /// Whether a file was gone that had been there just before.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}
