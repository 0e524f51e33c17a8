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
}

impl Slot {
    pub(super) fn free(job: Job) -> Box<Self> {
        Box::new(Self { job, hold: Hold::Free })
    }
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

    pub(super) fn of(progress: &Progress) -> Self {
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

    /// The order of these jobs. A tree that is made of a whole list is as small as it can be, and one
    /// that grew to it would take twice as much.
    #[expect(
        clippy::vec_box,
        reason = "they stay where they are; a list of jobs would be as large"
    )]
    pub(super) fn of(slots: Vec<Box<Slot>>, ids: Ids) -> Self {
        let mut state = Self::new(ids);
        let jobs = || slots.iter().map(|slot| &slot.job);
        let bounded = || jobs().filter(|job| job.progress.is_bounded());
        state.deadlines = bounded().map(|job| (job.progress.deadline, job.id)).collect();
        state.dead = jobs().filter_map(died_at).collect();
        for jobs in sorted(bounded().map(|job| (job.progress.home(), job))).chunk_by(is_same) {
            let standing = jobs.iter().map(|(_, job)| (job.id, Standing::of(&job.progress)));
            let home = Home { jobs: standing.collect(), ..Home::default() };
            state.homes.insert(jobs[0].0.clone(), home);
        }
        let parked = jobs().filter(|job| job.progress.is_parked());
        let parked = parked.flat_map(|job| job.progress.chain.iter().map(move |name| (name, job)));
        for jobs in sorted(parked).chunk_by(is_same) {
            let ids = jobs.iter().map(|(_, job)| job.id);
            state.parked.insert(jobs[0].0.clone(), ids.collect());
        }
        let queued = bounded().filter(|job| !job.progress.is_parked());
        for jobs in sorted(queued.map(|job| (job.progress.provider(), job))).chunk_by(is_same) {
            let lane = Lane::of(jobs.iter().map(|(_, job)| *job));
            state.lanes.insert(jobs[0].0.clone(), lane);
        }
        state.jobs = slots.into_iter().map(|slot| (slot.job.id, slot)).collect();
        state
    }

    pub(super) fn lane(&mut self, provider: &ProviderName) -> &mut Lane {
        self.lanes.entry(provider.clone()).or_default()
    }

    /// Brings a job into memory.
    pub(super) fn insert(&mut self, job: Job) {
        self.jobs.insert(job.id, Slot::free(job.clone()));
        self.put(job);
    }

    /// Takes a free job out of the order. Its place stays with it.
    pub(super) fn take(&mut self, id: JobId, hold: Hold) -> Option<Job> {
        let slot = self.jobs.get_mut(&id).filter(|slot| slot.hold == Hold::Free)?;
        slot.hold = hold;
        let job = slot.job.clone();
        if hold == Hold::Attempt {
            if let Some(home) = self.homes.get_mut(job.progress.home()) {
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
        let Some(slot) = self.jobs.get(&id) else { return };
        let (before, hold) = (slot.job.progress.clone(), slot.hold);
        if hold == Hold::Attempt {
            self.lane(before.provider()).in_flight_count -= 1;
        }
        if job.progress.is_bounded() {
            if before.home() != job.progress.home() {
                self.leave(before.home(), id);
            }
            let home = self.homes.entry(job.progress.home().clone()).or_default();
            home.jobs.insert(id, Standing::of(&job.progress));
        } else {
            self.leave(before.home(), id);
        }
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

    /// A job has no place at `home` any more, if it had one.
    pub(super) fn leave(&mut self, home: &ProviderName, id: JobId) {
        if let Some(home) = self.homes.get_mut(home) {
            home.jobs.remove(&id);
        }
    }
}

/// When a dead letter died, and its name: the order of the dead letters.
pub(super) fn died_at(job: &Job) -> Option<(Time, JobId)> {
    match job.progress.state {
        JobState::Dead { at, .. } => Some((at, job.id)),
        _ => None,
    }
}

/// A job under the name of a provider.
type Named<'a> = (&'a ProviderName, &'a Job);

fn sorted<'a>(jobs: impl Iterator<Item = Named<'a>>) -> Vec<Named<'a>> {
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by_key(|(name, _)| *name);
    jobs
}

fn is_same((one, _): &Named<'_>, other: &Named<'_>) -> bool {
    *one == other.0
}
