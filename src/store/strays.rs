//! Finding a job by its own id, in the row of its notification.
//!
//! Ids are given in order, a notification's before those of its jobs, so that is the row before. Where
//! it is not (ids are what the queue makes of a clock, and that may have been set back between two
//! runs), the job is noted as a stray.

use std::sync::Arc;

use super::index::{Index, lock};
use super::rows::{Applied, Row, broken, id, insert};
use crate::migrations::latest::Id;

impl Index {
    /// The notification that a job belongs to which is remembered.
    pub(super) fn row_of_job(&self, job: &Id) -> Applied<Option<Arc<Row>>> {
        let is_its = |row: &Arc<Row>| row.job(job).is_some();
        if let Some(row) = self.rows.recent_at_or_before(job).filter(is_its) {
            return Ok(Some(row));
        }
        if let Some(row) = self.rows.at_or_before(job)?.filter(is_its) {
            return Ok(Some(row));
        }
        let Some(stray) = self.strays.get(job).map_err(broken)? else { return Ok(None) };
        Ok(self.rows.get(&id(&stray)?)?.filter(is_its))
    }

    /// Notes the jobs that are not found by order once this notification is there.
    pub(super) fn note_strays(&self, new: &Row) -> Applied<()> {
        let jobs = || new.jobs.iter().map(|job| &job.id);
        let in_order = *lock(&self.id_max) < new.id && jobs().all(|job| new.id < *job);
        if !in_order {
            let next = self.rows.next_id(&new.id)?;
            let stays = |job: &Id| new.id < *job && next.is_none_or(|next| *job < next);
            for job in jobs().filter(|job| !stays(job)) {
                insert(&self.strays, job, &new.id)?;
            }
            let before = self.rows.at_or_before(&new.id)?.filter(|row| row.id != new.id);
            if let Some(row) = before {
                for job in row.jobs.iter().filter(|job| new.id < job.id) {
                    insert(&self.strays, &job.id, &row.id)?;
                }
            }
        }
        self.see_ids(new);
        Ok(())
    }

    pub(super) fn see_ids(&self, row: &Row) {
        let mut max = lock(&self.id_max);
        let ids = row.jobs.iter().map(|job| job.id);
        *max = ids.chain([row.id]).fold(*max, Id::max);
    }
}
