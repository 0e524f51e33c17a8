//! The queue against a naive model of itself: a map of jobs and a set of those that are held.
//!
//! Random histories of everything that can happen to a job, restarts and failing disks included.
//! After each step the queue's answers, the store's records and the model agree, no provider has more jobs
//! than it takes, and nothing was handed out before it was due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::decide::Verdict;
use breakglass_mailer::core::job::{DeadReason, Job, JobId, JobState, Progress};
use breakglass_mailer::core::notification::Notification;
use breakglass_mailer::core::provider::ProviderName;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Store, StoreError};
use breakglass_mailer::queue::{
    AcceptError, ActError, Claim, DeadFilter, Depth, Ids, Phase, Queue,
};
use proptest::prelude::*;

use crate::support::api::{accept, name};
use crate::support::live_jobs;
use crate::support::memory_store::MemoryStore;

const CAPACITY: usize = 6;
const AGE_MAX: Duration = Duration::from_secs(60);
const PROVIDERS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Accept { chain: Vec<usize>, recipients_count: usize },
    Claim { provider: usize, then: Then },
    SettleHeld(Then),
    Revive { nth: usize, to: Option<usize> },
    Redrive(usize),
    Discard(usize),
    Cancel(usize),
    Expire,
    Wait(u64),
    FailDisk(bool),
    Restart,
}

/// What becomes of a claim.
#[derive(Clone, Debug)]
enum Then {
    Deliver,
    Retry(u64),
    FailOver,
    Bury(usize),
    Drop,
    Hold,
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        2 => Just(Then::Deliver),
        2 => (1u64..20_000).prop_map(Then::Retry),
        1 => Just(Then::FailOver),
        4 => (0usize..DeadReason::ALL.len()).prop_map(Then::Bury),
        1 => Just(Then::Drop),
        2 => Just(Then::Hold),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let provider = 0..PROVIDERS.len();
    let chain = Just(vec![0usize, 1, 2]).prop_shuffle();
    let chain = (chain, 1usize..=3).prop_map(|(chain, len)| chain[..len].to_vec());
    prop_oneof![
        6 => (chain, 1usize..=3).prop_map(|(chain, n)| Step::Accept { chain, recipients_count: n }),
        8 => (provider.clone(), then()).prop_map(|(provider, then)| Step::Claim { provider, then }),
        3 => then().prop_map(Step::SettleHeld),
        3 => (0usize..20, prop::option::of(provider.clone()))
            .prop_map(|(nth, to)| Step::Revive { nth, to }),
        2 => provider.prop_map(Step::Redrive),
        1 => (0usize..20).prop_map(Step::Discard),
        1 => (0usize..20).prop_map(Step::Cancel),
        2 => Just(Step::Expire),
        3 => (1u64..40_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::FailDisk),
        1 => Just(Step::Restart),
    ]
}

struct World {
    clock: Clock,
    store: MemoryStore,
    queue: Arc<Queue>,
    /// Every job there ever was, as it should stand.
    jobs: BTreeMap<JobId, Job>,
    notifications: Vec<Notification>,
    held: Vec<Claim>,
    disk_fails: bool,
}

impl World {
    fn new() -> Self {
        let (clock, store) = (Clock::start(), MemoryStore::default());
        let queue = Queue::open(Arc::new(store.clone()), clock, Ids::random(), AGE_MAX)
            .expect("an empty store");
        let (jobs, notifications, held) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { clock, store, queue, jobs, notifications, held, disk_fails: false }
    }

    fn holds(&self, id: JobId) -> bool {
        self.held.iter().any(|claim| claim.job().id == id)
    }

    /// The jobs that take a place of a provider's queue.
    fn depth(&self, provider: &ProviderName) -> usize {
        let bounded = self.jobs.values().filter(|job| job.progress.is_bounded());
        bounded.filter(|job| job.progress.home() == provider).count()
    }

    fn dead(&self) -> Vec<&Job> {
        let is_dead = |job: &&Job| matches!(job.progress.state, JobState::Dead { .. });
        self.jobs.values().filter(is_dead).collect()
    }

