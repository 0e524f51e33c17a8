//! How the index takes a record that carries a notification forward: while the store is open, and
//! when the index is made again, where such a record may come after changes that are newer.

use std::collections::{HashMap, HashSet};

use super::index::{Index, ended_at};
use super::journal::Location;
use super::rows::{Applied, JobRow, NotificationRow, attempt_key, insert, pair, put, remove};
use crate::migrations::latest::{self, Id};

/// What a replay from the beginning must remember: records that come before the one that carries
/// their notification forward, whose own beginning went with an old segment.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) orphans: HashMap<Id, (u64, latest::Progress)>,
    pub(super) forgotten_jobs: HashSet<Id>,
    pub(super) forgotten_keys: HashSet<Id>,
}

impl Index {
    pub(super) fn carried(
        &self,
        carried: &latest::Carried,
        location: Location,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let latest::Carried { as_of, notification, key, jobs } = carried;
        let id = &notification.id;
        let known = self.notification(id)?;
        let Some(replay) = replay else {
            return self.carried_live(carried, known, location);
        };
        if let Some(row) = known {
            if self.is_overtaken(carried, &row)? {
                return Ok(None);
            }
            self.leave(&row)?;
            self.drop_unlisted(&row, carried)?;
        }
        for carried in jobs {
            let job = &carried.job;
            if replay.forgotten_jobs.contains(job) {
                continue;
            }
            for attempt in &carried.attempts {
                put(&self.attempts, &attempt_key(job, attempt.number), attempt)?;
            }
            if self.job(job)?.is_some_and(|row| row.sequence > *as_of) {
                continue;
            }
            let newer = replay.orphans.remove(job).filter(|(at, _)| at > as_of);
            let (changed, progress) = newer.unwrap_or((*as_of, carried.progress.clone()));
            let recipient = notification.jobs.iter().find(|(listed, _)| listed == job);
            let row = JobRow {
                notification: notification.id,
                recipient: recipient.map(|(_, to)| to.clone()).unwrap_or_default(),
                accepted_at: notification.accepted_at,
                trace: notification.trace.clone(),
                sequence: changed,
                progress,
            };
            if let Some(at) = ended_at(&row.progress) {
                insert(&self.ended, &pair(at, job), &[])?;
            }
            put(&self.jobs, job, &row)?;
        }
        let key = key.as_ref().filter(|_| !replay.forgotten_keys.contains(id));
        self.remember(notification, key, location)?;
        let released = self.release(id)?;
        self.drop_if_empty(id)?;
        Ok(released)
    }

    /// A record that carries a notification forward, at its first reading: the rows are as new as
    /// they can be, and only the place is another. Unless something changed since the record was
    /// made: then it does not count, the old place stays, and it is carried again.
    fn carried_live(
        &self,
        carried: &latest::Carried,
        known: Option<NotificationRow>,
        location: Location,
    ) -> Applied<Option<Id>> {
        let id = carried.notification.id;
        let Some(row) = known else { return Ok(Some(id)) };
        if self.is_overtaken(carried, &row)? {
            return Ok(if row.location.content_bytes == 0 { Some(id) } else { None });
        }
        self.leave(&row)?;
        self.remember(&row.notification, row.key.as_ref(), location)?;
        Ok(if location.content_bytes == 0 { Some(id) } else { self.release(&id)? })
    }

    /// Whether something of the notification changed after what the record holds of it. While its
    /// old place exists, so do all later segments, and nothing is lost by staying there.
    fn is_overtaken(&self, carried: &latest::Carried, row: &NotificationRow) -> Applied<bool> {
        for job in &carried.jobs {
            if self.job(&job.job)?.is_none_or(|row| row.sequence > carried.as_of) {
                return Ok(true);
            }
        }
        Ok(carried.key.is_some() && row.key.is_none())
    }

    /// Takes away what leads to the old place of a notification.
    fn leave(&self, row: &NotificationRow) -> Applied<()> {
        self.count(&row.location, -1);
        remove(&self.segments, &pair(row.location.segment, &row.notification.id))
    }

    /// What a newer record of a notification does not list any more was forgotten, and the record
    /// of that may have gone with its segment.
    fn drop_unlisted(&self, row: &NotificationRow, carried: &latest::Carried) -> Applied<()> {
        for (job, _) in &row.notification.jobs {
            let is_listed = carried.jobs.iter().any(|listed| listed.job == *job);
            let is_older = self.job(job)?.is_some_and(|row| row.sequence <= carried.as_of);
            if is_older && !is_listed {
                self.remove_job(job)?;
            }
        }
        if carried.key.is_none() { self.remove_key(row) } else { Ok(()) }
    }
}
