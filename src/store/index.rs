//! The sled database: every job's state, its attempts, the history and the idempotency keys.
//!
//! It follows the journal, off the path of an answer, and holds nothing that the journal does not:
//! whenever it is in doubt it is thrown away and made again by applying the journal from its
//! beginning, with the same code that applies each new record.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use sled::{Db, Tree};
use uuid::Uuid;

use super::carried::Replay;
use super::journal::{Location, Written};
use super::rows::{
    Applied, JobRow, NotificationRow, attempt_key, broken, get, ids, insert, outlived_key, pair,
    put, read, remove,
};
use crate::migrations::latest::{self, Id, Record, State};

/// A change of the rows is a new number: an index of another one is made again.
pub(super) const INDEX_VERSION: u32 = 3;

/// The trees and the tally of what is alive in each segment.
pub(super) struct Index {
    db: Db,
    /// Notification id to its row.
    pub(super) notifications: Tree,
    /// Job id to its row.
    pub(super) jobs: Tree,
    /// Job id and attempt number, big endian, to the attempt.
    pub(super) attempts: Tree,
    /// Idempotency key to notification id.
    pub(super) keys: Tree,
    /// Acceptance time, big endian, and notification id, of those with a key.
    pub(super) key_ages: Tree,
    /// End time, big endian, and job id.
    pub(super) ended: Tree,
    /// Segment, big endian, and notification id, of those whose record lies there.
    pub(super) segments: Tree,
    /// What was forgotten before a record that still carries it: jobs and keys, by `outlived_key`.
    pub(super) outlived: Tree,
    live_bytes: Mutex<BTreeMap<u64, u64>>,
}

