//! The rows of the index: what is remembered of one notification.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::Tree;
use uuid::Uuid;

use super::journal::Location;
use crate::core::job::{Job, JobId, Progress};
use crate::core::notification::{Address, NotificationId};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::migrations::latest::{self, Id, Record, State};
use crate::queue::store::StoreError;

pub(super) type Applied<T> = Result<T, StoreError>;

/// Most values are not longer.
const VALUE_BYTES: usize = 256;

/// A notification with all its jobs: what these need to be delivered and found. What only its readers
/// want lies in its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// First, as [`Head`] has it.
    pub(super) location: Location,
    pub(super) id: Id,
    /// The number of the record that brought it in; like `deadline`, of no use when all its jobs moved.
    pub(super) sequence: u64,
    pub(super) accepted_at: u64,
    /// Of its jobs, as long as they stand as they were accepted.
    pub(super) deadline: u64,
    pub(super) chain: Vec<String>,
    pub(super) trace: Option<latest::Trace>,
    pub(super) key: Option<latest::Key>,
    /// Those that are remembered.
    pub(super) jobs: Vec<JobRow>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRow {
    pub(super) id: Id,
    pub(super) recipient: String,
    /// None while it stands as it was accepted.
    pub(super) change: Option<JobChange>,
}

/// Where a job stands that has moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobChange {
    /// Of the last record that changed it.
    pub(super) sequence: u64,
    pub(super) progress: latest::Progress,
    /// Most jobs have only this one; those before it lie apart, so that a job that was tried very
    /// often is not written whole each time.
    pub(super) last_attempt: Option<latest::Attempt>,
}

/// What a row begins with on disk.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Head {
    pub(super) location: Location,
    pub(super) id: Id,
}

/// A job that is queued or dead, as a store that opens tells of it.
pub(super) struct LiveJob {
    pub(super) id: Id,
    pub(super) notification: Id,
    pub(super) recipient: String,
    pub(super) accepted_at: u64,
    pub(super) trace: Option<latest::Trace>,
    pub(super) progress: latest::Progress,
}

impl Row {
    /// As it is accepted.
    pub(super) fn new(accepted: latest::Accepted, sequence: u64, location: Location) -> Self {
        let latest::Accepted { notification, deadline, key } = accepted;
        let latest::Notification { id, accepted_at, chain, jobs, trace, .. } = notification;
        let job = |(id, recipient)| JobRow { id, recipient, change: None };
        let jobs = jobs.into_iter().map(job).collect();
        Self { location, id, sequence, accepted_at, deadline, chain, trace, key, jobs }
    }

    pub(super) fn job(&self, id: &Id) -> Option<&JobRow> {
        self.jobs.iter().find(|job| job.id == *id)
    }

    pub(super) fn job_mut(&mut self, id: &Id) -> Option<&mut JobRow> {
        self.jobs.iter_mut().find(|job| job.id == *id)
    }

    /// Whether any job of it is queued or dead.
    pub(super) fn needs_content(&self) -> bool {
        self.jobs.iter().any(|job| job.ended_at().is_none())
    }

    /// Whether nothing of it is remembered any more.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.jobs.is_empty()
    }

    /// What is known of the notification without its record.
    pub(super) fn notification(&self) -> latest::Notification {
        let jobs = self.jobs.iter().map(|job| (job.id, job.recipient.clone()));
        latest::Notification {
            id: self.id,
            subject: String::new(),
            accepted_at: self.accepted_at,
            expires_at: None,
            chain: self.chain.clone(),
            warnings: Vec::new(),
            jobs: jobs.collect(),
            trace: self.trace.clone(),
        }
    }

    /// Where one of its jobs stands.
    pub(super) fn progress(&self, job: &JobRow) -> latest::Progress {
        match &job.change {
            Some(change) => change.progress.clone(),
            None => fresh(self.chain.clone(), self.accepted_at, self.deadline),
        }
    }

    /// The number of the last record that changed one of its jobs.
    pub(super) fn changed_by(&self, job: &JobRow) -> u64 {
        job.change.as_ref().map_or(self.sequence, |change| change.sequence)
    }

    /// One of its jobs, as it is told.
    pub(super) fn live(&self, job: &JobRow) -> LiveJob {
        LiveJob {
            id: job.id,
            notification: self.id,
            recipient: job.recipient.clone(),
            accepted_at: self.accepted_at,
            trace: self.trace.clone(),
            progress: self.progress(job),
        }
    }
}

