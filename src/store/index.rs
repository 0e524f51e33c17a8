//! The sled database: every job's state, its attempts, the history and the idempotency keys.
//!
//! It follows the journal, off the path of an answer, and holds nothing that the journal does not:
//! whenever it is in doubt it is thrown away and made again by applying the journal from its
//! beginning, with the same code that applies each new record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sled::{Db, Tree};

use super::ages::Ages;
use super::carried::Replay;
use super::entry::{Entry, Written};
use super::journal::Location;
use super::rows::{
    Applied, JobChange, JobRow, Row, attempt_key, broken, encode, ended_at, id, insert,
    outlived_key, read, remove,
};
use super::table::{NewestFirst, Table};
use crate::migrations::latest::{self, Id, Record, State};

/// A change of the rows is a new number: an index of another one is made again.
pub(super) const INDEX_VERSION: u32 = 5;

/// So many rows are written out at once when there is no room for them in memory: what comes meanwhile
/// has to wait.
const ROWS_AT_ONCE: usize = 256;

/// The trees and the tally of what is alive in each segment.
pub(super) struct Index {
    db: Db,
    pub(super) rows: Table,
    /// Job id and attempt number, big endian, to the attempt: all but the last of each job.
    pub(super) attempts: Tree,
    /// Idempotency key to notification id.
    keys: Tree,
    /// Notifications with a key by the time of acceptance.
    key_ages: Ages,
    /// Jobs by the time of their end.
    ended: Ages,
    /// Job id to notification id, of those that are not found by order.
    pub(super) strays: Tree,
    /// What was forgotten before a record that still carries it: jobs and keys, by `outlived_key`.
    pub(super) outlived: Tree,
    /// No id of a row or of a job that is no stray is greater.
    pub(super) id_max: Mutex<Id>,
    live_bytes: Mutex<BTreeMap<u64, u64>>,
}

