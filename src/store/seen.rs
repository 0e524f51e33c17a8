//! What is remembered and where each job stands, told by the journal alone, in memory.
//!
//! Of each job the newest record counts. A record that carries a notification forward is as old as
//! what it was made from. It is what `store stats` counts, and what a store goes on with that is
//! opened where there is no room for an index.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::Scanned;
use super::journal::Location;
use super::rows::{LiveJob, ended_at, fresh};
use crate::migrations::latest::{Id, Notification, Progress, Record, Trace};

/// The journal as far as it was read.
#[derive(Default)]
pub(super) struct Seen {
    notifications: HashMap<Id, Kept>,
    jobs: HashMap<Id, Stand>,
    forgotten_jobs: HashSet<Id>,
    forgotten_keys: HashSet<Id>,
}

/// Where a job stands, and the number of the record that says so.
pub(super) struct Stand {
    sequence: u64,
    pub(super) progress: Progress,
}

/// What is kept of a notification.
struct Kept {
    accepted_at: u64,
    trace: Option<Trace>,
    /// With their recipients.
    jobs: Vec<(Id, String)>,
    has_key: bool,
    location: Location,
}

/// A notification of which something is remembered.
pub(super) struct Remembered<'a> {
    pub(super) id: Id,
    pub(super) accepted_at: u64,
    trace: Option<&'a Trace>,
    pub(super) has_key: bool,
    pub(super) location: Location,
    /// Each job that is remembered, with its recipient.
    pub(super) jobs: Vec<(Id, &'a str, &'a Stand)>,
}

impl Stand {
    fn new(sequence: u64, mut progress: Progress) -> Self {
        if ended_at(&progress).is_some() {
            // The history may be long, and of its jobs nobody asks more.
            let provider = provider(&progress).to_owned();
            progress = Progress { chain: vec![provider], position: 0, ..progress };
        }
        Self { sequence, progress }
    }

    /// The provider whose turn it is or was last.
    pub(super) fn provider(&self) -> &str {
        provider(&self.progress)
    }

    /// Whether it is queued or dead.
    pub(super) fn is_alive(&self) -> bool {
        ended_at(&self.progress).is_none()
    }
}

fn provider(progress: &Progress) -> &str {
    let position = usize::from(progress.position);
    progress.chain.get(position).or(progress.chain.last()).map_or("", String::as_str)
}

impl Remembered<'_> {
    /// Whether a job needs its content.
    pub(super) fn needs_content(&self) -> bool {
        self.jobs.iter().any(|(_, _, stand)| stand.is_alive())
    }
}

impl Seen {
    /// Takes the next record of the journal.
    pub(super) fn take(&mut self, scanned: Scanned) {
        let Scanned { sequence, record, location } = scanned;
        match record {
            Record::Accepted(accepted) => {
                let notification = &accepted.notification;
                for (job, _) in &notification.jobs {
                    let (chain, at) = (notification.chain.clone(), notification.accepted_at);
                    let progress = fresh(chain, at, accepted.deadline);
                    self.stands(*job, Stand::new(sequence, progress));
                }
                self.keep(notification, accepted.key.is_some(), location);
            }
            Record::Updated(updated) => {
                self.stands(updated.job, Stand::new(sequence, updated.progress));
            }
            Record::JobForgotten(job) => {
                self.jobs.remove(&job);
                self.forgotten_jobs.insert(job);
            }
            Record::KeyForgotten(notification) => {
                self.forgotten_keys.insert(notification);
            }
            Record::Carried(carried) => {
                let as_of = carried.as_of;
                let listed: HashSet<_> = carried.jobs.iter().map(|job| job.job).collect();
                let is_newer =
                    |job: &Id| self.jobs.get(job).is_some_and(|stand| as_of < stand.sequence);
                let is_overtaken = listed.iter().any(is_newer);
                for (job, _) in &carried.notification.jobs {
                    if !listed.contains(job) && !is_newer(job) {
                        self.forgotten_jobs.insert(*job);
                    }
                }
                for job in carried.jobs {
                    self.stands(job.job, Stand::new(as_of, job.progress));
                }
                if !(is_overtaken && self.notifications.contains_key(&carried.notification.id)) {
                    self.keep(&carried.notification, carried.key.is_some(), location);
                }
            }
        }
    }

    fn stands(&mut self, job: Id, stand: Stand) {
        if self.jobs.get(&job).is_none_or(|known| known.sequence <= stand.sequence) {
            self.jobs.insert(job, stand);
        }
    }

    fn keep(&mut self, notification: &Notification, has_key: bool, location: Location) {
        let (accepted_at, jobs) = (notification.accepted_at, notification.jobs.clone());
        let trace = notification.trace.clone();
        let kept = Kept { accepted_at, trace, jobs, has_key, location };
        self.notifications.insert(notification.id, kept);
    }

    /// Every notification of which something is remembered.
    pub(super) fn remembered(&self) -> impl Iterator<Item = Remembered<'_>> {
        self.notifications.iter().map(|(id, kept)| {
            let jobs = kept.jobs.iter().filter(|(job, _)| !self.forgotten_jobs.contains(job));
            let jobs = jobs
                .filter_map(|(job, to)| Some((*job, to.as_str(), self.jobs.get(job)?)))
                .collect();
            Remembered {
                id: *id,
                accepted_at: kept.accepted_at,
                trace: kept.trace.as_ref(),
                has_key: kept.has_key && !self.forgotten_keys.contains(id),
                location: kept.location,
                jobs,
            }
        })
    }

    /// The jobs that are queued or dead, and where the contents lie that they need.
    pub(super) fn alive(&self) -> (Vec<LiveJob>, BTreeMap<Id, Location>) {
        let (mut live, mut contents) = (Vec::new(), BTreeMap::new());
        for remembered in self.remembered().filter(Remembered::needs_content) {
            let Remembered { id, accepted_at, trace, location, jobs, .. } = remembered;
            if location.content_bytes > 0 {
                contents.insert(id, location);
            }
            for (job, recipient, stand) in jobs.into_iter().filter(|(_, _, job)| job.is_alive()) {
                live.push(LiveJob {
                    id: job,
                    notification: id,
                    recipient: recipient.to_owned(),
                    accepted_at,
                    trace: trace.cloned(),
                    progress: stand.progress.clone(),
                });
            }
        }
        (live, contents)
    }
}
