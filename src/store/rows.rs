//! The rows of the index and the keys that sort them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::Tree;
use uuid::Uuid;

use super::codec::{decode, encode};
use super::journal::Location;
use crate::migrations::latest::{self, Id, Record};
use crate::queue::store::StoreError;

pub(super) type Applied<T> = Result<T, StoreError>;

/// A notification and where its record and content lie.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct NotificationRow {
    pub(super) notification: latest::Notification,
    pub(super) key: Option<latest::Key>,
    pub(super) location: Location,
}

/// A job.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct JobRow {
    pub(super) notification: Id,
    pub(super) recipient: String,
    pub(super) accepted_at: u64,
    pub(super) trace: Option<latest::Trace>,
    pub(super) progress: latest::Progress,
    /// The sequence of the last record that changed it.
    pub(super) sequence: u64,
}

pub(super) fn ids(tree: &Tree, from: &[u8], to: &[u8], limit: usize) -> Applied<Vec<Uuid>> {
    let keys = tree.range(from..to).keys().take(limit);
    keys.map(|key| {
        let key = key.map_err(broken)?;
        Uuid::from_slice(key.get(8..).unwrap_or_default())
            .map_err(|error| StoreError::Stopped(format!("a key of the index: {error}")))
    })
    .collect()
}

pub(super) fn pair(number: u64, id: &Id) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(id);
    key
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

pub(super) fn put<T: Serialize>(tree: &Tree, key: &[u8], value: &T) -> Applied<()> {
    insert(tree, key, &encode(value))
}

pub(super) fn insert(tree: &Tree, key: &[u8], value: &[u8]) -> Applied<()> {
    tree.insert(key, value).map(drop).map_err(broken)
}

pub(super) fn remove(tree: &Tree, key: &[u8]) -> Applied<()> {
    tree.remove(key).map(drop).map_err(broken)
}

pub(super) fn get<T: DeserializeOwned>(tree: &Tree, key: &[u8]) -> Applied<Option<T>> {
    tree.get(key).map_err(broken)?.map(|value| read(&value)).transpose()
}

pub(super) fn read<T: DeserializeOwned>(value: &[u8]) -> Applied<T> {
    decode(value).map_err(|error| StoreError::Stopped(format!("a row of the index: {error}")))
}

pub(super) fn broken(error: sled::Error) -> StoreError {
    StoreError::Stopped(format!("the index failed: {error}"))
}
