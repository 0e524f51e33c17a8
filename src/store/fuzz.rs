//! What holds for any bytes in place of a segment of the journal.

use std::path::Path;

use super::OpenError;
use super::codec::encode;
use super::entry::Scanned;
use super::frame::{Encoded, Frame, HEADER_BYTES, MAGIC};
use super::scan::Scan;
use super::segment::{SEGMENT_HEADER_BYTES, parse_segment_header};
use crate::core::job::{Attempt, Progress};
use crate::core::notification::{Content, Notification};
use crate::migrations::{self, SCHEMA, latest};

/// Reads `bytes` as a segment: as they are, and with the checksums that would make them sound.
///
/// # Panics
/// When a record is read that would be written otherwise, or is left out without a word.
pub fn segment(bytes: &[u8]) {
    let _ = parse_segment_header(bytes);
    let sealed = sealed(bytes);
    read(bytes, 0);
    read(&sealed, 0);
    // As where another segment follows: then all of it had been synced.
    read(&sealed, u64::MAX);
}

fn read(bytes: &[u8], synced: u64) {
    let (mut damage, mut sequence, mut records_count) = (Vec::new(), 0, 0);
    let mut scan = Scan {
        path: Path::new("journal/0000000001.seg"),
        segment: 1,
        bytes,
        sequence,
        knows_sequence: false,
        synced,
    };
    let end = scan.run(None, &mut damage, &mut |scanned| {
        assert!(scanned.sequence > sequence, "records come in order");
        sequence = scanned.sequence;
        records_count += 1;
        record(bytes, &scanned);
        Ok(())
    });
    let end = match end {
        Ok(end) => usize::try_from(end).expect("a place in the segment"),
        Err(OpenError::Newer { .. }) => return,
        Err(error) => panic!("only a newer schema keeps a segment from being read: {error}"),
    };
    assert!(end <= bytes.len());
    let is_room = synced == u64::MAX && bytes[end..].iter().all(|byte| *byte == 0);
    let is_torn = end < bytes.len() && damage.is_empty() && !is_room;
    assert!(
        !is_torn || !scan.knows_sequence || scan.synced <= scan.sequence,
        "what was acknowledged is never taken for a torn end"
    );
    assert!(
        records_count + damage.len() >= sound_frames_count(bytes),
        "a sound frame is read or told of"
    );
}

/// The frames that follow each other from the beginning without a fault.
fn sound_frames_count(bytes: &[u8]) -> usize {
    let (mut at, mut sequence, mut count) = (SEGMENT_HEADER_BYTES, 0, 0);
    while let Some(frame) = bytes.get(at..).and_then(Frame::parse) {
        if !frame.content_is_sound() || frame.sequence <= sequence {
            break;
        }
        sequence = frame.sequence;
        at += frame.bytes();
        count += 1;
    }
    count
}

/// A record that was read is written again as the bytes that it was read from.
fn record(bytes: &[u8], scanned: &Scanned) {
    let location = scanned.location;
    let frame = Frame::parse(&bytes[location.offset as usize..])
        .expect("a record is read from a sound frame");
    let content =
        migrations::content(frame.schema, frame.content).ok().filter(|_| frame.content_is_sound());
    let mut again = Encoded::new(&scanned.record, content.as_ref());
    again.seal(frame.sequence, frame.synced);
    let read = Frame::parse(again.frame()).expect("what is written can be read");
    assert_eq!((read.sequence, read.synced), (frame.sequence, frame.synced));
    if frame.schema == SCHEMA {
        assert_eq!(read.record, frame.record, "a record has one form");
    } else {
        let again = migrations::record(SCHEMA, read.record).expect("it is of the latest schema");
        assert_eq!(again, scanned.record, "an old record keeps its meaning in the latest schema");
    }
    if let Some(content) = content {
        assert_eq!(encode(&content), frame.content, "a content has one form");
        keeps_its_meaning::<Content, _>(content);
    }
    match scanned.record.clone() {
        latest::Record::Accepted(accepted) => {
            keeps_its_meaning::<Notification, _>(accepted.notification);
        }
        latest::Record::Updated(updated) => {
            keeps_its_meaning::<Progress, _>(updated.progress);
            updated.attempt.into_iter().for_each(keeps_its_meaning::<Attempt, _>);
        }
        latest::Record::Carried(carried) => {
            keeps_its_meaning::<Notification, _>(carried.notification);
            for job in carried.jobs {
                keeps_its_meaning::<Progress, _>(job.progress);
                job.attempts.into_iter().for_each(keeps_its_meaning::<Attempt, _>);
            }
        }
        latest::Record::JobForgotten(_) | latest::Record::KeyForgotten(_) => {}
    }
}

/// What has a meaning has the same one when it is stored again.
fn keeps_its_meaning<Meant, Stored>(stored: Stored)
where
    Meant: TryFrom<Stored> + PartialEq + Clone,
    Stored: From<Meant>,
{
    if let Ok(meant) = Meant::try_from(stored) {
        assert!(Meant::try_from(Stored::from(meant.clone())).is_ok_and(|again| again == meant));
    }
}

/// The same bytes with the right checksums in each frame, but where its zero bytes are not zero:
/// no search guesses a checksum.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let record_end = at + HEADER_BYTES + length_at(8);
        let end = record_end + length_at(12);
        if header[..4] != MAGIC || header[6..8] != [0, 0] || end > bytes.len() {
            at += 1;
            continue;
        }
        let content_checksum = crc32c::crc32c(&bytes[record_end..end]);
        sealed[at + 32..at + 36].copy_from_slice(&content_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&sealed[at..at + 36]);
        let checksum = crc32c::crc32c_append(checksum, &bytes[at + HEADER_BYTES..record_end]);
        sealed[at + 36..at + 40].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
    sealed
}
