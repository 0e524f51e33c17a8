//! Lives of a server, by lots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::health::HealthIntervals;
use breakglass_mailer::core::job::JobId;
use breakglass_mailer::core::notification::Address;
use breakglass_mailer::core::provider::{
    Limits, Provider, ProviderName, RetryPolicy, Security, Sender, Smtp,
};
use breakglass_mailer::core::route::{Catalog, Cluster, Escalation};
use breakglass_mailer::core::time::Time;
use breakglass_mailer::delivery::{Delivery, Gates, Retention, Running};
use breakglass_mailer::metrics::Metrics;
use breakglass_mailer::queue::{DeadFilter, Ids, Queue};
use breakglass_mailer::registry::Registry;
use breakglass_mailer::tracer::Tracer;
use tokio::sync::watch;

use super::callers::Ledger;
use super::disk::{Disk, Room};
use super::promises;
use super::wire::{CONNECTIONS_MAX, Mood, Net, Wire};
use crate::support::api::name;
use crate::support::live_jobs;

const PROVIDERS: [&str; 3] = ["a", "b", "c"];
const DAY: Duration = Duration::from_secs(86_400);
/// By then every wait has ended: greylisting five times over, backoffs, probes, redrives.
const QUIET: Duration = Duration::from_secs(2 * 3600);

/// A run, and what came of it.
#[derive(Debug, Default)]
pub struct Run {
    pub faults: Vec<String>,
    /// Everything that a server saw and where every job ended, for comparing two runs.
    pub history: Vec<String>,
    pub accepted: usize,
    pub refused: usize,
    pub delivered: usize,
    pub dead: usize,
    pub cancelled: usize,
    pub copies: usize,
    pub crashes: usize,
    pub failed_syncs: usize,
    pub redriven: usize,
    pub held: usize,
}

/// What outlives a life.
struct World {
    lots: fastrand::Rng,
    disk: Disk,
    net: Net,
    ledger: Ledger,
    catalog: Catalog,
    /// The most that each queue was ever allowed to hold.
    largest: BTreeMap<ProviderName, usize>,
    /// Jobs that an operator meant to take out.
    cancels: BTreeSet<JobId>,
    age_max: Duration,
    wall: Time,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Crash,
    FailedSync,
    Stop,
}

impl Run {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        let mut run = Self::default();
        let mut world = World::new(seed);
        let lives_count = world.lots.u64(1..=4);
        for life in 0..lives_count {
            let death = world.live(life, &mut run);
            run.crashes += usize::from(death == Death::Crash);
            run.failed_syncs += usize::from(death == Death::FailedSync);
            if !run.faults.is_empty() {
                break;
            }
        }
        if run.faults.is_empty() {
            world.heal();
            world.in_a_runtime(lives_count, async |_, server| {
                tokio::time::sleep(QUIET).await;
                server.running.finish(DAY).await
            });
        }
        let World { disk, net, ledger, cancels, .. } = &world;
        promises::at_the_end(&mut run, disk, net, ledger, cancels);
        run
    }
}

