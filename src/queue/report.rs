//! What a person sees of the queue, from memory.

use std::collections::BTreeMap;

use super::Queue;
use super::due::Lane;
use super::state::{Hold, Slot, State, died_at};
use crate::core::job::{DeadReason, Job, JobId, JobState};
use crate::core::notification::AddressPart;
use crate::core::outlook::{Departures, Outlook};
use crate::core::provider::ProviderName;
use crate::core::time::Time;

/// So many jobs are looked at without letting others at the queue.
const LOOKED_AT_ONCE: usize = 4096;

/// Where a job stands, as the API says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Due now.
    Ready,
    /// An attempt is under way.
    InFlight,
    /// Waits for its backoff.
    Scheduled,
    /// At its end: a server took it.
    Delivered,
    /// A dead letter.
    Dead,
    /// At its end: taken out by an operator.
    Cancelled,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::InFlight,
        Self::Scheduled,
        Self::Delivered,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::InFlight => "inFlight",
            Self::Scheduled => "scheduled",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The jobs that a provider accepted and that are not at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// All of them, the ones being committed included; never more than `queueSize` was when they
    /// were accepted.
    pub depth: usize,
    /// Due now.
    pub ready: usize,
    /// Waiting for their backoff.
    pub scheduled: usize,
    /// An attempt is under way.
    pub in_flight: usize,
    /// Waiting for a provider to recover.
    pub parked: usize,
    /// When the oldest of them was accepted.
    pub oldest_accepted_at: Option<Time>,
    /// The earliest time at which one of them may be attempted.
    pub next_attempt_at: Option<Time>,
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Those of this provider: the last one of their chain that was tried.
    pub provider: Option<ProviderName>,
    /// Those given up for this reason.
    pub reason: Option<DeadReason>,
    /// Those to a recipient with this in its address.
    pub recipient: Option<AddressPart>,
}

impl DeadFilter {
    fn takes_all(&self) -> bool {
        self.provider.is_none() && self.reason.is_none() && self.recipient.is_none()
    }

    fn takes(&self, job: &Job) -> bool {
        let JobState::Dead { reason, .. } = job.progress.state else { return false };
        self.provider.as_ref().is_none_or(|provider| provider == job.progress.provider())
            && self.reason.is_none_or(|wanted| wanted == reason)
            && self.recipient.as_ref().is_none_or(|part| part.is_in(&job.recipient))
    }
}

/// A part of the dead letters, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeadPage {
    /// How many the filter takes in all.
    pub total: usize,
    /// The items of this page.
    pub items: Vec<Job>,
    /// Where the next page begins.
    pub next: Option<(Time, JobId)>,
}

impl Queue {
    /// Where a job stands now.
    #[must_use]
    pub fn phase(&self, job: &Job) -> Phase {
        match job.progress.state {
            JobState::Dead { .. } => Phase::Dead,
            JobState::Delivered { .. } => Phase::Delivered,
            JobState::Cancelled { .. } => Phase::Cancelled,
            JobState::Queued { due } => {
                let hold = self.lock().jobs.get(&job.id).map(|slot| slot.hold);
                waiting_phase(hold.unwrap_or(Hold::Free), due, self.clock.now())
            }
        }
    }

    /// What is known of when the queue of `provider` has `missing_count` places more.
    #[must_use]
    pub fn outlook(&self, provider: &ProviderName, missing_count: usize) -> Outlook {
        let now = self.clock.now();
        let mut state = self.lock();
        let places = u64::try_from(missing_count).unwrap_or(u64::MAX);
        let (lane, parked) = (state.lanes.get(provider), state.parked.get(provider));
        let is_under_way = lane.is_some_and(|lane| 0 < lane.in_flight_count);
        let first_due = lane.and_then(Lane::first_due);
        let has_parked = parked.is_some_and(|parked| !parked.is_empty());
        let home = state.homes.entry(provider.clone()).or_default();
        let departures = home.departures.get_or_insert_with(|| Departures::since(self.opened_at));
        Outlook {
            at_this_pace: departures.time_for(places, now),
            is_under_way,
            first_due,
            has_parked,
        }
    }