    /// Lets the model follow what the store says of a job, and answers it.
    fn follow(&mut self, id: JobId) -> Progress {
        let (job, _) = self.store.job(id).expect("readable").expect("remembered");
        self.jobs.insert(id, job.clone());
        job.progress
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Accept { chain, recipients_count } => self.accept(&chain, recipients_count).await,
            Step::Claim { provider, then } => self.claim(&name(PROVIDERS[provider]), then).await,
            Step::SettleHeld(then) => {
                if let Some(claim) = self.held.pop() {
                    self.settle(claim, then).await;
                }
            }
            Step::Revive { nth, to } => self.revive(nth, to.map(|to| name(PROVIDERS[to]))).await,
            Step::Redrive(provider) => self.redrive(&name(PROVIDERS[provider])).await,
            Step::Discard(nth) => self.discard(nth).await,
            Step::Cancel(nth) => self.cancel(nth).await,
            Step::Expire => self.expire().await,
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
            Step::FailDisk(fails) => {
                self.disk_fails = fails;
                self.store.fail(fails.then(|| StoreError::Stopped("a test".into())));
                if !fails {
                    // A store that stopped works again only for the next process.
                    self.restart();
                }
            }
            Step::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.held.clear();
        let store = Arc::new(self.store.clone());
        self.queue = Queue::open(store, self.clock, Ids::random(), AGE_MAX).expect("readable");
    }

    async fn accept(&mut self, chain: &[usize], recipients_count: usize) {
        let chain: Arc<[ProviderName]> = chain.iter().map(|n| name(PROVIDERS[*n])).collect();
        let room = CAPACITY - self.depth(&chain[0]);
        let accept = accept(recipients_count, chain, CAPACITY);
        match self.queue.accept(accept).await {
            Ok(accepted) => {
                assert!(recipients_count <= room && !self.disk_fails);
                for (id, _) in &accepted.notification.jobs {
                    self.follow(*id);
                }
                self.notifications.push(accepted.notification);
            }
            Err(AcceptError::Full { .. }) => assert!(room < recipients_count),
            Err(error) => assert!(self.disk_fails, "{error}"),
        }
    }

    async fn claim(&mut self, provider: &ProviderName, then: Then) {
        let now = self.clock.now();
        let due: BTreeSet<JobId> = self
            .jobs
            .values()
            .filter(|job| !self.holds(job.id) && job.progress.provider() == provider)
            .filter(|job| matches!(job.progress.state, JobState::Queued { due } if due <= now))
            .map(|job| job.id)
            .collect();
        match self.queue.claim(provider, |_| true) {
            // What could not be recorded is not attempted.
            None if self.disk_fails => {}
            None => assert!(due.is_empty(), "{due:?} are due and none is handed out"),
            Some(claim) => {
                assert!(due.contains(&claim.job().id), "handed out before it is due");
                assert_eq!(Some(claim.job()), self.jobs.get(&claim.job().id));
                self.settle(claim, then).await;
            }
        }
    }

    async fn settle(&mut self, claim: Claim, then: Then) {
        let now = self.clock.now();
        let job = claim.job().clone();
        let next = job.progress.position + 1;
        let verdict = match then {
            Then::Hold => return self.held.push(claim),
            Then::Drop => return,
            Then::Deliver => Verdict::Done,
            Then::Retry(millis) => Verdict::Retry { due: Time(now.0 + millis) },
            Then::FailOver if usize::from(next) < job.progress.chain.len() => {
                Verdict::Failover { position: next }
            }
            Then::FailOver => return,
            Then::Bury(reason) => {
                Verdict::Bury { reason: DeadReason::ALL[reason], detail: String::new() }
            }
        };
        let after = verdict.apply(&job.progress, true, now);
        let settled = self.queue.settle(vec![claim.becomes(after.clone(), None)]).await;
        assert_eq!(settled.is_err(), self.disk_fails);
        if settled.is_ok() {
            assert_eq!(self.follow(job.id), after);
        }
    }

    async fn revive(&mut self, nth: usize, to: Option<ProviderName>) {
        let Some(job) = self.dead().get(nth).copied().cloned() else { return };
        let home = to.clone().unwrap_or_else(|| job.progress.home().clone());
        let has_place = job.progress.is_parked() && *job.progress.home() == home;
        let has_room = has_place || self.depth(&home) < CAPACITY;
        match self.queue.revive(job.id, to.as_ref(), |_| CAPACITY).await {
            Ok(()) => {
                assert!(has_room && !self.disk_fails);
                let after = self.follow(job.id);
                assert_eq!((after.provider(), after.attempts_here), (&home, 0));
            }
            Err(ActError::Full { provider, .. }) => assert!(!has_room && provider == home),
            Err(error) => assert!(self.disk_fails, "{error}"),
        }
    }

    async fn redrive(&mut self, provider: &ProviderName) {
        let waits = |job: &&&Job| {
            job.progress.is_parked() && job.progress.chain.iter().any(|name| name == provider)
        };
        let dead = self.dead();
        let parked: Vec<JobId> = dead.iter().filter(waits).map(|job| job.id).collect();
        let redriven = self.queue.redrive(provider).await;
        if self.disk_fails && !parked.is_empty() {
            return assert!(redriven.is_err());
        }
        assert_eq!(redriven, Ok(parked.len()));
        for id in parked {
            let after = self.follow(id);
            assert!(matches!(after.state, JobState::Queued { .. }) && after.provider() == provider);
        }
    }

