//! The store as the queue sees it.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::DiskStore;
use super::entry::Entry;
use super::frame::Encoded;
use super::make::guarded;
use super::rows::{Jobs, LiveJob};
use crate::core::job::{Attempt, Job, JobId};
use crate::core::notification::{Content, Notification, NotificationId};
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
        let records = changes.into_iter().map(encode).collect();
        let answer = self.shared.append(records, jobs_count, leaves_reserve);
        answer.map(|answer| answer.expect("whoever waits is answered or never told")).boxed()
    }

    fn live(&self, each: &mut dyn FnMut(Job)) -> Result<(), StoreError> {
        let mut known = Jobs::default();
        let mut take = |live: LiveJob| match known.job(live) {
            Ok(job) => each(job),
            // It stays on disk, and the others go out.
            Err(error) => tracing::error!(%error, "a job is left alone"),
        };
        if let Some(live) = self.shared.alive_at_open() {
            live.into_iter().for_each(take);
            return Ok(());
        }
        let index = self.shared.index_now()?;
        for row in index.newest_first(None) {
            let row = row?;
            let live = row.jobs.iter().filter(|job| job.ended_at().is_none());
            live.for_each(|job| take(row.live(job)));
        }
        if let Err(error) = guarded(|| index.rows.shed_pages()) {
            tracing::warn!(error, "the index keeps more in memory than it has to");
        }
        Ok(())
    }

    fn content_at_hand(&self, id: NotificationId) -> Option<Content> {
        let location = self.shared.content_location(id.0.as_bytes())?;
        self.shared.frames.content_at_hand(&location)?.try_into().ok()
    }

    fn content(&self, id: NotificationId) -> Result<Content, StoreError> {
        let key = id.0.as_bytes();
        let mut tried = None;
        loop {
            let location = self.shared.content_location(key);
            let Some(location) = location.filter(|found| Some(*found) != tried) else {
                return Err(StoreError::Unreadable(format!("the content of notification {id}")));
            };
            match self.shared.frames.content(&location) {
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
        let index = self.shared.index_now()?;
        let mut tried = None;
        loop {
            let Some(row) = index.row(id.0.as_bytes())? else { return Ok(None) };
            match self.shared.frames.notification(&row.location) {
                Ok(found) => return found.try_into().map(Some).map_err(StoreError::Unreadable),
                Err(StoreError::Unreadable(what)) if tried == Some(row.location) => {
                    tracing::error!(
                        what,
                        "a notification is told of without its subject and warnings"
                    );
                    let known = row.notification();
                    return known.try_into().map(Some).map_err(StoreError::Unreadable);
                }
                // It may have been carried to another segment since it was looked up.
                Err(StoreError::Unreadable(_)) => tried = Some(row.location),
                Err(error) => return Err(error),
            }
        }
    }

    fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError> {
        let index = self.shared.index_now()?;
        let Some(row) = index.row_of_job(id.0.as_bytes())? else { return Ok(None) };
        let Some(job) = row.job(id.0.as_bytes()) else { return Ok(None) };
        let attempts = index.attempts(job)?.into_iter();
        let attempts: Result<Vec<_>, _> = attempts.map(Attempt::try_from).collect();
        let attempts = attempts.map_err(StoreError::Unreadable)?;
        Ok(Some((Jobs::default().job(row.live(job))?, attempts)))
    }

    fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: &dyn Fn(&Job) -> bool,
    ) -> Result<Page<Job>, StoreError> {
        let index = self.shared.index_now()?;
        let before = before.map(|id| *id.0.as_bytes());
        let first = match &before {
            Some(job) => index.row_of_job(job)?,
            None => None,
        };
        let notification = first.as_ref().map(|row| row.id);
        // A job that is not known any more was before what comes behind its own id.
        let rest = index.newest_first(notification.as_ref().or(before.as_ref()));
        let mut known = Jobs::default();
        let mut page = Page { items: Vec::new(), next: None };
        let (mut last, mut seen_count) = (None, 0);
        for row in first.map(Ok).into_iter().chain(rest) {
            let row = row?;
            let is_first = Some(row.id) == notification;
            let mut jobs = row.jobs.iter().rev();
            if is_first {
                jobs.find(|job| Some(job.id) == before);
            }
            for job in jobs {
                if page.items.len() == limit || seen_count == SCAN_MAX {
                    page.next = last;
                    return Ok(page);
                }
                seen_count += 1;
                let job = known.job(row.live(job))?;
                last = Some(job.id);
                if keep(&job) {
                    page.items.push(job);
                }
            }
        }
        Ok(page)
    }

    fn accepted_under(&self, key: &str) -> Result<Option<([u8; 32], NotificationId)>, StoreError> {
        let row = self.shared.index_now()?.under_key(key)?;
        Ok(row.and_then(|row| {
            let id = NotificationId(Uuid::from_bytes(row.id));
            row.key.as_ref().map(|key| (key.fingerprint, id))
        }))
    }

    fn ended_before(&self, time: Time, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let ids = self.shared.index_now()?.ended_before(time.0, limit)?;
        Ok(ids.into_iter().map(|id| JobId(Uuid::from_bytes(id))).collect())
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
        Ok(ids.into_iter().map(|id| NotificationId(Uuid::from_bytes(id))).collect())
    }
}

fn jobs_in(change: &Change) -> usize {
    match change {
        Change::Accept { notification, .. } => notification.jobs.len(),
        Change::Update { .. } | Change::ForgetJob(_) => 1,
        Change::ForgetKey(_) => 0,
    }
}

fn encode(change: Change) -> (Entry, Encoded) {
    let mut following = None;
    let record = match change {
        Change::Accept { notification, content, deadline, key } => {
            following = Some(latest::Content::from(content));
            latest::Record::Accepted(latest::Accepted {
                notification: notification.into(),
                deadline: deadline.0,
                key: key.map(Into::into),
            })
        }
        Change::Update { job, progress, attempt } => latest::Record::Updated(latest::Updated {
            job: *job.0.as_bytes(),
            progress: progress.into(),
            attempt: attempt.map(Into::into),
        }),
        Change::ForgetJob(job) => latest::Record::JobForgotten(*job.0.as_bytes()),
        Change::ForgetKey(id) => latest::Record::KeyForgotten(*id.0.as_bytes()),
    };
    let encoded = Encoded::new(&record, following.as_ref());
    (record.into(), encoded)
}