    /// The depth of each provider's queue, by the provider that accepted the jobs. `starts` tells
    /// which providers take no mail before a later time.
    #[must_use]
    pub fn depths(&self, starts: &BTreeMap<ProviderName, Time>) -> Vec<(ProviderName, Depth)> {
        let now = self.clock.now();
        let names: Vec<ProviderName> = self.lock().homes.keys().cloned().collect();
        let start = |state: &State, id: &JobId| {
            let slot = if starts.is_empty() { None } else { state.jobs.get(id) };
            let start = slot.and_then(|slot| starts.get(slot.job.progress.provider()));
            start.copied().unwrap_or_default()
        };
        // One after the other, so that nobody has to wait for all of them.
        let depth_of = |name: ProviderName| {
            let state = self.lock();
            let home = state.homes.get(&name)?;
            let mut depth = Depth { depth: home.depth(), ..Depth::default() };
            let oldest = home.jobs.first_key_value().and_then(|(id, _)| state.jobs.get(id));
            depth.oldest_accepted_at = oldest.map(|slot| slot.job.accepted_at);
            for (id, standing) in &home.jobs {
                match standing.due() {
                    Some(due) => {
                        if due <= now {
                            depth.ready += 1;
                        } else {
                            depth.scheduled += 1;
                        }
                        let earliest = depth.next_attempt_at.unwrap_or(Time(u64::MAX));
                        if due < earliest {
                            let due = due.max(start(&state, id));
                            depth.next_attempt_at = Some(earliest.min(due));
                        }
                    }
                    None if standing.is_in_flight() => depth.in_flight += 1,
                    None => depth.parked += 1,
                }
            }
            drop(state);
            Some((name, depth))
        };
        names.into_iter().filter_map(depth_of).collect()
    }

    /// Jobs that have not ended, stand in `phase` and are to be kept, newest first, older than
    /// `before`.
    #[must_use]
    pub fn in_phase(
        &self,
        phase: Phase,
        keep: impl Fn(&Job) -> bool,
        before: Option<JobId>,
        limit: usize,
    ) -> Vec<Job> {
        let now = self.clock.now();
        let stands = |slot: &Slot| match slot.job.progress.state {
            JobState::Queued { due } => waiting_phase(slot.hold, due, now) == phase,
            _ => phase == Phase::Dead,
        };
        let (mut found, mut before) = (Vec::new(), before);
        loop {
            // Some at a time, so that nobody has to wait for all of them.
            let state = self.lock();
            let older = match before {
                Some(before) => state.jobs.range(..before),
                None => state.jobs.range(..),
            };
            let mut last = None;
            for (id, slot) in older.rev().take(LOOKED_AT_ONCE) {
                last = Some(*id);
                if stands(slot) && keep(&slot.job) {
                    found.push(slot.job.clone());
                    if found.len() == limit {
                        return found;
                    }
                }
            }
            before = last;
            if before.is_none() {
                return found;
            }
        }
    }

    /// Dead letters, newest first, older than `before`.
    #[must_use]
    pub fn dead_letters(
        &self,
        filter: &DeadFilter,
        before: Option<(Time, JobId)>,
        limit: usize,
    ) -> DeadPage {
        let state = self.lock();
        let mut page = DeadPage::default();
        let counts_all = filter.takes_all();
        for entry in state.dead.iter().rev() {
            if counts_all && page.next.is_some() {
                break;
            }
            let Some(slot) = state.jobs.get(&entry.1).filter(|slot| filter.takes(&slot.job)) else {
                continue;
            };
            page.total += 1;
            if before.is_some_and(|before| *entry >= before) {
                continue;
            }
            if page.items.len() < limit {
                page.items.push(slot.job.clone());
            } else if page.next.is_none() {
                page.next = page.items.last().and_then(died_at);
            }
        }
        if counts_all {
            page.total = state.dead.len();
        }
        page
    }
}

/// A job that is held by a change of its own counts as waiting: nothing is on the wire.
fn waiting_phase(hold: Hold, due: Time, now: Time) -> Phase {
    match hold {
        Hold::Attempt => Phase::InFlight,
        Hold::Free | Hold::Change if due <= now => Phase::Ready,
        Hold::Free | Hold::Change => Phase::Scheduled,
    }
}