    async fn discard(&mut self, nth: usize) {
        let Some(id) = self.dead().get(nth).map(|job| job.id) else { return };
        let discarded = self.queue.discard(id).await;
        assert_eq!(discarded.is_err(), self.disk_fails);
        if discarded.is_ok() {
            assert!(matches!(self.follow(id).state, JobState::Cancelled { .. }));
        }
    }

    async fn cancel(&mut self, nth: usize) {
        let Some(notification) = self.notifications.get(nth).cloned() else { return };
        let ids = notification.jobs.iter().map(|(id, _)| *id);
        let (kept, gone): (Vec<JobId>, Vec<JobId>) =
            ids.partition(|id| self.holds(*id) || self.jobs[id].progress.has_ended());
        match self.queue.cancel(&notification).await {
            Ok(done) => {
                assert_eq!(done.cancelled, gone);
                assert_eq!(done.kept.iter().map(|(id, _)| *id).collect::<Vec<_>>(), kept);
                for (id, phase) in done.kept {
                    assert_eq!(phase == Phase::InFlight, self.holds(id));
                }
                for id in gone {
                    assert!(matches!(self.follow(id).state, JobState::Cancelled { .. }));
                }
            }
            Err(error) => assert!(self.disk_fails && !gone.is_empty(), "{error}"),
        }
    }

    async fn expire(&mut self) {
        let now = self.clock.now();
        let late: BTreeSet<JobId> = self
            .jobs
            .values()
            .filter(|job| job.progress.is_bounded() && job.progress.deadline <= now)
            .filter(|job| !self.holds(job.id))
            .map(|job| job.id)
            .collect();
        let expired = tokio::time::timeout(Duration::ZERO, self.queue.expired()).await;
        let claims = expired.unwrap_or_default();
        assert_eq!(claims.iter().map(|claim| claim.job().id).collect::<BTreeSet<_>>(), late);
        let verdict = Verdict::Bury { reason: DeadReason::Expired, detail: String::new() };
        let bury = |claim: Claim| {
            let after = verdict.apply(&claim.job().progress, false, now);
            claim.becomes(after, None)
        };
        let settled = self.queue.settle(claims.into_iter().map(bury).collect()).await;
        if settled.is_ok() {
            for id in late {
                self.follow(id);
            }
        }
    }

    /// What holds after every step.
    fn check(&self) {
        let now = self.clock.now();
        let depths: BTreeMap<ProviderName, Depth> =
            self.queue.depths(&BTreeMap::new()).into_iter().collect();
        for provider in PROVIDERS.map(name) {
            let depth = depths.get(&provider).cloned().unwrap_or_default();
            assert_eq!(depth.depth, self.depth(&provider));
            assert!(depth.depth <= CAPACITY, "{provider} has more jobs than it takes");
            let parts = depth.ready + depth.scheduled + depth.in_flight + depth.parked;
            assert_eq!(depth.depth, parts, "{depth:?}");
        }
        let phases = |phase| {
            let found = self.queue.in_phase(phase, |_| true, None, usize::MAX);
            found.into_iter().map(|job| job.id).collect::<BTreeSet<_>>()
        };
        for job in self.jobs.values() {
            let expected = match job.progress.state {
                JobState::Queued { .. } if self.holds(job.id) => Phase::InFlight,
                JobState::Queued { due } if due <= now => Phase::Ready,
                JobState::Queued { .. } => Phase::Scheduled,
                JobState::Dead { .. } => Phase::Dead,
                JobState::Delivered { .. } => Phase::Delivered,
                JobState::Cancelled { .. } => Phase::Cancelled,
            };
            assert_eq!(self.queue.phase(job), expected);
            for phase in [Phase::Ready, Phase::Scheduled, Phase::InFlight, Phase::Dead] {
                assert_eq!(phases(phase).contains(&job.id), phase == expected);
            }
        }
        let dead = self.queue.dead_letters(&DeadFilter::default(), None, usize::MAX);
        assert_eq!((dead.total, dead.items.len()), (self.dead().len(), self.dead().len()));
        let live = live_jobs(&self.store);
        let expected = self.jobs.values().filter(|job| !job.progress.has_ended());
        let live: BTreeMap<JobId, Job> = live.into_iter().map(|job| (job.id, job)).collect();
        assert_eq!(live.len(), expected.clone().count());
        assert!(expected.clone().all(|job| live.get(&job.id) == Some(job)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_queue_agrees_with_its_model_after_every_step(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
                world.check();
            }
        });
    }
}
