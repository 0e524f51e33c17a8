//! Everything at once, from a seed: posts without a pause while the server is killed, stopped, frozen and
//! edited, its peers go away, come back and crawl, and a person acts. Half a minute in CI, half an hour
//! nightly; at every quiet point nothing may be lost and every count has to agree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::load::Load;
use crate::support::operator::Operator;
use crate::support::oracle::Evidence;
use crate::support::sink::Sink;
use crate::support::wait::{LIMIT, eventually};
use crate::support::{lots, nightly};

const CONNECTIONS: usize = 3;
const NAMES: [&str; 2] = ["main", "away"];
/// Faults between two quiet points.
const FAULTS: usize = 25;
/// Quiet points until a new store begins: a start after a kill reads all of the old one, so that one
/// would be killed ever more rarely.
const JUDGEMENTS: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    KillWhileStarting,
    Stop,
    StandStill,
    Outage,
    Slowness,
    Edit,
    Rest,
    BrokenManifests,
}

const ALL: [Fault; 9] = [
    Fault::Kill,
    Fault::KillWhileStarting,
    Fault::Stop,
    Fault::StandStill,
    Fault::Outage,
    Fault::Slowness,
    Fault::Edit,
    Fault::Rest,
    Fault::BrokenManifests,
];

/// Recipients of every kind of fate, now and then with a large content; see `Sink::moody`.
fn mixed(n: usize) -> Value {
    let kinds = ["ok", "later", "ok", "no", "ok", "never", "ok", "ok", "later", "ok", "ok"];
    let recipients: Vec<String> =
        (0..=n % 4).map(|m| format!("{}-{n}-{m}@example.com", kinds[(n + m) % 11])).collect();
    let text = "Please look. ".repeat(if n.is_multiple_of(16) { 8_000 } else { 1 });
    let mut body = json!({"recipients": recipients, "text": text});
    if !n.is_multiple_of(3) {
        body["mailProvider"] = NAMES[n % 2].into();
    }
    body
}

struct World {
    home: Home,
    app: App,
    load: Load,
    sinks: [Sink; 2],
    operator: Arc<Operator>,
    lots: Rng,
    /// What may have come between a 250 and its record.
    cuts: usize,
    edits: usize,
}

impl World {
    async fn begin(lots: Rng) -> Self {
        let sinks = [Sink::moody(), Sink::moody()];
        let home = Home::new(&providers(&sinks, 0)).args(&[
            "--unhealthy-interval",
            "500ms",
            "--shutdown-grace",
            "1s",
            "--max-connections",
            &CONNECTIONS.to_string(),
        ]);
        let app = home.start().await;
        let load = Load::start(8, mixed);
        load.serve(Some(app.client.clone()));
        Self { home, app, load, sinks, operator: Arc::default(), lots, cuts: 0, edits: 0 }
    }

    /// Lets some posts end, with a person at the API, and does what the lots say.
    async fn disturb(&mut self) {
        let goal = self.load.ended_count() + self.lots.usize(1..15);
        self.load.allow(15);
        let (operator, client) = (self.operator.clone(), self.app.client.clone());
        let mut its_lots = self.lots.fork();
        let person = tokio::spawn(async move { operator.act(&client, &mut its_lots).await });
        eventually("some posts have ended", async || {
            (self.load.ended_count() >= goal).then_some(())
        })
        .await;
        let fault = ALL[self.lots.usize(..ALL.len())];
        println!("{fault:?} after {} posts", self.load.ended_count());
        self.inflict(fault).await;
        person.await.expect("the person panicked");
    }

