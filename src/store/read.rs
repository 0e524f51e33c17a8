//! The store as the queue sees it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::DiskStore;
use super::codec::Encoded;
use super::rows::{JobRow, broken, read};
use crate::core::job::{Attempt, Job, JobId};
use crate::core::notification::{Address, Content, Notification, NotificationId};
use crate::core::pace::Tally;
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::migrations::{self, latest};
use crate::queue::store::{Change, Page, Store, StoreError};

/// One call looks at no more jobs than this, however few its filter keeps.
const SCAN_MAX: usize = 10_000;

impl Store for DiskStore {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StoreError>> {
        let leaves_reserve = changes.iter().any(|change| matches!(change, Change::Accept { .. }));
        let jobs_count = changes.iter().map(jobs_in).sum();
        let records = changes.iter().map(encode).collect();
        let answer = self.shared.append(records, jobs_count, leaves_reserve);
        let ended = || Err(StoreError::Stopped("the journal has ended".to_owned()));
        answer.map(move |answer| answer.unwrap_or_else(|_| ended())).boxed()
    }

    fn live(&self) -> Result<Vec<Job>, StoreError> {
        let mut jobs = Vec::new();
        let mut take = |id: &[u8], row| match job(id, row) {
            Ok(job) if job.progress.has_ended() => {}
            Ok(job) => jobs.push(job),
            // It stays on disk, and the others go out.
            Err(error) => tracing::error!(%error, "a job is left alone"),
        };
        if let Some(rows) = self.shared.alive_at_open() {
            rows.into_iter().for_each(|(id, row)| take(&id, row));
            return Ok(jobs);
        }
        let index = self.shared.index_now()?;
        for row in index.jobs.iter() {
            let (id, row) = row.map_err(broken)?;
            take(&id, read(&row)?);
        }
        Ok(jobs)
    }

    fn content(&self, id: NotificationId) -> Result<Content, StoreError> {
        let key = id.0.as_bytes();
        let mut tried = None;
        loop {
            let location = self.shared.content_location(key);
            let Some(location) = location.filter(|found| Some(*found) != tried) else {
                return Err(StoreError::Unreadable(format!("the content of notification {id}")));
            };
            match self.shared.read_content(&location) {
                Ok(Some((schema, bytes))) => {
                    let content = migrations::content(schema, &bytes)
                        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
                    return content.try_into().map_err(StoreError::Unreadable);
                }
                // It may have been carried to another segment since it was looked up.
                Err(error) if self.shared.content_location(key) == Some(location) => {
                    return Err(error);
                }
                Ok(None) | Err(_) => tried = Some(location),
            }
        }
    }

    fn notification(&self, id: NotificationId) -> Result<Option<Notification>, StoreError> {
        let row = self.shared.index_now()?.notification(id.0.as_bytes())?;
        row.map(|row| row.notification.try_into().map_err(StoreError::Unreadable)).transpose()
    }

    fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError> {
        let index = self.shared.index_now()?;
        let Some(row) = index.job(id.0.as_bytes())? else { return Ok(None) };
        let attempts = index.attempts(id.0.as_bytes())?.into_iter();
        let attempts: Result<Vec<_>, _> = attempts.map(Attempt::try_from).collect();
        let attempts = attempts.map_err(StoreError::Unreadable)?;
        Ok(Some((job(id.0.as_bytes(), row)?, attempts)))
    }

    fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: &dyn Fn(&Job) -> bool,
    ) -> Result<Page<Job>, StoreError> {
        let index = self.shared.index_now()?;
        let rows = match before {
            Some(id) => index.jobs.range(..id.0.as_bytes().as_slice()),
            None => index.jobs.iter(),
        };
        let mut page = Page { items: Vec::new(), next: None };
        let mut last = None;
        for (seen, row) in rows.rev().enumerate() {
            if page.items.len() == limit || seen == SCAN_MAX {
                page.next = last;
                break;
            }
            let (id, row) = row.map_err(broken)?;
            let job = job(&id, read(&row)?)?;
            last = Some(job.id);
            if keep(&job) {
                page.items.push(job);
            }
        }
        Ok(page)
    }

    fn accepted_under(&self, key: &str) -> Result<Option<([u8; 32], NotificationId)>, StoreError> {
        let row = self.shared.index_now()?.under_key(key)?;
        Ok(row.and_then(|row| {
            let id = NotificationId(Uuid::from_bytes(row.notification.id));
            row.key.map(|key| (key.fingerprint, id))
        }))
    }

    fn ended_before(&self, time: Time, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let ids = self.shared.index_now()?.ended_before(time.0, limit)?;
        Ok(ids.into_iter().map(JobId).collect())
    }

    fn delivered_since(&self, time: Time) -> Result<Tally, StoreError> {
        let mut tally = Tally::new();
        self.shared.index_now()?.delivered_since(time.0, |provider, at| {
            if let Some(provider) = ProviderName::new(provider) {
                *tally.entry(provider).or_default().entry(Time(at)).or_default() += 1;
            }
        })?;
        Ok(tally)
    }

    fn keys_before(&self, time: Time, limit: usize) -> Result<Vec<NotificationId>, StoreError> {
        let ids = self.shared.index_now()?.keys_before(time.0, limit)?;
        Ok(ids.into_iter().map(NotificationId).collect())
    }
}

fn jobs_in(change: &Change) -> usize {
    match change {
        Change::Accept { notification, .. } => notification.jobs.len(),
        Change::Update { .. } | Change::ForgetJob(_) => 1,
        Change::ForgetKey(_) => 0,
    }
}

fn encode(change: &Change) -> (latest::Record, Encoded) {
    let mut following = None;
    let record = match change {
        Change::Accept { notification, content, deadline, key } => {
            following = Some(latest::Content::from(content));
            latest::Record::Accepted(latest::Accepted {
                notification: notification.into(),
                deadline: deadline.0,
                key: key.as_ref().map(Into::into),
            })
        }
        Change::Update { job, progress, attempt } => latest::Record::Updated(latest::Updated {
            job: *job.0.as_bytes(),
            progress: progress.into(),
            attempt: attempt.as_ref().map(Into::into),
        }),
        Change::ForgetJob(job) => latest::Record::JobForgotten(*job.0.as_bytes()),
        Change::ForgetKey(id) => latest::Record::KeyForgotten(*id.0.as_bytes()),
    };
    let encoded = Encoded::new(&record, following.as_ref());
    (record, encoded)
}

fn job(id: &[u8], row: JobRow) -> Result<Job, StoreError> {
    let unreadable = |why: String| StoreError::Unreadable(format!("a job: {why}"));
    let id = Uuid::from_slice(id).map_err(|error| unreadable(error.to_string()))?;
    Ok(Job {
        id: JobId(id),
        notification: NotificationId(Uuid::from_bytes(row.notification)),
        recipient: Address::parse(&row.recipient).map_err(|rule| unreadable(rule.to_owned()))?,
        accepted_at: Time(row.accepted_at),
        trace: row.trace.map(TryInto::try_into).transpose().map_err(unreadable)?.map(Arc::new),
        progress: row.progress.try_into().map_err(unreadable)?,
    })
}
