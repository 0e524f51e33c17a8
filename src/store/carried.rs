//! How the index takes a record that carries a notification forward: while the store is open, and
//! when the index is made again, where such a record may come after changes that are newer.
//!
//! Such a record may still carry what was forgotten just before it was written. The record of that
//! may lie in an older segment, and go with it, and then nothing would tell any more. So what it
//! carries in vain is noted, and forgotten once more behind it before the next segment is freed.

use std::collections::{HashMap, HashSet};

use super::index::{Index, ended_at};
use super::journal::Location;
use super::rows::{
    Applied, JobRow, NotificationRow, attempt_key, broken, insert, outlived, outlived_key, pair,
    put, remove,
};
use crate::migrations::latest::{self, Id, Record};

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
        self.note_outlived(carried, known.as_ref(), replay.as_deref())?;
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

    /// Notes what the record carries although it was forgotten before.
    fn note_outlived(
        &self,
        carried: &latest::Carried,
        known: Option<&NotificationRow>,
        replay: Option<&Replay>,
    ) -> Applied<()> {
        let id = &carried.notification.id;
        for latest::CarriedJob { job, .. } in &carried.jobs {
            let is_forgotten = match replay {
                Some(replay) => replay.forgotten_jobs.contains(job),
                None => self.job(job)?.is_none(),
            };
            if is_forgotten {
                insert(&self.outlived, &outlived_key(&Record::JobForgotten(*job)), &[])?;
            }
        }
        let is_forgotten = match replay {
            Some(replay) => replay.forgotten_keys.contains(id),
            None => known.is_none_or(|row| row.key.is_none()),
        };
        if carried.key.is_some() && is_forgotten {
            insert(&self.outlived, &outlived_key(&Record::KeyForgotten(*id)), &[])?;
        }
        Ok(())
    }

    /// The records that forget once more what records behind the first ones still carry.
    pub(super) fn outlived(&self, limit: usize) -> Applied<Vec<Record>> {
        let keys = self.outlived.iter().keys().take(limit);
        keys.map(|key| outlived(&key.map_err(broken)?)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::latest::{Accepted, Carried, CarriedJob, Notification};
    use crate::store::index::fresh;
    use crate::store::journal::Written;

    fn written(sequence: u64, record: Record) -> Written {
        let location = Location {
            segment: sequence,
            offset: 0,
            record_bytes: 100,
            content_bytes: 0,
            checksum: 0,
            schema: 1,
        };
        Written { sequence, record, location }
    }

    /// An index of these records, as it is while they come or as it is made again from them.
    fn index_of(records: &[Written], is_made_again: bool) -> (tempfile::TempDir, Index) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = Index::open(folder.path()).expect("an index");
        let mut replay = Replay::default();
        for record in records {
            index.apply(record, is_made_again.then_some(&mut replay)).expect("applied");
        }
        (folder, index)
    }

    #[test]
    fn what_is_carried_although_it_was_forgotten_just_before_is_forgotten_once_more() {
        let (id, job) = ([1; 16], [2; 16]);
        let notification = Notification {
            id,
            subject: "s".to_owned(),
            accepted_at: 5,
            expires_at: None,
            chain: vec!["a".to_owned()],
            warnings: Vec::new(),
            jobs: vec![(job, "ada@example.com".to_owned())],
            trace: None,
        };
        let progress = latest::Progress {
            state: latest::State::Delivered { at: 6 },
            ..fresh(&notification, 99)
        };
        let carried = Carried {
            as_of: 1,
            notification: notification.clone(),
            key: None,
            jobs: vec![CarriedJob { job, progress, attempts: Vec::new() }],
        };
        let accepted = Accepted { notification, deadline: 99, key: None };
        let records = [
            written(1, Record::Accepted(accepted)),
            written(2, Record::JobForgotten(job)),
            written(3, Record::Carried(carried)),
        ];
        // Without the segment that forgets it, it would be back.
        let (_folder, index) = index_of(&records[2..], true);
        assert!(index.job(&job).expect("a read").is_some());

        for is_made_again in [false, true] {
            let (_folder, index) = index_of(&records, is_made_again);
            assert!(index.job(&job).expect("a read").is_none());
            let again = index.outlived(10).expect("a read");
            assert_eq!(again, [Record::JobForgotten(job)]);
            // What is written of it then settles the matter.
            index.apply(&written(4, again[0].clone()), None).expect("applied");
            assert_eq!(index.outlived(10).expect("a read"), []);
        }
        let forgotten = written(4, Record::JobForgotten(job));
        let (_folder, index) = index_of(&[records[2].clone(), forgotten], true);
        assert!(index.job(&job).expect("a read").is_none());
    }
}
