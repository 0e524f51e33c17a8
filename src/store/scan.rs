//! Reading one segment: which frames are sound, what is damage, and what is a torn end.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::OpenError;
use super::entry::Scanned;
use super::frame::{Frame, MAGIC, location};
use super::journal::OFFSET_MAX;
use super::recover::{Damage, relative};
use super::segment::{SEGMENT_HEADER_BYTES, sync_folder};
use crate::migrations::{self, DecodeError};

/// One segment being read.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) path: &'a Path,
    pub(super) segment: u64,
    pub(super) bytes: &'a [u8],
    /// The last one read.
    pub(super) sequence: u64,
    /// Whether the next one has to be the one after it: not where older segments were freed.
    pub(super) knows_sequence: bool,
    /// Up to here all records are known to have been on stable storage.
    pub(super) synced: u64,
}

impl<'a> Scan<'a> {
    /// Answers where the sound part of the segment ends. What cannot be read is copied aside in
    /// `folder`, if one is given.
    pub(super) fn run(
        &mut self,
        folder: Option<&Path>,
        damage: &mut Vec<Damage>,
        visit: &mut impl FnMut(Scanned) -> Result<(), OpenError>,
    ) -> Result<u64, OpenError> {
        self.synced = self.synced.max(self.synced_by_frames());
        let mut at = SEGMENT_HEADER_BYTES.min(self.bytes.len());
        loop {
            let Some((found, frame)) = self.next_frame(at) else {
                if self.synced > self.sequence && !self.is_room(at) {
                    self.set_aside(folder, at, self.bytes.len(), "no record", damage)?;
                }
                return Ok(at as u64);
            };
            let next_expected = self.sequence + 1;
            if found > at && self.synced < next_expected {
                return Ok(at as u64);
            }
            if found > at {
                self.set_aside(folder, at, found, "no record", damage)?;
            } else if self.knows_sequence && frame.sequence > next_expected {
                let what = format!("records {next_expected} to {} are missing", frame.sequence - 1);
                damage.push(self.damage(at, what));
            }
            let end = found + frame.bytes();
            if !frame.content_is_sound() && self.synced < frame.sequence {
                return Ok(at as u64);
            }
            self.sequence = frame.sequence;
            self.knows_sequence = true;
            match self.decode(found, &frame) {
                Ok(scanned) => {
                    if !frame.content_is_sound() {
                        let why = "the content does not match its checksum";
                        self.set_aside(folder, end - frame.content.len(), end, why, damage)?;
                    }
                    visit(scanned)?;
                }
                Err(DecodeError::Newer(schema)) => return Err(OpenError::Newer { schema }),
                Err(error) => self.set_aside(folder, found, end, &error.to_string(), damage)?,
            }
            at = end;
        }
    }

    /// Whether there is nothing from `at` on but what was never written over. What is missing where the
    /// last record is known, is no room.
    fn is_room(&self, at: usize) -> bool {
        let rest = &self.bytes[at..];
        rest.is_empty() || (self.synced == u64::MAX && rest.iter().all(|byte| *byte == 0))
    }

    /// The greatest `synced` of the segment: what was acknowledged before any of its frames was
    /// written. The frames of one batch all carry the end of the batch before.
    fn synced_by_frames(&self) -> u64 {
        let (mut rest, mut at, mut synced) = (*self, 0, 0);
        while let Some((found, frame)) = rest.next_frame(at) {
            synced = frame.synced.max(synced);
            rest.sequence = frame.sequence;
            at = found + frame.bytes();
        }
        synced
    }

    /// The first sound frame from `at` on that is newer than the last one.
    fn next_frame(&self, mut at: usize) -> Option<(usize, Frame<'a>)> {
        while at < self.bytes.len() && at as u64 <= OFFSET_MAX {
            let frame = Frame::parse(&self.bytes[at..]).filter(|f| f.sequence > self.sequence);
            if let Some(frame) = frame {
                return Some((at, frame));
            }
            let rest = &self.bytes[at + 1..];
            at += 1 + rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)?;
        }
        None
    }

    fn decode(&self, at: usize, frame: &Frame<'_>) -> Result<Scanned, DecodeError> {
        let record = migrations::record(frame.schema, frame.record)?;
        let content_bytes = frame.content.len();
        let location =
            location(self.segment, at as u64, frame.bytes() - content_bytes, content_bytes);
        Ok(Scanned { sequence: frame.sequence, record, location })
    }

    /// Keeps unreadable bytes under `aside/`, by segment and offset.
    pub(super) fn set_aside(
        &self,
        folder: Option<&Path>,
        from: usize,
        to: usize,
        why: &str,
        damage: &mut Vec<Damage>,
    ) -> Result<(), OpenError> {
        if let Some(folder) = folder {
            let path = folder.join("aside").join(format!("{:010}-{from}.bytes", self.segment));
            keep(&path, &self.bytes[from..to]).map_err(|e| OpenError::io("write", &path, &e))?;
        }
        damage.push(self.damage(from, format!("{} bytes are unreadable: {why}", to - from)));
        Ok(())
    }

    fn damage(&self, offset: usize, what: String) -> Damage {
        Damage { file: relative(self.path), offset: offset as u64, what }
    }
}

/// Writes bytes that are about to go from their place, so that they survive a power cut there.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(folder)
}
