//! How the index takes a record that carries a notification forward: while the store is open, and
//! when the index is made again, where such a record may come after changes that are newer.
//!
//! Such a record may still carry what was forgotten just before it was written. The record of that
//! may lie in an older segment, and go with it, and then nothing would tell any more. So what it
//! carries in vain is noted, and forgotten once more behind it before the next segment is freed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::index::Index;
use super::journal::Location;
use super::rows::{
    Applied, JobChange, JobRow, Row, attempt_key, broken, ended_at, insert, outlived, outlived_key,
    remove,
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
        carried: latest::Carried,
        sequence: u64,
        location: Location,
        replay: Option<&mut Replay>,
    ) -> Applied<Option<Id>> {
        let id = carried.notification.id;
        let known = self.row(&id)?;
        self.note_outlived(&carried, known.as_deref(), replay.as_deref())?;
        if let Some(row) = &known
            && is_overtaken(&carried, row)
        {
            // The old place stays, and it is carried again.
            return Ok((row.location.content_bytes == 0).then_some(id));
        }
        let row = known.map(|row| (*row).clone());
        match (replay, row) {
            (Some(replay), row) => self.carried_again(carried, sequence, location, row, replay),
            (None, None) => Ok(Some(id)),
            (None, Some(_)) => {
                // At its first reading the row is as new as it can be, and only the place is another.
                let place = |row: &mut Row| {
                    row.location = location;
                    Some(())
                };
                let (_, released) = self.change(&id, place)?;
                Ok(if location.content_bytes == 0 { Some(id) } else { released })
            }
        }
    }

    /// The same while the index is made again: the record may be all that is left of the notification,
    /// and changes that came after it may have been read before it.
    fn carried_again(
        &self,
        carried: latest::Carried,
        sequence: u64,
        mut location: Location,
        known: Option<Row>,
        replay: &mut Replay,
    ) -> Applied<Option<Id>> {
        let latest::Carried { as_of, notification, key, jobs: carried_jobs } = carried;
        let id = notification.id;
        let mut known_jobs = BTreeMap::new();
        if let Some(row) = &known {
            self.take_out(row)?;
            known_jobs.extend(row.jobs.iter().map(|job| (job.id, (row.changed_by(job), job))));
        }
        let recipients: HashMap<Id, String> = notification.jobs.into_iter().collect();
        let mut jobs = Vec::new();
        for latest::CarriedJob { job, progress, attempts } in carried_jobs {
            if replay.forgotten_jobs.contains(&job) {
                continue;
            }
            let (last_known, known, had_ended) = match known_jobs.remove(&job) {
                Some((_, JobRow { change: Some(known), .. })) => {
                    let JobChange { sequence, progress, last_attempt } = known.clone();
                    let had_ended = ended_at(&progress).is_some();
                    (last_attempt, Some((sequence, progress)), had_ended)
                }
                // As it was accepted, it is older than whatever is carried.
                Some((_, JobRow { change: None, .. })) => (None, None, false),
                None => (None, replay.orphans.remove(&job), false),
            };
            let last_attempt =
                self.keep_all_but_last(&job, attempts.into_iter().chain(last_known))?;
            let newer = known.filter(|(sequence, _)| as_of < *sequence);
            let (sequence, progress) = newer.unwrap_or((as_of, progress));
            if let Some(at) = ended_at(&progress).filter(|_| !had_ended) {
                self.ends(at, job)?;
            }
            let recipient = recipients.get(&job).cloned().unwrap_or_default();
            let change = Some(JobChange { sequence, progress, last_attempt });
            jobs.push(JobRow { id: job, recipient, change });
        }
        // What a newer record of a notification does not list any more was forgotten, and the record
        // of that may have gone with its segment.
        for (changed_by, job) in known_jobs.into_values() {
            if as_of < changed_by {
                jobs.push(job.clone());
            } else {
                self.remove_traces(job)?;
            }
        }
        let key = key.filter(|_| !replay.forgotten_keys.contains(&id));
        let latest::Notification { accepted_at, chain, trace, .. } = notification;
        // What is carried says of each job where it stands; only one that was known before may still
        // be as it was accepted.
        let (sequence, deadline) =
            known.map_or((sequence, accepted_at), |row| (row.sequence, row.deadline));
        let mut row =
            Row { location, id, sequence, accepted_at, deadline, chain, trace, key, jobs };
        let is_released = 0 < location.content_bytes && !row.needs_content();
        if is_released {
            location.content_bytes = 0;
            row.location = location;
        }
        if !row.is_empty() {
            self.add(row)?;
        }
        Ok(is_released.then_some(id))
    }

    /// Puts the attempts of a job where they belong, beside those that are there; answers the last.
    fn keep_all_but_last(
        &self,
        job: &Id,
        attempts: impl Iterator<Item = latest::Attempt>,
    ) -> Applied<Option<latest::Attempt>> {
        let there = self.earlier_attempts(job)?;
        let mut all: BTreeMap<u32, latest::Attempt> =
            there.into_iter().chain(attempts).map(|attempt| (attempt.number, attempt)).collect();
        let last = all.pop_last();
        for attempt in all.values() {
            self.keep_attempt(job, attempt)?;
        }
        if let Some((number, _)) = &last {
            remove(&self.attempts, &attempt_key(job, *number))?;
        }
        Ok(last.map(|(_, attempt)| attempt))
    }

    /// Notes what the record carries although it was forgotten before.
    fn note_outlived(
        &self,
        carried: &latest::Carried,
        known: Option<&Row>,
        replay: Option<&Replay>,
    ) -> Applied<()> {
        let id = &carried.notification.id;
        for latest::CarriedJob { job, .. } in &carried.jobs {
            let is_forgotten = match replay {
                Some(replay) => replay.forgotten_jobs.contains(job),
                None => known.is_none_or(|row| row.job(job).is_none()),
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
}

/// Whether something of the notification changed after what the record holds of it. While its old
/// place exists, so do all later segments, and nothing is lost by staying there.
fn is_overtaken(carried: &latest::Carried, row: &Row) -> bool {
    let is_newer = |job: &JobRow| carried.as_of < row.changed_by(job);
    carried.jobs.iter().any(|carried| row.job(&carried.job).is_none_or(is_newer))
        || carried.key.is_some() && row.key.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::latest::{Accepted, Carried, CarriedJob, Notification};
    use crate::store::entry::Written;
    use crate::store::rows::fresh;

    fn written(sequence: u64, record: Record) -> Written {
        let segment = sequence.try_into().expect("a small number");
        let location = Location { segment, offset: 0, record_bytes: 100, content_bytes: 0 };
        Written { sequence, entry: record.into(), location }
    }

    /// An index of these records, as it is while they come or as it is made again from them.
    fn index_of(records: &[Written], is_made_again: bool) -> (tempfile::TempDir, Index) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = Index::open(folder.path()).expect("an index");
        let mut replay = Replay::default();
        for record in records {
            index.apply(record.clone(), is_made_again.then_some(&mut replay)).expect("applied");
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
            ..fresh(notification.chain.clone(), notification.accepted_at, 99)
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
        assert!(index.row_of_job(&job).expect("a read").is_some());

        for is_made_again in [false, true] {
            let (_folder, index) = index_of(&records, is_made_again);
            assert!(index.row_of_job(&job).expect("a read").is_none());
            let again = index.outlived(10).expect("a read");
            assert_eq!(again, [Record::JobForgotten(job)]);
            // What is written of it then settles the matter.
            index.apply(written(4, again[0].clone()), None).expect("applied");
            assert_eq!(index.outlived(10).expect("a read"), []);
        }
        let forgotten = written(4, Record::JobForgotten(job));
        let (_folder, index) = index_of(&[records[2].clone(), forgotten], true);
        assert!(index.row_of_job(&job).expect("a read").is_none());
    }
}
