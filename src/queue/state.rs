//! The order in memory: where every job that has not ended stands, by all that asks for it.
//!
//! A job is taken out of the order, changed on the disk, and put back where its progress says. Nothing
//! in here waits or fails.
//!
//! A million jobs may wait, so what is kept of each is small, and everything that is ordered is a tree:
//! a table would be copied whole when it grows, while everybody waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;

use super::Ids;
use super::due::Lane;
use crate::core::job::{Job, JobId, JobState, Progress};
use crate::core::outlook::Departures;
use crate::core::provider::ProviderName;
use crate::core::time::Time;

/// See the module.
pub(super) struct State {
    /// Every job that has not ended.
    pub(super) jobs: BTreeMap<JobId, Box<Slot>>,
    pub(super) lanes: BTreeMap<ProviderName, Lane>,
    /// By the provider that accepted them: the jobs that take a place of its queue.
    pub(super) homes: BTreeMap<ProviderName, Home>,
    /// Queued and parked jobs by deadline.
    pub(super) deadlines: BTreeSet<(Time, JobId)>,
    /// Dead letters by the time they died.
    pub(super) dead: BTreeSet<(Time, JobId)>,
    /// Wakes who waits for the earliest deadline when an earlier one than that came in.
    pub(super) deadline_changed: Arc<Notify>,
    /// The deadline that is waited for.
    pub(super) deadline_awaited: Time,
    /// Parked jobs by each provider of their chain, oldest first.
    pub(super) parked: BTreeMap<ProviderName, BTreeSet<JobId>>,
    /// Idempotency keys whose first request is still being answered.
    pub(super) answering: HashMap<String, [u8; 32]>,
    pub(super) ids: Ids,
    pub(super) stopping: bool,
    /// The store takes no more records: no outcome of an attempt could be kept.
    pub(super) store_stopped: bool,
}

pub(super) struct Slot {
    pub(super) job: Job,
    pub(super) hold: Hold,
    /// The provider with which the job has its place now.
    pub(super) place: Option<ProviderName>,
}

/// Whether a job stands in the order or is held by a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Free,
    Attempt,
    Change,
}

#[derive(Default)]
pub(super) struct Home {
    /// Oldest first.
    pub(super) jobs: BTreeMap<JobId, Standing>,
    /// Places of jobs whose acceptance is being committed.
    pub(super) reserved_count: usize,
    /// How fast places became free, from the first that did.
    pub(super) departures: Option<Departures>,
}

/// When a job that has a place may be attempted next, or why there is no such time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing(Time);

impl Standing {
    const IN_FLIGHT: Self = Self(Time(u64::MAX));
    const PARKED: Self = Self(Time(u64::MAX - 1));

    fn of(progress: &Progress) -> Self {
        match progress.state {
            JobState::Queued { due } => Self(due.min(Time(u64::MAX - 2))),
            _ => Self::PARKED,
        }
    }

    pub(super) fn is_in_flight(self) -> bool {
        self == Self::IN_FLIGHT
    }

    /// `None` when it is in flight or parked.
    pub(super) fn due(self) -> Option<Time> {
        (self < Self::PARKED).then_some(self.0)
    }
}

impl Home {
    pub(super) fn depth(&self) -> usize {
        self.jobs.len() + self.reserved_count
    }
}

impl State {
    pub(super) fn new(ids: Ids) -> Self {
        Self {
            jobs: BTreeMap::new(),
            lanes: BTreeMap::new(),
            homes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dead: BTreeSet::new(),
            deadline_changed: Arc::default(),
            deadline_awaited: Time(u64::MAX),
            parked: BTreeMap::new(),
            answering: HashMap::new(),
            ids,
            stopping: false,
            store_stopped: false,
        }
    }

    /// Makes the trees as small as they can be, once, after they were filled.
    pub(super) fn pack(&mut self) {
        fn packed<T: IntoIterator + FromIterator<T::Item> + Default>(tree: &mut T) {
            *tree = std::mem::take(tree).into_iter().collect();
        }
        packed(&mut self.jobs);
        packed(&mut self.deadlines);
        packed(&mut self.dead);
        self.homes.values_mut().for_each(|home| packed(&mut home.jobs));
        self.parked.values_mut().for_each(packed);
        self.lanes.values_mut().for_each(Lane::pack);
    }

