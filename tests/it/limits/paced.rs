//! Days and minutes by a clock that a test moves: real queue, delivery and registry, a store in memory,
//! and a wire that does as the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::health::HealthIntervals;
use breakglass_mailer::core::job::Job;
use breakglass_mailer::core::notification::Content;
use breakglass_mailer::core::outcome::{Cause, Failure, Outcome, Reply, Stage};
use breakglass_mailer::core::provider::{Limits, Provider};
use breakglass_mailer::core::route::Catalog;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::delivery::{Delivery, Gates, Retention, Running};
use breakglass_mailer::metrics::Metrics;
use breakglass_mailer::queue::{Ids, Queue};
use breakglass_mailer::registry::Registry;
use breakglass_mailer::tracer::Tracer;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::support::api::{accept, name, provider};
use crate::support::memory_store::MemoryStore;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a server says to the nth message at this time.
type Manner = Box<dyn Fn(usize, Time) -> Outcome + Send + Sync>;
/// What it says to a check at this time.
type Checked = fn(Time) -> Result<(), Failure>;

/// When each send began.
#[derive(Clone, Default)]
struct Sends(Arc<Mutex<Vec<(Time, Outcome)>>>);

impl Sends {
    fn of(&self, wanted: impl Fn(&Outcome) -> bool) -> Vec<Time> {
        let sends = self.0.lock().expect("not poisoned");
        sends.iter().filter(|(_, outcome)| wanted(outcome)).map(|(at, _)| *at).collect()
    }

    fn taken(&self) -> Vec<Time> {
        self.of(|outcome| matches!(outcome, Outcome::Delivered(_)))
    }
}

struct Wire {
    sends: Sends,
    manner: Manner,
    checked: Checked,
    clock: Clock,
}

impl Transport for Wire {
    fn send<'a>(
        &'a self,
        _: &'a Arc<Provider>,
        _: &'a Job,
        _: &'a Content,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let now = self.clock.now();
            let outcome = {
                let mut sends = self.sends.0.lock().expect("not poisoned");
                let outcome = (self.manner)(sends.len(), now);
                sends.push((now, outcome.clone()));
                outcome
            };
            tokio::time::sleep(Duration::from_millis(50)).await;
            outcome
        })
    }

    fn probe<'a>(&'a self, _: &'a Arc<Provider>) -> BoxFuture<'a, Result<(), Failure>> {
        let checked = (self.checked)(self.clock.now());
        Box::pin(async { checked })
    }
}

/// A server with one provider, named `main`.
struct Server {
    queue: Arc<Queue>,
    registry: Arc<Registry>,
    sends: Sends,
    running: Running,
    clock: Clock,
}

impl Server {
    fn start(store: &MemoryStore, clock: Clock, limits: Limits, manner: Manner) -> Self {
        Self::checked(store, clock, limits, manner, |_| Ok(()), true)
    }

    /// The same, with a server that answers checks like this, and where this process may be one that
    /// does not lead.
    fn checked(
        store: &MemoryStore,
        clock: Clock,
        limits: Limits,
        manner: Manner,
        checked: Checked,
        leads: bool,
    ) -> Self {
        let age_max = 30 * DAY;
        let queue = Queue::open(Arc::new(store.clone()), clock, Ids::random(), age_max);
        let queue = queue.expect("readable");
        let registry = Arc::new(Registry::new(HealthIntervals::default(), clock));
        let main = Provider { limits, ..provider("main", true) };
        let providers = [(main.name.clone(), Arc::new(main))].into();
        registry.replace(Catalog { namespace: "default".into(), providers, ..Catalog::default() });
        let sends = Sends::default();
        let delivery = Delivery {
            queue: queue.clone(),
            registry: registry.clone(),
            transport: Arc::new(Wire { sends: sends.clone(), manner, checked, clock }),
            metrics: Arc::new(Metrics::new().expect("distinct names")),
            tracer: Tracer::default(),
            clock,
            connections_max: 4,
            gates: Gates::default(),
            redrive: true,
            leads: watch::channel(leads.then(Time::default)).1,
            retention: Retention { history: HOUR, dead_letters: 30 * DAY, keys: DAY },
        };
        Self { queue, registry, sends, running: delivery.start(), clock }
    }

