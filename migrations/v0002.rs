//! Schema 2. Frozen: its bytes are on users' disks. A change of shape is a new file.
//!
//! A notification has the place in a trace that it was accepted at. All else is as in schema 1.

use serde::{Deserialize, Serialize};

use super::v0001;
pub use super::v0001::{
    Attempt, AttemptOutcome, CarriedJob, Content, DeadReason, Id, Key, Millis, Progress, Reply,
    Stage, State, Updated, content,
};

/// The number of this schema.
pub const SCHEMA: u16 = 2;

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
    /// The span that it was accepted in. None when schema 1 wrote it.
    pub trace: Option<Trace>,
}

/// A span and its trace (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The flags of `traceparent`.
    pub flags: u8,
    /// `tracestate`.
    pub state: String,
}

impl From<v0001::Record> for Record {
    fn from(from: v0001::Record) -> Self {
        match from {
            v0001::Record::Accepted(from) => Self::Accepted(Accepted {
                notification: from.notification.into(),
                deadline: from.deadline,
                key: from.key,
            }),
            v0001::Record::Updated(updated) => Self::Updated(updated),
            v0001::Record::JobForgotten(id) => Self::JobForgotten(id),
            v0001::Record::KeyForgotten(id) => Self::KeyForgotten(id),
            v0001::Record::Carried(from) => Self::Carried(Carried {
                as_of: from.as_of,
                notification: from.notification.into(),
                key: from.key,
                jobs: from.jobs,
            }),
        }
    }
}

impl From<v0001::Notification> for Notification {
    fn from(from: v0001::Notification) -> Self {
        Self {
            id: from.id,
            subject: from.subject,
            accepted_at: from.accepted_at,
            expires_at: from.expires_at,
            chain: from.chain,
            warnings: from.warnings,
            jobs: from.jobs,
            trace: None,
        }
    }
}

/// Reads a record; all of `bytes` must be used.
///
/// # Errors
/// What the decoder says.
pub fn record(bytes: &[u8]) -> Result<Record, String> {
    // The limit keeps a damaged length from asking for more memory than a frame can hold.
    let config = bincode::config::legacy().with_limit::<{ 64 << 20 }>();
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|error| error.to_string())?;
    if used == bytes.len() { Ok(value) } else { Err("bytes are left over".to_owned()) }
}