    pub(super) fn lane(&mut self, provider: &ProviderName) -> &mut Lane {
        self.lanes.entry(provider.clone()).or_default()
    }

    /// Brings a job into memory.
    pub(super) fn insert(&mut self, job: Job) {
        let slot = Slot { job: job.clone(), hold: Hold::Change, place: None };
        self.jobs.insert(job.id, Box::new(slot));
        self.put(job);
    }

    /// Takes a free job out of the order. Its place stays with it.
    pub(super) fn take(&mut self, id: JobId, hold: Hold) -> Option<Job> {
        let slot = self.jobs.get_mut(&id).filter(|slot| slot.hold == Hold::Free)?;
        slot.hold = hold;
        let job = slot.job.clone();
        if hold == Hold::Attempt {
            if let Some(home) = slot.place.as_ref().and_then(|name| self.homes.get_mut(name)) {
                home.jobs.insert(id, Standing::IN_FLIGHT);
            }
            self.lane(job.progress.provider()).in_flight_count += 1;
        }
        self.deadlines.remove(&(job.progress.deadline, id));
        match &job.progress.state {
            JobState::Queued { .. } => self.lane(job.progress.provider()).remove(&job),
            JobState::Dead { at, .. } => {
                self.dead.remove(&(*at, id));
                for provider in job.progress.chain.iter() {
                    if let Some(parked) = self.parked.get_mut(provider) {
                        parked.remove(&id);
                    }
                }
            }
            JobState::Delivered { .. } | JobState::Cancelled { .. } => {}
        }
        Some(job)
    }

    /// Puts a held job where its progress says; one that ended leaves memory.
    pub(super) fn put(&mut self, job: Job) {
        let id = job.id;
        if let Some(slot) = self.jobs.get(&id).filter(|slot| slot.hold == Hold::Attempt) {
            let provider = slot.job.progress.provider().clone();
            self.lane(&provider).in_flight_count -= 1;
        }
        self.occupy(&job);
        match &job.progress.state {
            JobState::Queued { .. } => {
                self.expires(&job);
                self.lane(job.progress.provider()).insert(&job);
            }
            JobState::Dead { at, .. } => {
                self.dead.insert((*at, id));
                if job.progress.is_parked() {
                    self.expires(&job);
                    for provider in job.progress.chain.iter() {
                        let parked = self.parked.entry(provider.clone()).or_default();
                        parked.insert(id);
                    }
                }
            }
            JobState::Delivered { .. } | JobState::Cancelled { .. } => {
                self.jobs.remove(&id);
                return;
            }
        }
        if let Some(slot) = self.jobs.get_mut(&id) {
            slot.job = job;
            slot.hold = Hold::Free;
        }
    }

    fn expires(&mut self, job: &Job) {
        let deadline = job.progress.deadline;
        self.deadlines.insert((deadline, job.id));
        if deadline < self.deadline_awaited {
            self.deadline_changed.notify_one();
        }
    }

    /// A place of `home` became free.
    pub(super) fn left(&mut self, home: &ProviderName, opened_at: Time, now: Time) {
        let home = self.homes.entry(home.clone()).or_default();
        home.departures.get_or_insert_with(|| Departures::since(opened_at)).add(now);
    }

    /// Gives a job the place that its progress asks for, and frees the one that it had.
    pub(super) fn occupy(&mut self, job: &Job) {
        let wanted = job.progress.is_bounded().then(|| job.progress.home().clone());
        let Some(slot) = self.jobs.get_mut(&job.id) else { return };
        if slot.place != wanted {
            let left = std::mem::replace(&mut slot.place, wanted.clone());
            if let Some(home) = left.and_then(|name| self.homes.get_mut(&name)) {
                home.jobs.remove(&job.id);
            }
        }
        if let Some(name) = wanted {
            let home = self.homes.entry(name).or_default();
            home.jobs.insert(job.id, Standing::of(&job.progress));
        }
    }
}
