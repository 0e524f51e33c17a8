//! A [`Store`] in memory that keeps every promise of the trait but survival, and fails on demand.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use breakglass_mailer::core::job::{Attempt, Job, JobId, JobState, Progress};
use breakglass_mailer::core::notification::{Content, Notification, NotificationId};
use breakglass_mailer::core::pace::Tally;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Change, Page, Store, StoreError};
use futures_util::future::BoxFuture;

/// See the module. A clone is the same store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Kept {
    notifications: BTreeMap<NotificationId, (Notification, Content)>,
    jobs: BTreeMap<JobId, (Job, Vec<Attempt>)>,
    keys: HashMap<String, ([u8; 32], NotificationId)>,
    failure: Option<StoreError>,
}

/// How many jobs one call of `jobs` looks at: few, so that tests see pages that are not full.
const JOBS_SCANNED_MAX: usize = 50;

impl MemoryStore {
    /// From now on every commit fails like this, or none does.
    pub fn fail(&self, failure: Option<StoreError>) {
        self.kept().failure = failure;
    }

    /// Has this happen after the next job was read, before whoever asked gets it.
    pub fn once_a_job_is_read(&self, happens: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().expect("not poisoned") = Some(Box::new(happens));
    }

    /// How many notifications are remembered.
    pub fn notifications_count(&self) -> usize {
        self.kept().notifications.len()
    }

    /// Takes these changes in at once.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut kept = self.kept();
        changes.into_iter().for_each(|change| kept.apply(change));
    }

    /// All notifications that are remembered, and all jobs.
    pub fn all(&self) -> (Vec<Notification>, Vec<(Job, Vec<Attempt>)>) {
        let kept = self.kept();
        let notifications = kept.notifications.values().map(|(notification, _)| notification);
        (notifications.cloned().collect(), kept.jobs.values().cloned().collect())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no test panics inside the store")
    }
}

impl Store for MemoryStore {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), StoreError>> {
        let store = self.clone();
        Box::pin(async move {
            // As on a disk, others run while a commit is under way.
            tokio::task::yield_now().await;
            let mut kept = store.kept();
            if let Some(failure) = &kept.failure {
                return Err(failure.clone());
            }
            changes.into_iter().for_each(|change| kept.apply(change));
            Ok(())
        })
    }

    fn blocks(&self) -> bool {
        false
    }

    fn live(&self, each: &mut dyn FnMut(Job)) -> Result<(), StoreError> {
        let jobs: Vec<Job> = self.kept().jobs.values().map(|(job, _)| job.clone()).collect();
        jobs.into_iter().filter(|job| !job.progress.has_ended()).for_each(each);
        Ok(())
    }

    fn content(&self, id: NotificationId) -> Result<Content, StoreError> {
        let kept = self.kept();
        let is_needed =
            kept.jobs.values().any(|(job, _)| job.notification == id && !job.progress.has_ended());
        let found = kept.notifications.get(&id).filter(|_| is_needed);
        let gone = || StoreError::Unreadable(format!("the content of {id} is gone"));
        found.map(|(_, content)| content.clone()).ok_or_else(gone)
    }

    fn notification(&self, id: NotificationId) -> Result<Option<Notification>, StoreError> {
        Ok(self.kept().notifications.get(&id).map(|(notification, _)| notification.clone()))
    }

    fn job(&self, id: JobId) -> Result<Option<(Job, Vec<Attempt>)>, StoreError> {
        let found = self.kept().jobs.get(&id).cloned();
        let meanwhile = self.meanwhile.lock().expect("not poisoned").take();
        if let Some(happens) = meanwhile {
            happens();
        }
        Ok(found)
    }

    fn jobs(
        &self,
        before: Option<JobId>,
        limit: usize,
        keep: &dyn Fn(&Job) -> bool,
    ) -> Result<Page<Job>, StoreError> {
        // `keep` may ask the queue, which may ask us: not under the lock.
        let scanned: Vec<Job> = {
            let kept = self.kept();
            let newest_first = kept.jobs.values().rev().map(|(job, _)| job);
            let older = newest_first.filter(|job| before.is_none_or(|before| job.id < before));
            older.take(JOBS_SCANNED_MAX + 1).cloned().collect()
        };
        let mut items = Vec::new();
        let mut last = None;
        for (index, job) in scanned.iter().enumerate() {
            if index == JOBS_SCANNED_MAX || items.len() == limit {
                return Ok(Page { items, next: last });
            }
            last = Some(job.id);
            if keep(job) {
                items.push(job.clone());
            }
        }
        Ok(Page { items, next: None })
    }

    fn accepted_under(&self, key: &str) -> Result<Option<([u8; 32], NotificationId)>, StoreError> {
        Ok(self.kept().keys.get(key).copied())
    }

    fn ended_before(&self, time: Time, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let kept = self.kept();
        let ended = kept.jobs.values().filter(|(job, _)| match job.progress.state {
            JobState::Delivered { at } | JobState::Cancelled { at } => at < time,
            JobState::Queued { .. } | JobState::Dead { .. } => false,
        });
        Ok(ended.map(|(job, _)| job.id).take(limit).collect())
    }

    fn delivered_since(&self, time: Time) -> Result<Tally, StoreError> {
        let mut tally = Tally::new();
        for (job, _) in self.kept().jobs.values() {
            if let JobState::Delivered { at } = job.progress.state
                && time <= at
            {
                let times = tally.entry(job.progress.provider().clone()).or_default();
                *times.entry(at).or_default() += 1;
            }
        }
        Ok(tally)
    }

    fn keys_before(&self, time: Time, limit: usize) -> Result<Vec<NotificationId>, StoreError> {
        let kept = self.kept();
        let ids = kept.keys.values().map(|(_, id)| *id).filter(|id| {
            kept.notifications.get(id).is_none_or(|(found, _)| found.accepted_at < time)
        });
        Ok(ids.take(limit).collect())
    }
}

impl Kept {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Accept { notification, content, deadline, key } => {
                let (chain, now) = (&notification.chain, notification.accepted_at);
                for (id, recipient) in &notification.jobs {
                    let job = Job {
                        id: *id,
                        notification: notification.id,
                        recipient: recipient.clone(),
                        accepted_at: now,
                        trace: notification.trace.clone(),
                        progress: Progress::fresh(chain.clone(), now, deadline),
                    };
                    self.jobs.insert(*id, (job, Vec::new()));
                }
                if let Some(key) = key {
                    self.keys.insert(key.key, (key.fingerprint, notification.id));
                }
                self.notifications.insert(notification.id, (notification, content));
            }
            Change::Update { job, progress, attempt } => {
                let (found, attempts) = self.jobs.get_mut(&job).expect("updates of known jobs");
                found.progress = progress;
                attempts.extend(attempt);
            }
            Change::ForgetJob(id) => {
                let Some((gone, _)) = self.jobs.remove(&id) else { return };
                let id = gone.notification;
                if self.jobs.values().all(|(job, _)| job.notification != id) {
                    self.notifications.remove(&id);
                }
            }
            Change::ForgetKey(id) => self.keys.retain(|_, (_, accepted)| *accepted != id),
        }
    }
}
