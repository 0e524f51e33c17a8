//! Reading single frames of the journal, while others are written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::frame::{content_of, record_of};
use super::journal::Location;
use super::segment::segment_path;
use crate::migrations::{self, latest};
use crate::queue::store::StoreError;

/// So many segments are kept open for reading.
const FILES_MAX: usize = 8;

/// See the module.
pub(super) struct Frames {
    folder: PathBuf,
    files: Mutex<HashMap<u32, Arc<File>>>,
}

impl Frames {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, files: Mutex::default() }
    }

    /// The bytes of a content and their schema; `None` when the location holds none.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the bytes are damaged or gone, [`StoreError::Busy`] when
    /// the disk does not give them just now.
    pub(super) fn content(
        &self,
        location: &Location,
    ) -> Result<Option<(u16, Vec<u8>)>, StoreError> {
        if location.content_bytes == 0 {
            return Ok(None);
        }
        let frame = self.read(location, location.bytes());
        let frame = frame.map_err(|error| self.failed(location, &error))?;
        let content = content_of(&frame, location.record_bytes as usize);
        let (schema, bytes) = content
            .ok_or_else(|| self.unreadable(location, "the content does not match its checksum"))?;
        Ok(Some((schema, bytes.to_owned())))
    }

    /// The content, when the file is open and its bytes are in memory.
    pub(super) fn content_at_hand(&self, location: &Location) -> Option<latest::Content> {
        if location.content_bytes == 0 {
            return None;
        }
        let file = self.files().get(&location.segment)?.clone();
        let mut frame = vec![0; usize::try_from(location.bytes()).ok()?];
        let mut to = [IoSliceMut::new(&mut frame)];
        let offset = location.offset.into();
        let count = preadv2(&file, &mut to, offset, ReadWriteFlags::NOWAIT).ok()?;
        let (schema, bytes) = content_of(&frame[..count], location.record_bytes as usize)?;
        migrations::content(schema, bytes).ok()
    }

    /// The notification that the record of a row holds.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the bytes are damaged or gone or the disk cannot read them,
    /// [`StoreError::Busy`] when there is no way to them just now.
    pub(super) fn notification(
        &self,
        location: &Location,
    ) -> Result<latest::Notification, StoreError> {
        let frame = self.read(location, location.record_bytes.into());
        let frame = frame.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::IO) => self.unreadable(location, &error.to_string()),
            _ => self.failed(location, &error),
        })?;
        let (schema, record) = record_of(&frame)
            .ok_or_else(|| self.unreadable(location, "the record does not match its checksum"))?;
        let record = migrations::record(schema, record)
            .map_err(|error| self.unreadable(location, &error.to_string()))?;
        match record {
            latest::Record::Accepted(accepted) => Ok(accepted.notification),
            latest::Record::Carried(carried) => Ok(carried.notification),
            latest::Record::Updated(_)
            | latest::Record::JobForgotten(_)
            | latest::Record::KeyForgotten(_) => {
                Err(self.unreadable(location, "the record holds no notification"))
            }
        }
    }

    /// Its file is gone.
    pub(super) fn forget_segment(&self, segment: u64) {
        self.files().retain(|open, _| u64::from(*open) != segment);
    }

    fn read(&self, location: &Location, count: u64) -> io::Result<Vec<u8>> {
        let file = {
            let mut files = self.files();
            match files.get(&location.segment) {
                Some(file) => file.clone(),
                None => {
                    let file = File::open(self.path(location))?;
                    if files.len() >= FILES_MAX {
                        files.clear();
                    }
                    files.entry(location.segment).or_insert(Arc::new(file)).clone()
                }
            }
        };
        let count = usize::try_from(count).map_err(io::Error::other)?;
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, location.offset.into())?;
        Ok(bytes)
    }

    fn failed(&self, location: &Location, error: &io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::UnexpectedEof => {
                self.unreadable(location, &error.to_string())
            }
            _ => StoreError::Busy(format!("{}: {error}", self.place(location))),
        }
    }

    fn unreadable(&self, location: &Location, why: &str) -> StoreError {
        StoreError::Unreadable(format!("{}: {why}", self.place(location)))
    }

    fn place(&self, location: &Location) -> String {
        format!("{} at offset {}", self.path(location).display(), location.offset)
    }

    fn path(&self, location: &Location) -> PathBuf {
        segment_path(&self.folder, location.segment.into())
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u32, Arc<File>>> {
        // Changed by single steps that cannot panic half way.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