impl Index {
    /// Opens or creates the database. sled may panic on damaged files: callers guard against it.
    pub(super) fn open(folder: &Path) -> Applied<Self> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(16 << 20)
            // Segment collection runs only in the flusher thread.
            .flush_every_ms(Some(1000));
        let db = config.open().map_err(broken)?;
        let tree = |name: &str| db.open_tree(name).map_err(broken);
        let index = Self {
            notifications: tree("notifications")?,
            jobs: tree("jobs")?,
            attempts: tree("attempts")?,
            keys: tree("keys")?,
            key_ages: tree("key_ages")?,
            ended: tree("ended")?,
            segments: tree("segments")?,
            outlived: tree("outlived")?,
            live_bytes: Mutex::default(),
            db,
        };
        Ok(index)
    }

    /// Goes through all notifications once: counts what is alive in each segment, and answers
    /// where the contents lie that are needed still.
    pub(super) fn tally(&self) -> Applied<HashMap<Id, Location>> {
        self.lock_live().clear();
        let mut contents = HashMap::new();
        for row in self.notifications.iter().values() {
            let row: NotificationRow = read(&row.map_err(broken)?)?;
            self.count(&row.location, 1);
            if row.location.content_bytes > 0 {
                contents.insert(row.notification.id, row.location);
            }
        }
        Ok(contents)
    }

    /// Writes everything out. Nothing may be applied after it.
    pub(super) fn close(self) -> Applied<()> {
        self.db.flush().map(drop).map_err(broken)
    }

    /// How many bytes of each segment are needed still.
    pub(super) fn live_bytes(&self) -> BTreeMap<u64, u64> {
        self.lock_live().clone()
    }

    /// Applies one record. `replay` is there while the index is made again. Answers the
    /// notification whose content is not needed any more.
    pub(super) fn apply(
        &self,
        written: &Written,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let Written { sequence, record, location } = written;
        match record {
            Record::Accepted(accepted) => {
                self.accepted(accepted, *sequence, *location).map(|()| None)
            }
            Record::Updated(updated) => self.updated(updated, *sequence, replay),
            Record::JobForgotten(id) => self.job_forgotten(*id, replay),
            Record::KeyForgotten(id) => self.key_forgotten(*id, replay),
            Record::Carried(carried) => self.carried(carried, *location, replay),
        }
    }

    fn accepted(
        &self,
        accepted: &latest::Accepted,
        sequence: u64,
        location: Location,
    ) -> Applied<()> {
        let latest::Accepted { notification, deadline, key } = accepted;
        for (id, recipient) in &notification.jobs {
            let row = JobRow {
                notification: notification.id,
                recipient: recipient.clone(),
                accepted_at: notification.accepted_at,
                trace: notification.trace.clone(),
                progress: fresh(notification, *deadline),
                sequence,
            };
            put(&self.jobs, id, &row)?;
        }
        self.remember(notification, key.as_ref(), location)
    }

    /// Puts the row of a notification and everything that leads to it.
    pub(super) fn remember(
        &self,
        notification: &latest::Notification,
        key: Option<&latest::Key>,
        location: Location,
    ) -> Applied<()> {
        let id = &notification.id;
        if let Some(key) = key {
            insert(&self.keys, key.key.as_bytes(), id)?;
            insert(&self.key_ages, &pair(notification.accepted_at, id), &[])?;
        }
        let row =
            NotificationRow { notification: notification.clone(), key: key.cloned(), location };
        insert(&self.segments, &pair(location.segment, id), &[])?;
        put(&self.notifications, id, &row)?;
        self.count(&location, 1);
        Ok(())
    }

    fn updated(
        &self,
        updated: &latest::Updated,
        sequence: u64,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let latest::Updated { job: id, progress, attempt } = updated;
        if let Some(attempt) = attempt {
            put(&self.attempts, &attempt_key(id, attempt.number), attempt)?;
        }
        let Some(mut row) = self.job(id)? else {
            if let Some(replay) = replay {
                replay.orphans.insert(*id, (sequence, progress.clone()));
            }
            return Ok(None);
        };
        row.progress = progress.clone();
        row.sequence = sequence;
        put(&self.jobs, id, &row)?;
        match ended_at(progress) {
            Some(at) => {
                insert(&self.ended, &pair(at, id), &[])?;
                self.release(&row.notification)
            }
            None => Ok(None),
        }
    }

    fn job_forgotten(&self, id: Id, replay: Option<&mut Replay>) -> Applied<Option<Id>> {
        remove(&self.outlived, &outlived_key(&Record::JobForgotten(id)))?;
        if let Some(replay) = replay {
            replay.orphans.remove(&id);
            replay.forgotten_jobs.insert(id);
        }
        let Some(row) = self.remove_job(&id)? else { return Ok(None) };
        let released = self.release(&row.notification)?;
        self.drop_if_empty(&row.notification)?;
        Ok(released)
    }

    /// Takes out a job and all that leads to it, and its attempts even when it is not known.
    pub(super) fn remove_job(&self, id: &Id) -> Applied<Option<JobRow>> {
        self.remove_attempts(id)?;
        let Some(row) = self.job(id)? else { return Ok(None) };
        if let Some(at) = ended_at(&row.progress) {
            remove(&self.ended, &pair(at, id))?;
        }
        remove(&self.jobs, id)?;
        Ok(Some(row))
    }

    fn remove_attempts(&self, id: &Id) -> Applied<()> {
        for attempt in self.attempts.scan_prefix(id).keys() {
            remove(&self.attempts, &attempt.map_err(broken)?)?;
        }
        Ok(())
    }

    /// Takes out what leads from an idempotency key to its notification.
    pub(super) fn remove_key(&self, row: &NotificationRow) -> Applied<()> {
        let Some(key) = &row.key else { return Ok(()) };
        remove(&self.keys, key.key.as_bytes())?;
        remove(&self.key_ages, &pair(row.notification.accepted_at, &row.notification.id))
    }

    /// Ends a replay: what is left without a notification belongs to a damaged one.
    pub(super) fn finish(&self, replay: &Replay) -> Applied<()> {
        replay.orphans.keys().try_for_each(|id| self.remove_attempts(id))
    }

    fn key_forgotten(&self, id: Id, replay: Option<&mut Replay>) -> Applied<Option<Id>> {
        remove(&self.outlived, &outlived_key(&Record::KeyForgotten(id)))?;
        if let Some(replay) = replay {
            replay.forgotten_keys.insert(id);
        }
        let Some(mut row) = self.notification(&id)? else { return Ok(None) };
        if row.key.is_some() {
            self.remove_key(&row)?;
            row.key = None;
            put(&self.notifications, &id, &row)?;
        }
        self.drop_if_empty(&id)?;
        Ok(None)
    }

    /// Lets go of a content that no job needs any more.
    pub(super) fn release(&self, id: &Id) -> Applied<Option<Id>> {
        let Some(mut row) = self.notification(id)? else { return Ok(None) };
        if row.location.content_bytes == 0 || self.needs_content(&row)? {
            return Ok(None);
        }
        self.count(&row.location, -1);
        row.location.content_bytes = 0;
        self.count(&row.location, 1);
        put(&self.notifications, id, &row)?;
        Ok(Some(*id))
    }

    /// Whether any job of it is queued or dead.
    pub(super) fn needs_content(&self, row: &NotificationRow) -> Applied<bool> {
        for (job, _) in &row.notification.jobs {
            if self.job(job)?.is_some_and(|row| ended_at(&row.progress).is_none()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets a notification of which nothing else is remembered.
    pub(super) fn drop_if_empty(&self, id: &Id) -> Applied<()> {
        let Some(row) = self.notification(id)? else { return Ok(()) };
        if row.key.is_some() {
            return Ok(());
        }
        for (job, _) in &row.notification.jobs {
            if self.jobs.contains_key(job).map_err(broken)? {
                return Ok(());
            }
        }
        remove(&self.segments, &pair(row.location.segment, id))?;
        remove(&self.notifications, id)?;
        self.count(&row.location, -1);
        Ok(())
    }

    pub(super) fn notification(&self, id: &Id) -> Applied<Option<NotificationRow>> {
        get(&self.notifications, id)
    }

    pub(super) fn job(&self, id: &Id) -> Applied<Option<JobRow>> {
        get(&self.jobs, id)
    }

    pub(super) fn attempts(&self, id: &Id) -> Applied<Vec<latest::Attempt>> {
        let values = self.attempts.scan_prefix(id).values();
        values.map(|value| read(&value.map_err(broken)?)).collect()
    }

    pub(super) fn under_key(&self, key: &str) -> Applied<Option<NotificationRow>> {
        match self.keys.get(key).map_err(broken)? {
            Some(id) => get(&self.notifications, &id),
            None => Ok(None),
        }
    }

    /// Ids in `ended` before a time.
    pub(super) fn ended_before(&self, time: u64, limit: usize) -> Applied<Vec<Uuid>> {
        ids(&self.ended, &[], &time.to_be_bytes(), limit)
    }

    /// When each job was delivered, since a time, and by which provider.
    pub(super) fn delivered_since(
        &self,
        time: u64,
        mut found: impl FnMut(&str, u64),
    ) -> Applied<()> {
        for key in self.ended.range(time.to_be_bytes()..).keys() {
            let key = key.map_err(broken)?;
            let Some(row) = get::<JobRow>(&self.jobs, key.get(8..).unwrap_or_default())? else {
                continue;
            };
            if let State::Delivered { at } = row.progress.state
                && let Some(provider) = row.progress.chain.get(usize::from(row.progress.position))
            {
                found(provider, at);
            }
        }
        Ok(())
    }

    /// Ids in `key_ages` before a time.
    pub(super) fn keys_before(&self, time: u64, limit: usize) -> Applied<Vec<Uuid>> {
        ids(&self.key_ages, &[], &time.to_be_bytes(), limit)
    }

    /// Notifications whose record lies in a segment.
    pub(super) fn in_segment(&self, segment: u64, limit: usize) -> Applied<Vec<Uuid>> {
        ids(&self.segments, &segment.to_be_bytes(), &(segment + 1).to_be_bytes(), limit)
    }

    pub(super) fn count(&self, location: &Location, sign: i64) {
        let bytes = location.record_bytes + location.content_bytes;
        let mut live = self.lock_live();
        let entry = live.entry(location.segment).or_default();
        *entry = if sign < 0 { entry.saturating_sub(bytes) } else { *entry + bytes };
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.live_bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
