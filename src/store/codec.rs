//! Frames and bodies: what one record looks like in the journal.
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

use super::journal::Location;
use crate::core::job::{Attempt, AttemptOutcome, DeadReason, JobState, Progress};
use crate::core::notification::{Address, Content, Notification, NotificationId};
use crate::core::outcome::{Reply, Stage};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::core::trace::TraceContext;
use crate::migrations::{SCHEMA, latest};
use crate::queue::store::IdempotencyKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The length of a frame's header.
pub(super) const HEADER_BYTES: usize = 40;
/// The first bytes of each frame.
pub(super) const MAGIC: [u8; 4] = *b"BGM\n";
/// No record and no content is larger: a length beyond it is damage.
const BODY_BYTES_MAX: u32 = 64 << 20;

/// A body and its content, encoded, before they have a sequence number.
#[derive(Clone)]
pub(super) struct Encoded {
    record: Vec<u8>,
    content: Vec<u8>,
    content_checksum: u32,
}

impl Encoded {
    pub(super) fn new(record: &latest::Record, content: Option<&latest::Content>) -> Self {
        let content = content.map(encode).unwrap_or_default();
        let content_checksum = crc32c::crc32c(&content);
        Self { record: encode(record), content, content_checksum }
    }

    /// Where its frame lies once it begins at `offset` of a segment.
    pub(super) fn location(&self, segment: u64, offset: u64) -> Location {
        location(segment, offset, HEADER_BYTES + self.record.len(), self.content.len())
    }

    pub(super) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.record.len() + self.content.len()
    }

    /// Appends the frame to `buffer`.
    pub(super) fn write(&self, sequence: u64, synced: u64, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&SCHEMA.to_le_bytes());
        buffer.extend_from_slice(&[0; 2]);
        buffer.extend_from_slice(&length(&self.record));
        buffer.extend_from_slice(&length(&self.content));
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(&synced.to_le_bytes());
        buffer.extend_from_slice(&self.content_checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&buffer[start..]), &self.record);
        buffer.extend_from_slice(&checksum.to_le_bytes());
        buffer.extend_from_slice(&self.record);
        buffer.extend_from_slice(&self.content);
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

/// A body in the latest schema.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::legacy())
        .expect("records hold only lengths, integers, strings and options, which always encode")
}

/// A value of the index, which is never older than the program that reads it.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let decoded = bincode::serde::decode_from_slice(bytes, bincode::config::legacy());
    decoded.map(|(value, _)| value).map_err(|error| error.to_string())
}

fn names(chain: &[ProviderName]) -> Vec<String> {
    chain.iter().map(ToString::to_string).collect()
}

fn chain(names: Vec<String>) -> Result<Arc<[ProviderName]>, String> {
    if names.is_empty() {
        return Err("a chain is empty".to_owned());
    }
    let parse =
        |name: String| ProviderName::new(&name).ok_or(format!("{name:?} names no provider"));
    names.into_iter().map(parse).collect()
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|rule| format!("an address {rule}"))
}

