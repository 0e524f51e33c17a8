//! What a store holds, in numbers: never a recipient, a subject or a body.
//!
//! It is counted from the journal alone, so it needs neither the index nor a stopped server. Of each
//! job the newest record counts. A record that carries a notification forward is as old as what it
//! was made from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::OpenError;
use super::journal::{Location, Written};
use super::recover::look;
use crate::core::job::DeadReason;
use crate::migrations::latest::{Id, Notification, Progress, Record, State};

/// See the module.
#[derive(Debug, Default)]
pub struct Stats {
    /// The jobs that are remembered, by the provider whose turn it is or was last.
    pub providers: BTreeMap<String, JobCounts>,
    /// The contents that a queued or dead job needs.
    pub content_bytes: u64,
    /// All segments.
    pub journal_bytes: u64,
    /// The part of the segments that is needed still.
    pub alive_bytes: u64,
    /// When the oldest notification with a queued job was accepted: milliseconds since the epoch.
    pub oldest_queued_at: Option<u64>,
    /// The idempotency keys that are remembered.
    pub keys_count: u64,
    /// Places of the journal that could not be read: what was there is not counted.
    pub damage_count: usize,
}

/// Jobs by their state.
#[derive(Debug, Default)]
pub struct JobCounts {
    /// Wait for an attempt, or are in flight.
    pub queued: u64,
    /// Given up, by the reason; those that were unreachable are parked.
    pub dead: BTreeMap<&'static str, u64>,
    /// Delivered.
    pub delivered: u64,
    /// Cancelled.
    pub cancelled: u64,
}

/// Counts what is in `folder`, also while a server works on it.
///
/// # Errors
/// When there is no store, or nothing of it can be read.
pub fn stats(folder: &Path) -> Result<Stats, OpenError> {
    let (seen, found) = look(folder, Seen::take)?;
    let journal_bytes = found.segments.iter().map(|(_, bytes)| bytes).sum();
    let damage_count = found.damage.len() + found.refusals.len();
    Ok(Stats { journal_bytes, damage_count, ..seen.count() })
}

/// The journal as far as it was read.
#[derive(Default)]
struct Seen {
    notifications: HashMap<Id, Kept>,
    jobs: HashMap<Id, Stand>,
    forgotten_jobs: HashSet<Id>,
    forgotten_keys: HashSet<Id>,
}

/// Where a job stands, and the number of the record that says so.
struct Stand {
    sequence: u64,
    provider: String,
    state: State,
}

/// What is kept of a notification.
struct Kept {
    accepted_at: u64,
    jobs: Vec<Id>,
    has_key: bool,
    location: Location,
}

impl Stand {
    fn new(sequence: u64, mut progress: Progress) -> Self {
        let position = usize::from(progress.position).min(progress.chain.len().saturating_sub(1));
        let provider = progress.chain.drain(..).nth(position).unwrap_or_default();
        Self { sequence, provider, state: progress.state }
    }
}

impl Seen {
    fn take(&mut self, written: Written) {
        let Written { sequence, record, location } = written;
        match record {
            Record::Accepted(accepted) => {
                let notification = &accepted.notification;
                for (job, _) in &notification.jobs {
                    let provider = notification.chain.first().cloned().unwrap_or_default();
                    let state = State::Queued { due: notification.accepted_at };
                    self.stands(*job, Stand { sequence, provider, state });
                }
                self.keep(notification, accepted.key.is_some(), location);
            }
            Record::Updated(updated) => {
                self.stands(updated.job, Stand::new(sequence, updated.progress));
            }
            Record::JobForgotten(job) => {
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
        let jobs = notification.jobs.iter().map(|(job, _)| *job).collect();
        let kept = Kept { accepted_at: notification.accepted_at, jobs, has_key, location };
        self.notifications.insert(notification.id, kept);
    }

    fn count(&self) -> Stats {
        let mut stats = Stats::default();
        for (id, kept) in &self.notifications {
            let has_key = kept.has_key && !self.forgotten_keys.contains(id);
            stats.keys_count += u64::from(has_key);
            let remembered = kept.jobs.iter().filter(|job| !self.forgotten_jobs.contains(*job));
            let mut is_remembered = has_key;
            let mut needs_content = false;
            for stand in remembered.filter_map(|job| self.jobs.get(job)) {
                is_remembered = true;
                let counts = stats.providers.entry(stand.provider.clone()).or_default();
                match &stand.state {
                    State::Queued { .. } => {
                        counts.queued += 1;
                        let oldest = stats.oldest_queued_at.get_or_insert(kept.accepted_at);
                        *oldest = kept.accepted_at.min(*oldest);
                    }
                    State::Dead { reason, .. } => {
                        let reason = DeadReason::from(*reason).as_str();
                        *counts.dead.entry(reason).or_default() += 1;
                    }
                    State::Delivered { .. } => counts.delivered += 1,
                    State::Cancelled { .. } => counts.cancelled += 1,
                }
                needs_content |= matches!(stand.state, State::Queued { .. } | State::Dead { .. });
            }
            let content_bytes = if needs_content { kept.location.content_bytes } else { 0 };
            stats.content_bytes += content_bytes;
            if is_remembered {
                stats.alive_bytes += kept.location.record_bytes + content_bytes;
            }
        }
        stats
    }
}