    async fn post(&self, count: usize) {
        let accept = accept(count, [name("main")], 10_000);
        self.queue.accept(accept).await.expect("accepted");
    }
}

fn taking() -> Manner {
    Box::new(|_, _| taken())
}

fn taken() -> Outcome {
    Outcome::Delivered(Reply::new(250, Some([2, 0, 0]), "taken".into()))
}

fn no(code: u16, enhanced: [u16; 3], words: &str) -> Outcome {
    let failure = reply(code, enhanced, words);
    let quota = failure.reply.as_ref().and_then(Reply::quota);
    quota.map_or(Outcome::Rejected(failure.clone()), |quota| Outcome::Held(quota, failure))
}

fn reply(code: u16, enhanced: [u16; 3], words: &str) -> Failure {
    Failure {
        cause: Cause::Deferred,
        stage: Stage::Mail,
        reply: Some(Reply::new(code, Some(enhanced), words.into())),
        detail: "no".into(),
    }
}

fn away() -> Failure {
    Failure {
        cause: Cause::ConnectionRefused,
        stage: Stage::Connect,
        reply: None,
        detail: "connection refused".into(),
    }
}

fn most_within(times: &[Time], span: Duration) -> usize {
    let within =
        |first: Time| times.iter().filter(|t| first <= **t && t.since(first) < span).count();
    times.iter().map(|first| within(*first)).max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_out_minute_by_minute_and_day_by_day_and_none_holds_too_many() {
    let limits = Limits {
        messages_per_minute: Some(10),
        messages_per_day: Some(100),
        max_connections: None,
    };
    let store = MemoryStore::default();
    let server = Server::start(&store, Clock::start(), limits, taking());
    server.post(100).await;
    server.post(100).await;
    server.post(50).await;
    tokio::time::sleep(9 * MINUTE).await;
    assert!(80 <= server.sends.taken().len(), "no minute is wasted");
    tokio::time::sleep(HOUR).await;
    assert_eq!(server.sends.taken().len(), 100, "the day's");
    assert!(server.registry.held(&name("main")).is_some());
    tokio::time::sleep(2 * DAY + HOUR).await;
    let taken = server.sends.taken();
    assert_eq!(taken.len(), 250);
    assert_eq!(most_within(&taken, MINUTE), 10);
    assert_eq!(most_within(&taken, DAY), 100);
    assert_eq!(server.registry.held(&name("main")), None);
}

#[tokio::test(start_paused = true)]
async fn a_restart_every_few_hours_gives_no_day_more_than_its_own() {
    let limits = Limits { messages_per_day: Some(20), ..Limits::default() };
    let (store, clock) = (MemoryStore::default(), Clock::start());
    let mut all = Vec::new();
    for run in 0..20 {
        // The same clock goes on: only the process is a new one.
        let server = Server::start(&store, clock, limits, taking());
        if run == 0 {
            server.post(60).await;
        }
        tokio::time::sleep(5 * HOUR).await;
        all.extend(server.sends.taken());
        server.running.finish(MINUTE).await;
        assert!(server.clock.now() >= clock.now());
    }
    assert_eq!(all.len(), 60);
    assert_eq!(most_within(&all, DAY), 20);
}

#[tokio::test(start_paused = true)]
async fn after_a_hold_one_message_goes_first_and_the_others_follow_when_it_is_taken() {
    let clock = Clock::start();
    let begin = clock.now();
    let opens = begin.plus(20 * MINUTE);
    let manner: Manner = Box::new(move |_, now| match now < opens {
        true => no(451, [4, 7, 500], "Server busy. Please try again later"),
        false => taken(),
    });
    let store = MemoryStore::default();
    let server = Server::start(&store, clock, Limits::default(), manner);
    server.post(50).await;
    tokio::time::sleep(MINUTE).await;
    let held = server.sends.of(|outcome| matches!(outcome, Outcome::Held(..)));
    assert!((1..=4).contains(&held.len()), "what was under way: {held:?}");
    tokio::time::sleep(HOUR).await;
    let held = server.sends.of(|outcome| matches!(outcome, Outcome::Held(..)));
    let waits: Vec<_> = held.iter().map(|at| at.since(begin).as_secs() / 60).collect();
    // At 5 and 15 minutes one asked; at 35 one was taken.
    assert_eq!(waits[waits.len() - 2..], [5, 15], "{waits:?}");
    assert!(waits[..waits.len() - 2].iter().all(|minute| *minute == 0), "{waits:?}");
    let taken = server.sends.taken();
    assert_eq!(taken.len(), 50, "nothing was lost by it");
    assert_eq!(taken[0].since(begin).as_secs() / 60, 35);
    assert!(Duration::from_millis(50) <= taken[1].since(taken[0]), "one goes first");
    assert!(taken[49].since(taken[0]) < MINUTE);
    for id in store.all().1.iter().map(|(job, _)| job.id) {
        let (job, attempts) = server.queue.job(id).await.expect("readable").expect("known");
        assert!(attempts.len() <= 3 && job.progress.attempts_here <= 1, "{job:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_first_after_a_hold_does_not_hold_up_the_others() {
    let manner: Manner = Box::new(|nth, _| match nth {
        0 => no(550, [5, 4, 5], "Daily user sending limit exceeded"),
        1 => no(550, [5, 1, 1], "no such user"),
        _ => taken(),
    });
    let store = MemoryStore::default();
    let server = Server::start(&store, Clock::start(), Limits::default(), manner);
    server.post(1).await;
    tokio::time::sleep(MINUTE).await;
    server.post(5).await;
    tokio::time::sleep(59 * MINUTE).await;
    assert_eq!(server.sends.taken().len(), 0);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(server.sends.taken().len(), 5);
}

/// Also where nobody checks a healthy provider: then the lane alone notices that a hold is over.
#[tokio::test(start_paused = true)]
async fn a_quota_answer_to_a_check_ends_an_outage_and_what_is_parked_goes_out_after_the_hold() {
    const BACK: Time = Time(1_800_000_060_000);
    for leads in [true, false] {
        let clock = Clock::at(Time(1_800_000_000_000));
        let manner: Manner = Box::new(|_, now| match now < BACK {
            true => Outcome::Unreachable(away()),
            false => taken(),
        });
        let checked: Checked = |now| match now {
            now if now < BACK => Err(away()),
            now if now < BACK.plus(2 * MINUTE) => {
                Err(reply(451, [4, 7, 500], "Server busy. Please try again later"))
            }
            _ => Ok(()),
        };
        let store = MemoryStore::default();
        let limits = Limits::default();
        let server = Server::checked(&store, clock, limits, manner, checked, leads);
        let health = || server.registry.health(&name("main"));
        server.post(10).await;
        tokio::time::sleep(MINUTE / 2).await;
        assert!(!health().is_closed());
        assert!(server.queue.has_parked(&name("main")));
        tokio::time::sleep(MINUTE + MINUTE / 2).await;
        let told = health();
        assert!(told.is_closed() && told.held(clock.now()).is_some(), "{told:?}");
        assert_eq!((told.healthy, told.last_error()), (Some(true), None));
        server.post(1).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(server.sends.taken(), [], "nothing is sent before the hold is over");
        let is_new = |job: &&Job| job.accepted_at > BACK && !job.progress.is_parked();
        let (_, jobs) = store.all();
        assert_eq!(jobs.iter().map(|(job, _)| job).filter(is_new).count(), 1, "new mail waits");
        let held = health().held.expect("held");
        tokio::time::sleep(held.until.since(clock.now()) + MINUTE).await;
        let taken = server.sends.taken();
        assert_eq!(taken.len(), 11, "leads: {leads}");
        assert!(held.until <= taken[0], "{taken:?}");
        assert!(Duration::from_millis(50) <= taken[1].since(taken[0]), "one goes first");
        assert!(!server.queue.has_parked(&name("main")));
    }
}
