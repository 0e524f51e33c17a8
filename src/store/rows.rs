//! The rows of the index: what is remembered of one notification.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::Tree;
use uuid::Uuid;

use super::codec::{decode, encode};
use super::journal::Location;
use crate::core::job::{Job, JobId, Progress};
use crate::core::notification::{Address, NotificationId};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::migrations::latest::{self, Id, Record, State};
use crate::queue::store::StoreError;

pub(super) type Applied<T> = Result<T, StoreError>;

/// A notification with all its jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// First, as [`Head`] has it.
    pub(super) location: Location,
    pub(super) notification: latest::Notification,
    pub(super) key: Option<latest::Key>,
    /// Those that are remembered.
    pub(super) jobs: Vec<JobRow>,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRow {
    pub(super) id: Id,
    pub(super) progress: latest::Progress,
    /// The sequence of the last record that changed it.
    pub(super) sequence: u64,
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
        let jobs = notification.jobs.iter().map(|(id, _)| JobRow {
            id: *id,
            progress: fresh(&notification, deadline),
            sequence,
            last_attempt: None,
        });
        Self { location, jobs: jobs.collect(), notification, key }
    }

    pub(super) fn id(&self) -> &Id {
        &self.notification.id
    }

    pub(super) fn job(&self, id: &Id) -> Option<&JobRow> {
        self.jobs.iter().find(|job| job.id == *id)
    }

    pub(super) fn job_mut(&mut self, id: &Id) -> Option<&mut JobRow> {
        self.jobs.iter_mut().find(|job| job.id == *id)
    }

    /// Whether any job of it is queued or dead.
    pub(super) fn needs_content(&self) -> bool {
        self.jobs.iter().any(|job| ended_at(&job.progress).is_none())
    }

    /// Whether nothing of it is remembered any more.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.jobs.is_empty()
    }

    /// One of its jobs, as it is told.
    pub(super) fn live(&self, job: &JobRow) -> LiveJob {
        let Self { notification, .. } = self;
        let recipient = notification.jobs.iter().find(|(listed, _)| *listed == job.id);
        LiveJob {
            id: job.id,
            notification: notification.id,
            recipient: recipient.map(|(_, to)| to.clone()).unwrap_or_default(),
            accepted_at: notification.accepted_at,
            trace: notification.trace.clone(),
            progress: job.progress.clone(),
        }
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
pub(super) fn fresh(notification: &latest::Notification, deadline: u64) -> latest::Progress {
    latest::Progress {
        state: State::Queued { due: notification.accepted_at },
        chain: notification.chain.clone(),
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

pub(super) fn read<T: DeserializeOwned>(value: &[u8]) -> Applied<T> {
    decode(value).map_err(|error| StoreError::Stopped(format!("a row of the index: {error}")))
}

/// The id that a value or a part of a key is.
pub(super) fn id(bytes: &[u8]) -> Applied<Id> {
    let unfit = |_| StoreError::Stopped("a row of the index: it is no id".to_owned());
    bytes.try_into().map_err(unfit)
}

pub(super) fn broken(error: sled::Error) -> StoreError {
    StoreError::Stopped(format!("the index failed: {error}"))
}