impl From<&Notification> for latest::Notification {
    fn from(from: &Notification) -> Self {
        let jobs = from.jobs.iter().map(|(id, to)| (*id.0.as_bytes(), to.to_string())).collect();
        Self {
            id: *from.id.0.as_bytes(),
            subject: from.subject.clone(),
            accepted_at: from.accepted_at.0,
            expires_at: from.expires_at.map(|time| time.0),
            chain: names(&from.chain),
            warnings: from.warnings.clone(),
            jobs,
            trace: from.trace.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<latest::Notification> for Notification {
    type Error = String;

    fn try_from(from: latest::Notification) -> Result<Self, String> {
        let job = |(id, to): (latest::Id, String)| {
            Ok((crate::core::job::JobId(Uuid::from_bytes(id)), address(&to)?))
        };
        Ok(Self {
            id: NotificationId(Uuid::from_bytes(from.id)),
            subject: from.subject,
            accepted_at: Time(from.accepted_at),
            expires_at: from.expires_at.map(Time),
            chain: chain(from.chain)?,
            warnings: from.warnings,
            jobs: from.jobs.into_iter().map(job).collect::<Result<_, String>>()?,
            trace: from.trace.map(TryInto::try_into).transpose()?.map(Arc::new),
        })
    }
}

impl From<&TraceContext> for latest::Trace {
    fn from(from: &TraceContext) -> Self {
        Self {
            trace_id: from.trace_id(),
            span_id: from.span_id(),
            flags: from.flags(),
            state: from.state().to_owned(),
        }
    }
}

impl TryFrom<latest::Trace> for TraceContext {
    type Error = String;

    fn try_from(from: latest::Trace) -> Result<Self, String> {
        let read = Self::new(from.trace_id, from.span_id, from.flags, &from.state);
        read.ok_or_else(|| "a trace has no id".to_owned())
    }
}

impl From<&Content> for latest::Content {
    fn from(from: &Content) -> Self {
        Self {
            subject: from.subject.clone(),
            html: from.html.clone(),
            text: from.text.clone(),
            reply_to: from.reply_to.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<latest::Content> for Content {
    type Error = String;

    fn try_from(from: latest::Content) -> Result<Self, String> {
        let reply_to = from.reply_to.as_deref().map(address).transpose()?;
        Ok(Self { subject: from.subject, html: from.html, text: from.text, reply_to })
    }
}

impl From<&IdempotencyKey> for latest::Key {
    fn from(from: &IdempotencyKey) -> Self {
        Self { key: from.key.clone(), fingerprint: from.fingerprint }
    }
}

impl From<&Progress> for latest::Progress {
    fn from(from: &Progress) -> Self {
        let state = match &from.state {
            JobState::Queued { due } => latest::State::Queued { due: due.0 },
            JobState::Dead { reason, at, detail } => latest::State::Dead {
                reason: (*reason).into(),
                at: at.0,
                detail: detail.to_string(),
            },
            JobState::Delivered { at } => latest::State::Delivered { at: at.0 },
            JobState::Cancelled { at } => latest::State::Cancelled { at: at.0 },
        };
        Self {
            state,
            chain: names(&from.chain),
            position: from.position,
            attempts_here: from.attempts_here,
            attempts_all: from.attempts_all,
            redrives: from.redrives,
            deadline: from.deadline.0,
        }
    }
}

impl TryFrom<latest::Progress> for Progress {
    type Error = String;

    fn try_from(from: latest::Progress) -> Result<Self, String> {
        let state = match from.state {
            latest::State::Queued { due } => JobState::Queued { due: Time(due) },
            latest::State::Dead { reason, at, detail } => {
                JobState::Dead { reason: reason.into(), at: Time(at), detail: detail.into() }
            }
            latest::State::Delivered { at } => JobState::Delivered { at: Time(at) },
            latest::State::Cancelled { at } => JobState::Cancelled { at: Time(at) },
        };
        let chain = chain(from.chain)?;
        if usize::from(from.position) >= chain.len() {
            return Err("a position is beyond its chain".to_owned());
        }
        Ok(Self {
            state,
            chain,
            position: from.position,
            attempts_here: from.attempts_here,
            attempts_all: from.attempts_all,
            redrives: from.redrives,
            deadline: Time(from.deadline),
        })
    }
}

impl From<&Attempt> for latest::Attempt {
    fn from(from: &Attempt) -> Self {
        let reply = from.reply.as_ref().map(|reply| latest::Reply {
            code: reply.code,
            enhanced: reply.enhanced,
            text: reply.text.clone(),
        });
        Self {
            number: from.number,
            at: from.at.0,
            provider: from.provider.to_string(),
            stage: from.stage.into(),
            outcome: from.outcome.into(),
            reply,
            message: from.message.clone(),
            duration_ms: u64::try_from(from.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl TryFrom<latest::Attempt> for Attempt {
    type Error = String;

    fn try_from(from: latest::Attempt) -> Result<Self, String> {
        let latest::Attempt { provider, .. } = &from;
        let name = ProviderName::new(provider).ok_or(format!("{provider:?} names no provider"))?;
        let reply = from.reply.map(|reply| Reply::new(reply.code, reply.enhanced, reply.text));
        Ok(Self {
            number: from.number,
            at: Time(from.at),
            provider: name,
            stage: from.stage.into(),
            outcome: from.outcome.into(),
            reply,
            message: from.message,
            duration: Duration::from_millis(from.duration_ms),
        })
    }
}

/// The enums whose variants have the same names on disk and in the domain.
macro_rules! same_variants {
    ($($domain:ident { $($variant:ident),* })*) => { $(
        impl From<$domain> for latest::$domain {
            fn from(from: $domain) -> Self {
                match from { $($domain::$variant => Self::$variant),* }
            }
        }

        impl From<latest::$domain> for $domain {
            fn from(from: latest::$domain) -> Self {
                match from { $(latest::$domain::$variant => Self::$variant),* }
            }
        }
    )* };
}

same_variants! {
    DeadReason { Rejected, Deferred, Unreachable, Expired, Internal }
    Stage { Prepare, Connect, Greeting, Ehlo, Tls, Auth, Mail, Rcpt, Data, Dot }
    AttemptOutcome { Delivered, Deferred, Rejected, Unreachable, Internal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_zero_bytes_where_no_text_has_them() {
        let mut bytes = Vec::new();
        let record = latest::Record::JobForgotten([7; 16]);
        Encoded::new(&record, None).write(1, 0, &mut bytes);
        assert!(Frame::parse(&bytes).is_some());
        bytes[6..8].copy_from_slice(b"no");
        let checksum = crc32c::crc32c(&bytes[..36]);
        let checksum = crc32c::crc32c_append(checksum, &bytes[HEADER_BYTES..]);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        assert!(Frame::parse(&bytes).is_none());
    }
}