    async fn inflict(&mut self, fault: Fault) {
        let which = self.lots.usize(..NAMES.len());
        match fault {
            Fault::Kill => {
                self.app.process.kill9();
                self.start_again().await;
            }
            Fault::KillWhileStarting => {
                self.app.process.kill9();
                self.load.serve(None);
                let mut process = self.home.spawn();
                // The moment is a lot.
                tokio::time::sleep(Duration::from_millis(self.lots.u64(..400))).await;
                process.kill9();
                self.cuts += 1;
                self.start_again().await;
            }
            Fault::Stop => {
                self.app.process.term();
                let status = self.app.process.exit(LIMIT).await;
                assert!(status.success(), "{status}:\n{}", self.app.process.log());
                self.start_again().await;
            }
            Fault::StandStill => {
                let pid = i32::try_from(self.app.process.id()).expect("a process id");
                let pid = Pid::from_raw(pid).expect("not 0");
                kill_process(pid, Signal::STOP).expect("it lives");
                tokio::time::sleep(Duration::from_millis(self.lots.u64(..700))).await;
                kill_process(pid, Signal::CONT).expect("it lives");
            }
            Fault::Outage if self.sinks[which].is_open() => {
                self.sinks[which].close().await;
                self.cuts += 1;
            }
            Fault::Outage => self.sinks[which].open(),
            Fault::Slowness => self.sinks[which].delay(self.lots.u64(..200)),
            Fault::Edit => self.edit(|_| {}),
            Fault::Rest => {
                let is_deleted = self.lots.bool();
                self.edit(|providers| {
                    let rests = providers.remove(which);
                    if !is_deleted {
                        providers.push(rests.disabled());
                    }
                });
            }
            Fault::BrokenManifests => {
                self.home.write("kind: [\n");
                let goal = self.load.ended_count() + 1;
                self.load.allow(1);
                eventually("a post has ended", async || {
                    (goal <= self.load.ended_count()).then_some(())
                })
                .await;
                // A server does not start with a broken file.
                self.edit(|_| {});
            }
        }
    }

    async fn start_again(&mut self) {
        self.load.serve(None);
        self.cuts += 1;
        self.app = self.home.start().await;
        self.load.serve(Some(self.app.client.clone()));
    }

    fn edit(&mut self, change: impl FnOnce(&mut Vec<Provider>)) {
        self.edits += 1;
        let mut providers = providers(&self.sinks, self.edits);
        change(&mut providers);
        self.home.providers(&providers);
    }

    /// Mends everything, waits until every job is at its end, and judges.
    async fn judge(&mut self) {
        self.edit(|_| {});
        for sink in &mut self.sinks {
            sink.delay(0);
            if !sink.is_open() {
                sink.open();
            }
        }
        let shown = format!("Edit {}", self.edits);
        self.app.provider_is("main", |provider| provider["sender"]["name"] == shown).await;
        let all = self.load.allowed_count();
        eventually("all posts have ended", async || (all <= self.load.ended_count()).then_some(()))
            .await;
        self.app.drained().await;
        let (posts, hand) = (self.load.posts(), self.operator.hand());
        let sinks = self.sinks.each_ref();
        let evidence = Evidence::gather(&self.app, posts, hand, &sinks).await;
        let copies_max = self.cuts * CONNECTIONS * NAMES.len();
        assert_eq!(evidence.faults(copies_max), Vec::<String>::new());
        evidence.assert_counts_agree(&self.app).await;
        println!("quiet: {} copies after {} cuts", evidence.copies_count(), self.cuts);
    }
}

/// Both, as they are after so many edits; the second one is the default.
fn providers(sinks: &[Sink; 2], edits: usize) -> Vec<Provider> {
    let retry = [3, 5, 2][edits % 3];
    let all = std::iter::zip(NAMES, sinks).rev();
    all.map(|(name, sink)| {
        Provider::plain(name, sink.port).retry(retry, 10).sender_name(&format!("Edit {edits}"))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_once_nothing_is_lost_and_every_count_agrees() {
    let length = Duration::from_secs(if nightly() { 30 * 60 } else { 20 });
    let begin = Instant::now();
    let mut lots = lots();
    while begin.elapsed() < length {
        let mut world = World::begin(lots.fork()).await;
        for _ in 0..JUDGEMENTS {
            for _ in 0..FAULTS {
                world.disturb().await;
            }
            world.judge().await;
            if length <= begin.elapsed() {
                break;
            }
        }
        let posts = world.load.finish().await;
        let accepted_count = posts.iter().filter(|post| post.accepted().is_some()).count();
        println!("{accepted_count} of {} posts were accepted", posts.len());
        assert!(posts.len() / 4 < accepted_count, "most of the time it takes mail");
    }
}