/// A server at work.
struct Server {
    queue: Arc<Queue>,
    registry: Arc<Registry>,
    running: Running,
    clock: Clock,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut lots = fastrand::Rng::with_seed(seed);
        let disk = Disk::new(lots.u64(..));
        let net = Net::new(lots.u64(..));
        let own = |name: &str| ("default".to_owned(), name.to_owned());
        let escalation =
            Escalation { mail_provider: Some("b".to_owned()), notification_mails: Vec::new() };
        let cluster = Cluster { mail_provider: Some("c".to_owned()) };
        let catalog = Catalog {
            namespace: "default".to_owned(),
            escalations: [(own("night"), escalation)].into(),
            clusters: [(own("prod"), cluster)].into(),
            ..Catalog::default()
        };
        let ages = [Duration::from_secs(600), Duration::from_secs(7200), DAY];
        let age_max = ages[lots.usize(..ages.len())];
        let wall = Time(1_700_000_000_000);
        let (ledger, largest, cancels) = (Ledger::default(), BTreeMap::new(), BTreeSet::new());
        let mut world = Self { lots, disk, net, ledger, catalog, largest, cancels, age_max, wall };
        for name in PROVIDERS {
            world.put_provider(name);
            world.set_mood(name, Mood::Good);
        }
        world
    }

    /// Adds a provider, or edits it.
    fn put_provider(&mut self, text: &str) {
        let lots = &mut self.lots;
        let smtp = Smtp::new("smtp.example.com", lots.u16(1..3), Security::Opportunistic);
        let address = Address::parse("noreply@example.com").expect("valid");
        let retry = RetryPolicy {
            count: lots.u16(0..=4),
            initial_backoff: Duration::from_millis(lots.u64(10..=5_000)),
            queue_size: lots.usize(2..=12),
        };
        let name = name(text);
        let mut seen = self.net.seen();
        let retries = seen.retries.entry(name.clone()).or_default();
        *retries = retry.count.max(*retries);
        drop(seen);
        let largest = self.largest.entry(name.clone()).or_default();
        *largest = retry.queue_size.max(*largest);
        let limits = Limits {
            messages_per_minute: self.lots.bool().then(|| self.lots.u32(1..=6)),
            messages_per_day: self.lots.bool().then(|| self.lots.u32(1..=30)),
            max_connections: self.lots.bool().then(|| self.lots.u16(1..=CONNECTIONS_MAX as u16)),
        };
        let provider = Provider {
            default: text == "a",
            limits,
            retry,
            ..Provider::new(name.clone(), smtp, Sender { address, name: None })
        };
        self.catalog.providers.insert(name, Arc::new(provider));
    }

    fn set_mood(&self, provider: &str, mood: Mood) {
        self.net.seen().moods.insert(name(provider), mood);
    }

    /// All is well from now on.
    fn heal(&mut self) {
        self.disk.set_room(Room::Plenty);
        for name in PROVIDERS {
            self.put_provider(name);
            let provider = self.catalog.providers.get_mut(&crate::support::api::name(name));
            Arc::make_mut(provider.expect("it was put")).limits = Limits::default();
            self.set_mood(name, Mood::Perfect);
        }
    }

    /// Starts a server on the disk and lets `work` go on with it; when that has ended, everything
    /// that still runs is gone at once, as by SIGKILL.
    fn in_a_runtime<T>(&mut self, life: u64, work: impl AsyncFnOnce(&mut Self, Server) -> T) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let value = runtime.block_on(async {
            let clock = Clock::at(self.wall);
            let server = self.start(life, clock);
            let value = work(self, server).await;
            self.wall = clock.now();
            value
        });
        drop(runtime);
        self.disk.crash();
        value
    }

    fn start(&self, life: u64, clock: Clock) -> Server {
        let disk = Arc::new(self.disk.clone());
        self.net.begin_life(&live_jobs(&*disk));
        let queue = Queue::open(disk, clock, Ids::of_seed(life), self.age_max).expect("readable");
        let registry = Arc::new(Registry::new(HealthIntervals::default(), clock));
        registry.replace(self.catalog.clone());
        let wire = Wire {
            net: self.net.clone(),
            disk: self.disk.clone(),
            registry: registry.clone(),
            clock,
        };
        let delivery = Delivery {
            queue: queue.clone(),
            registry: registry.clone(),
            transport: Arc::new(wire),
            metrics: Arc::new(Metrics::new().expect("distinct names")),
            tracer: Tracer::default(),
            clock,
            connections_max: CONNECTIONS_MAX,
            gates: Gates::default(),
            redrive: true,
            leads: watch::channel(Some(Time::default())).1,
            retention: Retention { history: 7 * DAY, dead_letters: 30 * DAY, keys: DAY },
        };
        Server { queue, registry, running: delivery.start(), clock }
    }

    /// One life. Time between lives passes, too.
    fn live(&mut self, life: u64, run: &mut Run) -> Death {
        let (death, faults) = self.in_a_runtime(life, async |world: &mut Self, server: Server| {
            let mut stopped = world.disk.stopped();
            let steps_count = world.lots.usize(10..60);
            let mut faults = Vec::new();
            let mut death = None;
            for _ in 0..steps_count {
                world.step(&server).await;
                let pause = world.pause();
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => {
                        death = Some(Death::FailedSync);
                        break;
                    }
                    () = tokio::time::sleep(pause) => {}
                }
                faults.extend(promises::bounds(&server.queue, &world.largest));
                faults.extend(promises::kept(&world.disk, &world.ledger));
            }
            let stops = death.is_none() && world.lots.u8(..) < 80;
            if stops {
                server.queue.stop_accepting();
                let grace = world.pause();
                server.running.finish(grace).await;
                death = Some(Death::Stop);
            }
            (death.unwrap_or(Death::Crash), faults)
        });
        run.faults.extend(faults);
        self.wall = self.wall.plus(self.pause());
        death
    }

    fn pause(&mut self) -> Duration {
        let most = [1, 50, 2_000, 60_000, 1_200_000][self.lots.usize(..5)];
        Duration::from_millis(self.lots.u64(..most))
    }

    async fn step(&mut self, server: &Server) {
        let provider = PROVIDERS[self.lots.usize(..PROVIDERS.len())];
        match self.lots.u8(..100) {
            0..50 => {
                for _ in 0..self.lots.usize(1..6) {
                    let nth = self.ledger.think(&mut self.lots, &PROVIDERS);
                    let (queue, registry) = (server.queue.clone(), server.registry.clone());
                    tokio::spawn(self.ledger.clone().post(nth, queue, registry, server.clock));
                }
            }
            50..68 => {
                let mood = Mood::ALL[self.lots.usize(..Mood::ALL.len())];
                self.set_mood(provider, mood);
            }
            68..78 => self.edit(provider, server),
            78..92 => self.operate(server),
            92..97 => {
                let rooms = [Room::Plenty, Room::Plenty, Room::Reserve, Room::None];
                self.disk.set_room(rooms[self.lots.usize(..rooms.len())]);
            }
            97..98 => self.disk.fail_next_sync(),
            _ => {}
        }
    }

    /// Edits, removes, disables or enables a provider.
    fn edit(&mut self, provider: &str, server: &Server) {
        let name = name(provider);
        match (self.lots.u8(..4), self.catalog.providers.get(&name).cloned()) {
            (0, Some(_)) => drop(self.catalog.providers.remove(&name)),
            (1, Some(old)) => {
                let edited = Provider { disabled: !old.disabled, ..(*old).clone() };
                self.catalog.providers.insert(name, Arc::new(edited));
            }
            _ => self.put_provider(provider),
        }
        server.registry.replace(self.catalog.clone());
    }

    /// What operators do; each in a task of its own, as callers of the API.
    fn operate(&mut self, server: &Server) {
        let queue = server.queue.clone();
        let dead = queue.dead_letters(&DeadFilter::default(), None, usize::MAX).items;
        let notifications = self.disk.kept.all().0;
        let dead = (!dead.is_empty()).then(|| dead[self.lots.usize(..dead.len())].id);
        match (self.lots.u8(..4), dead) {
            (0 | 1, Some(id)) => {
                let to = (self.lots.bool()).then(|| PROVIDERS[self.lots.usize(..3)]).map(name);
                let catalog = self.catalog.clone();
                let capacity = move |name: &ProviderName| {
                    catalog.enabled(name).map_or(0, |provider| provider.retry.queue_size)
                };
                tokio::spawn(async move { queue.revive(id, to.as_ref(), capacity).await });
            }
            (2, Some(id)) => {
                self.cancels.insert(id);
                tokio::spawn(async move { queue.discard(id).await });
            }
            _ if !notifications.is_empty() => {
                let nth = self.lots.usize(..notifications.len());
                let notification = notifications[nth].clone();
                self.cancels.extend(notification.jobs.iter().map(|(id, _)| *id));
                tokio::spawn(async move { queue.cancel(&notification).await });
            }
            _ => {}
        }
    }
}