impl JobRow {
    /// When it was delivered or cancelled.
    pub(super) fn ended_at(&self) -> Option<u64> {
        ended_at(&self.change.as_ref()?.progress)
    }

    pub(super) fn last_attempt(&self) -> Option<&latest::Attempt> {
        self.change.as_ref()?.last_attempt.as_ref()
    }
}

/// Turns what is on disk into jobs. Chains that are alike become one in memory, and so do recipients:
/// of a million jobs most are for the same few people.
#[derive(Default)]
pub(super) struct Jobs {
    chains: HashMap<Vec<String>, Arc<[ProviderName]>>,
    recipients: HashMap<String, Address>,
}

/// With more recipients than this, they are not the same few.
const RECIPIENTS_MAX: usize = 1 << 12;

impl Jobs {
    /// # Errors
    /// When the row holds what no job has.
    pub(super) fn job(&mut self, from: LiveJob) -> Result<Job, StoreError> {
        let unreadable = |why: String| StoreError::Unreadable(format!("a job: {why}"));
        let names = from.progress.chain.clone();
        let mut progress = Progress::try_from(from.progress).map_err(unreadable)?;
        progress.chain = self.chains.entry(names).or_insert(progress.chain).clone();
        let recipient = match self.recipients.get(&from.recipient) {
            Some(known) => known.clone(),
            None => Address::parse(&from.recipient).map_err(|rule| unreadable(rule.to_owned()))?,
        };
        if self.recipients.len() < RECIPIENTS_MAX {
            self.recipients.entry(from.recipient).or_insert_with(|| recipient.clone());
        }
        Ok(Job {
            id: JobId(Uuid::from_bytes(from.id)),
            notification: NotificationId(Uuid::from_bytes(from.notification)),
            recipient,
            accepted_at: Time(from.accepted_at),
            trace: from.trace.map(TryInto::try_into).transpose().map_err(unreadable)?.map(Arc::new),
            progress,
        })
    }
}

/// A job as it is accepted.
pub(super) fn fresh(chain: Vec<String>, accepted_at: u64, deadline: u64) -> latest::Progress {
    latest::Progress {
        state: State::Queued { due: accepted_at },
        chain,
        position: 0,
        attempts_here: 0,
        attempts_all: 0,
        redrives: 0,
        deadline,
    }
}

/// When a job was delivered or cancelled.
pub(super) fn ended_at(progress: &latest::Progress) -> Option<u64> {
    match progress.state {
        State::Delivered { at } | State::Cancelled { at } => Some(at),
        State::Queued { .. } | State::Dead { .. } => None,
    }
}

pub(super) fn attempt_key(job: &Id, number: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(job);
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The key of what a record forgets.
pub(super) fn outlived_key(forgets: &Record) -> Vec<u8> {
    encode(forgets)
}

/// The record that forgets what such a key stands for.
pub(super) fn outlived(key: &[u8]) -> Applied<Record> {
    read(key)
}

pub(super) fn insert(tree: &Tree, key: &[u8], value: &[u8]) -> Applied<()> {
    tree.insert(key, value).map(drop).map_err(broken)
}

pub(super) fn remove(tree: &Tree, key: &[u8]) -> Applied<()> {
    tree.remove(key).map(drop).map_err(broken)
}

/// A value of the index, small: an integer takes as many bytes as it needs.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .expect("rows hold only lengths, integers, strings and options, which always encode");
    bytes
}

/// Reads one; it may be the beginning of another one.
pub(super) fn read<T: DeserializeOwned>(value: &[u8]) -> Applied<T> {
    let decoded = bincode::serde::decode_from_slice(value, bincode::config::standard());
    let failed = |error| StoreError::Stopped(format!("a row of the index: {error}"));
    decoded.map(|(value, _)| value).map_err(failed)
}

/// The id that a value or a part of a key is.
pub(super) fn id(bytes: &[u8]) -> Applied<Id> {
    let unfit = |_| StoreError::Stopped("a row of the index: it is no id".to_owned());
    bytes.try_into().map_err(unfit)
}

pub(super) fn broken(error: sled::Error) -> StoreError {
    StoreError::Stopped(format!("the index failed: {error}"))
}
