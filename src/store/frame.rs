//! Frames: what one record looks like in the journal.
//!
//! ```text
//!  0  magic            4   "BGM\n"
//!  4  schema           2   which file of migrations/ reads the body
//!  6  zero             2
//!  8  record length    4
//! 12  content length   4   zero when the record has none
//! 16  sequence         8   one more than the frame before
//! 24  synced           8   the last sequence known to be on stable storage when this was written
//! 32  content checksum 4   CRC-32C
//! 36  checksum         4   CRC-32C of bytes 0 to 36 and the record
//! 40  record, then content
//! ```
//!
//! All integers are little endian. A frame that fails its checksum before one whose `synced` covers
//! it was acknowledged once: that is damage. Otherwise it is the torn end of an interrupted write.

use super::codec::encode_into;
use super::journal::Location;
use crate::migrations::{SCHEMA, latest};

/// The length of a frame's header.
pub(super) const HEADER_BYTES: usize = 40;
/// The first bytes of each frame.
pub(super) const MAGIC: [u8; 4] = *b"BGM\n";
/// Most records are not longer.
const RECORD_BYTES: usize = 512;
/// No record and no content is larger: a length beyond it is damage.
const BODY_BYTES_MAX: u32 = 64 << 20;

/// A frame, whole but for what is known only when it is written: its number and its checksum.
#[derive(Clone)]
pub(super) struct Encoded {
    frame: Vec<u8>,
    /// With the header.
    record_bytes: usize,
}

impl Encoded {
    pub(super) fn new(record: &latest::Record, content: Option<&latest::Content>) -> Self {
        let content_bytes = content.map_or(0, content_bytes_max);
        let mut frame = Vec::with_capacity(HEADER_BYTES + RECORD_BYTES + content_bytes);
        frame.resize(HEADER_BYTES, 0);
        encode_into(&mut frame, record);
        let record_bytes = frame.len();
        if let Some(content) = content {
            encode_into(&mut frame, content);
        }
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let lengths = [length(record_bytes - HEADER_BYTES), length(frame.len() - record_bytes)];
        let content_checksum = crc32c::crc32c(&frame[record_bytes..]);
        frame[..4].copy_from_slice(&MAGIC);
        frame[4..6].copy_from_slice(&SCHEMA.to_le_bytes());
        frame[8..16].copy_from_slice(lengths.as_flattened());
        frame[32..36].copy_from_slice(&content_checksum.to_le_bytes());
        Self { frame, record_bytes }
    }

    /// Where it lies once it begins at `offset` of a segment.
    pub(super) fn location(&self, segment: u64, offset: u64) -> Location {
        location(segment, offset, self.record_bytes, self.frame.len() - self.record_bytes)
    }

    /// Gives it its number, and notes up to which one all are known to be on stable storage.
    pub(super) fn seal(&mut self, sequence: u64, synced: u64) {
        let (record, _) = self.frame.split_at_mut(self.record_bytes);
        record[16..24].copy_from_slice(&sequence.to_le_bytes());
        record[24..32].copy_from_slice(&synced.to_le_bytes());
        let checksum = crc32c::crc32c(&record[..36]);
        let checksum = crc32c::crc32c_append(checksum, &record[HEADER_BYTES..]);
        record[36..40].copy_from_slice(&checksum.to_le_bytes());
    }

    /// All of it; whole once it is sealed.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }
}

/// The place of a frame.
pub(super) fn location(
    segment: u64,
    offset: u64,
    record_bytes: usize,
    content_bytes: usize,
) -> Location {
    const FITS: &str = "a segment has fewer bytes than 2^32, and a journal fewer segments";
    Location {
        segment: segment.try_into().expect(FITS),
        offset: offset.try_into().expect(FITS),
        record_bytes: record_bytes.try_into().expect(FITS),
        content_bytes: content_bytes.try_into().expect(FITS),
    }
}

/// A frame whose header and record are sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) schema: u16,
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) content_checksum: u32,
    pub(super) record: &'a [u8],
    pub(super) content: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`, when it is whole and its checksum holds.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let u32_at = |at: usize| u32::from_le_bytes(array(&header[at..]));
        let u64_at = |at: usize| u64::from_le_bytes(array(&header[at..]));
        let (record_bytes, content_bytes) = (u32_at(8), u32_at(12));
        // No text that we are given holds a zero byte. So none by itself passes for a header where
        // what is around it is damaged, nor has us compute checksums of megabytes in vain.
        let is_header = header[..4] == MAGIC && header[6..8] == [0, 0];
        if !is_header || record_bytes.max(content_bytes) > BODY_BYTES_MAX {
            return None;
        }
        let record_end = HEADER_BYTES + record_bytes as usize;
        let record = bytes.get(HEADER_BYTES..record_end)?;
        let content = bytes.get(record_end..record_end + content_bytes as usize)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..36]), record);
        (checksum == u32_at(36)).then(|| Self {
            schema: u16::from_le_bytes(array(&header[4..])),
            sequence: u64_at(16),
            synced: u64_at(24),
            content_checksum: u32_at(32),
            record,
            content,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.record.len() + self.content.len()
    }

    pub(super) fn content_is_sound(&self) -> bool {
        crc32c::crc32c(self.content) == self.content_checksum
    }
}

/// The schema and the record of a frame without its content, when they are sound.
pub(super) fn record_of(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (header, record) = frame.split_at_checked(HEADER_BYTES)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..36]), record);
    (checksum == u32::from_le_bytes(array(&header[36..])))
        .then(|| (u16::from_le_bytes(array(&header[4..])), record))
}

/// The schema and the content of a frame whose record has so many bytes with its header, when the
/// content is sound. The record need not be: it was read before.
pub(super) fn content_of(frame: &[u8], record_bytes: usize) -> Option<(u16, &[u8])> {
    let (record, content) = frame.split_at_checked(record_bytes)?;
    let header = record.get(..HEADER_BYTES)?;
    let checksum = u32::from_le_bytes(array(&header[32..]));
    (crc32c::crc32c(content) == checksum)
        .then(|| (u16::from_le_bytes(array(&header[4..])), content))
}

/// The first bytes of a slice that is known to be long enough.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn content_bytes_max(content: &latest::Content) -> usize {
    let latest::Content { subject, html, text, reply_to } = content;
    let texts = [Some(subject), html.as_ref(), text.as_ref(), reply_to.as_ref()];
    // Each is behind its length and what tells whether it is there.
    texts.map(|text| 9 + text.map_or(0, String::len)).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_zero_bytes_where_no_text_has_them() {
        let mut encoded = Encoded::new(&latest::Record::JobForgotten([7; 16]), None);
        encoded.seal(1, 0);
        let mut bytes = encoded.frame().to_vec();
        assert!(Frame::parse(&bytes).is_some());
        bytes[6..8].copy_from_slice(b"no");
        let checksum = crc32c::crc32c(&bytes[..36]);
        let checksum = crc32c::crc32c_append(checksum, &bytes[HEADER_BYTES..]);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        assert!(Frame::parse(&bytes).is_none());
    }
}
