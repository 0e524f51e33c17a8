//! Schema 1. Frozen: its bytes are on users' disks. A change of shape is a new file.
//!
//! Integers are little endian and of fixed width, a string is its length in 8 bytes and UTF-8, an
//! option one byte and its value, an enum its index in 4 bytes (bincode's legacy configuration).

use serde::{Deserialize, Serialize};

/// The number of this schema.
pub const SCHEMA: u16 = 1;

/// The 16 bytes of a UUID.
pub type Id = [u8; 16];

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A notification and all its jobs were accepted. Its content follows in the frame.
    Accepted(Accepted),
    /// A job moved on.
    Updated(Updated),
    /// A job left the history.
    JobForgotten(Id),
    /// The idempotency key of a notification left the history.
    KeyForgotten(Id),
    /// A notification as it stood, carried forward so that an old segment can go. Its content
    /// follows in the frame while a job needs it.
    Carried(Carried),
}

/// See [`Record::Accepted`]. Each job begins queued, due at `accepted_at`, at the chain's first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What was accepted.
    pub notification: Notification,
    /// The deadline of each job.
    pub deadline: Millis,
    /// The caller's idempotency key.
    pub key: Option<Key>,
}

/// See [`Record::Updated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// Which job.
    pub job: Id,
    /// Where it stands now.
    pub progress: Progress,
    /// The attempt that moved it.
    pub attempt: Option<Attempt>,
}

/// See [`Record::Carried`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The sequence number up to which the changes of its jobs are included.
    pub as_of: u64,
    /// The notification; its list of jobs is the one of its acceptance.
    pub notification: Notification,
    /// The idempotency key, while it is honoured.
    pub key: Option<Key>,
    /// The jobs that are still remembered.
    pub jobs: Vec<CarriedJob>,
}

/// One job of a carried notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedJob {
    /// Which job.
    pub job: Id,
    /// Where it stood.
    pub progress: Progress,
    /// All its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// A notification without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its name.
    pub id: Id,
    /// The subject, for lists.
    pub subject: String,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// The caller's own end of life.
    pub expires_at: Option<Millis>,
    /// The chain that was chosen.
    pub chain: Vec<String>,
    /// What the caller was told.
    pub warnings: Vec<String>,
    /// Its jobs and their recipients.
    pub jobs: Vec<(Id, String)>,
}

/// An idempotency key and the hash of its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key.
    pub key: String,
    /// SHA-256 of the request as it was meant.
    pub fingerprint: [u8; 32],
}

/// The changing part of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// The providers that it may use.
    pub chain: Vec<String>,
    /// Whose turn it is.
    pub position: u16,
    /// Attempts on that provider.
    pub attempts_here: u16,
    /// Attempts in all.
    pub attempts_all: u32,
    /// How often it came back from being parked.
    pub redrives: u16,
    /// From then on it is not delivered.
    pub deadline: Millis,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Waits until `due`.
    Queued {
        /// The earliest next attempt.
        due: Millis,
    },
    /// Given up.
    Dead {
        /// Why.
        reason: DeadReason,
        /// When.
        at: Millis,
        /// One sentence.
        detail: String,
    },
    /// At its end.
    Delivered {
        /// When.
        at: Millis,
    },
    /// Taken out.
    Cancelled {
        /// When.
        at: Millis,
    },
}

/// Why a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the domain, where they are explained")]
pub enum DeadReason {
    Rejected,
    Deferred,
    Unreachable,
    Expired,
    Internal,
}

/// One try over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub at: Millis,
    /// On which provider.
    pub provider: String,
    /// Where it ended.
    pub stage: Stage,
    /// What it learned.
    pub outcome: AttemptOutcome,
    /// The reply that decided it.
    pub reply: Option<Reply>,
    /// One sentence.
    pub message: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// Where in the dialogue an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the domain, where they are explained")]
pub enum Stage {
    Prepare,
    Connect,
    Greeting,
    Ehlo,
    Tls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Dot,
}

/// What an attempt learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the domain, where they are explained")]
pub enum AttemptOutcome {
    Delivered,
    Deferred,
    Rejected,
    Unreachable,
    Internal,
}

/// An SMTP reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The enhanced status code.
    pub enhanced: Option<[u16; 3]>,
    /// The text.
    pub text: String,
}

/// What the recipients read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The subject.
    pub subject: String,
    /// The HTML body.
    pub html: Option<String>,
    /// The plain text body.
    pub text: Option<String>,
    /// Where an answer goes.
    pub reply_to: Option<String>,
}

/// Reads a record; all of `bytes` must be used.
///
/// # Errors
/// What the decoder says.
pub fn record(bytes: &[u8]) -> Result<Record, String> {
    decode(bytes)
}

/// Reads a content; all of `bytes` must be used.
///
/// # Errors
/// What the decoder says.
pub fn content(bytes: &[u8]) -> Result<Content, String> {
    decode(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    // The limit keeps a damaged length from asking for more memory than a frame can hold.
    let config = bincode::config::legacy().with_limit::<{ 64 << 20 }>();
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|error| error.to_string())?;
    if used == bytes.len() { Ok(value) } else { Err("bytes are left over".to_owned()) }
}