impl Index {
    /// Opens or creates the database. sled may panic on damaged files: callers guard against it.
    pub(super) fn open(folder: &Path) -> Applied<Self> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(4 << 20)
            // Segment collection runs only in the flusher thread.
            .flush_every_ms(Some(1000));
        let db = config.open().map_err(broken)?;
        let tree = |name: &str| db.open_tree(name).map_err(broken);
        let index = Self {
            rows: Table::new(tree("rows")?),
            attempts: tree("attempts")?,
            keys: tree("keys")?,
            key_ages: Ages::new(tree("key_ages")?),
            ended: Ages::new(tree("ended")?),
            strays: tree("strays")?,
            outlived: tree("outlived")?,
            id_max: Mutex::default(),
            live_bytes: Mutex::default(),
            db,
        };
        Ok(index)
    }

    /// Goes through all notifications once: counts what is alive in each segment, and answers
    /// where the contents lie that are needed still.
    pub(super) fn tally(&self) -> Applied<BTreeMap<Id, Location>> {
        self.write_out()?;
        lock(&self.live_bytes).clear();
        let mut contents = Vec::new();
        self.rows.heads(|head| {
            self.count(&head.location, 1);
            if head.location.content_bytes > 0 {
                contents.push((head.id, head.location));
            }
        })?;
        if let Some(last) = self.rows.newest_first(None).next().transpose()? {
            self.see_ids(&last);
        }
        // At once, because a tree that grows takes twice the memory.
        Ok(contents.into_iter().collect())
    }

    /// Writes everything out. Nothing may be applied after it.
    pub(super) fn close(self) -> Applied<()> {
        self.write_out()?;
        self.db.flush().map(drop).map_err(broken)
    }

    /// Moves what is in memory to sled. There is no need to, but for the memory.
    pub(super) fn write_out(&self) -> Applied<()> {
        self.rows.write_out(None)?;
        self.ended.write_out()?;
        self.key_ages.write_out()
    }

    /// How many bytes of each segment are needed still.
    pub(super) fn live_bytes(&self) -> BTreeMap<u64, u64> {
        lock(&self.live_bytes).clone()
    }

    /// Applies one record. `replay` is there while the index is made again. Answers the
    /// notification whose content is not needed any more.
    pub(super) fn apply(
        &self,
        written: Written,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let Written { sequence, entry, location } = written;
        let released = match entry {
            Entry::Accepted(row) => self.add(Row { sequence, location, ..row }).map(|()| None),
            Entry::Updated(updated) => self.updated(updated, sequence, replay),
            Entry::JobForgotten(id) => self.job_forgotten(id, replay),
            Entry::KeyForgotten(id) => self.key_forgotten(id, replay),
            Entry::Carried(carried) => self.carried(carried, sequence, location, replay),
        }?;
        while self.rows.is_full() {
            self.rows.write_out(Some(ROWS_AT_ONCE))?;
        }
        Ok(released)
    }

    /// Puts a row that was not there, and everything that leads to it.
    pub(super) fn add(&self, row: Row) -> Applied<()> {
        if let Some(key) = &row.key {
            insert(&self.keys, key.key.as_bytes(), &row.id)?;
            self.key_ages.push(row.accepted_at, row.id)?;
        }
        self.note_strays(&row)?;
        self.count(&row.location, 1);
        self.rows.put(row);
        Ok(())
    }

    fn updated(
        &self,
        updated: latest::Updated,
        sequence: u64,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let latest::Updated { job: id, progress, attempt } = updated;
        let Some(row) = self.row_of_job(&id)? else {
            if let Some(attempt) = attempt {
                self.keep_attempt(&id, &attempt)?;
            }
            if let Some(replay) = replay {
                replay.orphans.insert(id, (sequence, progress));
            }
            return Ok(None);
        };
        if let Some(at) = ended_at(&progress) {
            self.ends(at, id)?;
        }
        let notification = row.id;
        // Let go of it, so that it is changed in place.
        self.rows.bring(row);
        let change = |row: &mut Row| {
            let job = row.job_mut(&id)?;
            let earlier = job.change.take().and_then(|change| change.last_attempt);
            let (last_attempt, earlier) = match attempt {
                Some(attempt) => (Some(attempt), earlier),
                None => (earlier, None),
            };
            job.change = Some(JobChange { sequence, progress, last_attempt });
            earlier
        };
        let (earlier, released) = self.change(&notification, change)?;
        if let Some(earlier) = earlier {
            self.keep_attempt(&id, &earlier)?;
        }
        Ok(released)
    }

    fn job_forgotten(&self, id: Id, replay: Option<&mut Replay>) -> Applied<Option<Id>> {
        remove(&self.outlived, &outlived_key(&Record::JobForgotten(id)))?;
        if let Some(replay) = replay {
            replay.orphans.remove(&id);
            replay.forgotten_jobs.insert(id);
        }
        let Some(row) = self.row_of_job(&id)? else {
            self.remove_attempts(&id)?;
            return Ok(None);
        };
        let notification = row.id;
        self.rows.bring(row);
        let take = |row: &mut Row| {
            let place = row.jobs.iter().position(|job| job.id == id)?;
            Some(row.jobs.remove(place))
        };
        let (job, released) = self.change(&notification, take)?;
        if let Some(job) = job {
            self.remove_traces(&job)?;
        }
        Ok(released)
    }

    fn key_forgotten(&self, id: Id, replay: Option<&mut Replay>) -> Applied<Option<Id>> {
        remove(&self.outlived, &outlived_key(&Record::KeyForgotten(id)))?;
        if let Some(replay) = replay {
            replay.forgotten_keys.insert(id);
        }
        let (key, released) = self.change(&id, |row| row.key.take())?;
        if let Some(key) = key {
            remove(&self.keys, key.key.as_bytes())?;
        }
        Ok(released)
    }

    /// Changes a row, if it is there, lets go of its content when no job needs that any more, and takes
    /// it out when nothing of it is left. Answers also the notification whose content was let go.
    pub(super) fn change<T>(
        &self,
        id: &Id,
        change: impl FnOnce(&mut Row) -> Option<T>,
    ) -> Applied<(Option<T>, Option<Id>)> {
        let changed = self.rows.change(id, |row| {
            let before = row.location;
            let answer = change(row);
            let is_released = 0 < row.location.content_bytes && !row.needs_content();
            if is_released {
                row.location.content_bytes = 0;
            }
            (answer, before, row.location, is_released.then_some(*id), row.is_empty())
        })?;
        let Some((answer, before, after, released, is_empty)) = changed else {
            return Ok((None, None));
        };
        if is_empty {
            self.count(&before, -1);
            self.rows.remove(id);
        } else if before != after {
            // In this order, so that it never seems to be needed nowhere.
            self.count(&after, 1);
            self.count(&before, -1);
        }
        Ok((answer, released))
    }

    /// Takes a row out, but for its attempts.
    pub(super) fn take_out(&self, row: &Row) -> Applied<()> {
        self.count(&row.location, -1);
        self.rows.remove(&row.id);
        row.key.as_ref().map_or(Ok(()), |key| remove(&self.keys, key.key.as_bytes()))
    }

    /// Takes out what leads to a job and what lies beside its row.
    pub(super) fn remove_traces(&self, job: &JobRow) -> Applied<()> {
        remove(&self.strays, &job.id)?;
        match job.last_attempt() {
            Some(last) if 1 < last.number => self.remove_attempts(&job.id),
            _ => Ok(()),
        }
    }

    pub(super) fn keep_attempt(&self, job: &Id, attempt: &latest::Attempt) -> Applied<()> {
        insert(&self.attempts, &attempt_key(job, attempt.number), &encode(attempt))
    }

    fn remove_attempts(&self, id: &Id) -> Applied<()> {
        for attempt in self.attempts.scan_prefix(id).keys() {
            remove(&self.attempts, &attempt.map_err(broken)?)?;
        }
        Ok(())
    }

    /// A job ended.
    pub(super) fn ends(&self, at: u64, job: Id) -> Applied<()> {
        self.ended.push(at, job)
    }

    /// Ends a replay: what is left without a notification belongs to a damaged one.
    pub(super) fn finish(&self, replay: &Replay) -> Applied<()> {
        replay.orphans.keys().try_for_each(|id| self.remove_attempts(id))
    }

    pub(super) fn row(&self, id: &Id) -> Applied<Option<Arc<Row>>> {
        self.rows.get(id)
    }

    /// All notifications before this one, newest first.
    pub(super) fn newest_first(&self, before: Option<&Id>) -> NewestFirst {
        self.rows.newest_first(before)
    }

    /// The attempts of a job, oldest first.
    pub(super) fn attempts(&self, job: &JobRow) -> Applied<Vec<latest::Attempt>> {
        let Some(last) = job.last_attempt() else { return Ok(Vec::new()) };
        let mut attempts = Vec::new();
        if 1 < last.number {
            attempts = self.earlier_attempts(&job.id)?;
            // Since the row was read the last one may have become an earlier one.
            attempts.retain(|attempt| attempt.number < last.number);
        }
        attempts.push(last.clone());
        Ok(attempts)
    }

    pub(super) fn earlier_attempts(&self, job: &Id) -> Applied<Vec<latest::Attempt>> {
        let values = self.attempts.scan_prefix(job).values();
        values.map(|value| read(&value.map_err(broken)?)).collect()
    }

    pub(super) fn under_key(&self, key: &str) -> Applied<Option<Arc<Row>>> {
        let Some(found) = self.keys.get(key).map_err(broken)? else { return Ok(None) };
        self.rows.get(&id(&found)?)
    }

    /// Jobs that ended before a time.
    pub(super) fn ended_before(&self, time: u64, limit: usize) -> Applied<Vec<Id>> {
        self.ended.before(time, limit, |job| Ok(self.row_of_job(job)?.is_some()))
    }

    /// When each job was delivered, since a time, and by which provider.
    pub(super) fn delivered_since(
        &self,
        time: u64,
        mut found: impl FnMut(&str, u64),
    ) -> Applied<()> {
        for row in self.rows.newest_first(None) {
            for JobChange { progress, .. } in row?.jobs.iter().filter_map(|job| job.change.as_ref())
            {
                if let State::Delivered { at } = progress.state
                    && time <= at
                    && let Some(provider) = progress.chain.get(usize::from(progress.position))
                {
                    found(provider, at);
                }
            }
        }
        Ok(())
    }

    /// Notifications with a key that were accepted before a time.
    pub(super) fn keys_before(&self, time: u64, limit: usize) -> Applied<Vec<Id>> {
        self.key_ages
            .before(time, limit, |id| Ok(self.rows.get(id)?.is_some_and(|row| row.key.is_some())))
    }

    pub(super) fn count(&self, location: &Location, sign: i64) {
        let bytes = location.bytes();
        let mut live = lock(&self.live_bytes);
        let entry = live.entry(location.segment.into()).or_default();
        *entry = if sign < 0 { entry.saturating_sub(bytes) } else { *entry + bytes };
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
