//! Mail servers with moods, and all that they saw. What a server sees that it never should is a fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::job::{Job, JobId, JobState};
use breakglass_mailer::core::notification::Content;
use breakglass_mailer::core::outcome::{Cause, Failure, Outcome, Reply, Stage};
use breakglass_mailer::core::provider::{Provider, ProviderName};
use breakglass_mailer::core::quota::Quota;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::queue::store::Store;
use breakglass_mailer::registry::Registry;
use futures_util::future::{BoxFuture, FutureExt};

use super::disk::Disk;

/// How many sends a provider may see at once.
pub const CONNECTIONS_MAX: usize = 3;

/// How a server is disposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything at once.
    Perfect,
    /// Takes most.
    Good,
    /// Does anything.
    Moody,
    /// Refuses connections.
    Away,
    /// Says nothing.
    Mute,
    /// Puts everything off.
    Busy,
    /// Puts everything off in the words of greylisting.
    Greylisting,
    /// Takes everything after 20 s.
    Slow,
    /// Says that a quota is used up.
    UsedUp,
}

impl Mood {
    pub const ALL: [Self; 9] = [
        Self::Perfect,
        Self::Good,
        Self::Moody,
        Self::Away,
        Self::Mute,
        Self::Busy,
        Self::Greylisting,
        Self::Slow,
        Self::UsedUp,
    ];

    fn is_reachable(self) -> bool {
        !matches!(self, Self::Away | Self::Mute)
    }
}

/// How one send ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Taken,
    /// Taken, but the reply to the final dot is lost.
    Unread,
    PutOff,
    Greylisted,
    Refused,
    /// Refused as a server, not the message: 421.
    Closed,
    NoConnection,
    Silence,
    /// A quota is used up: of the day, of late, or at once.
    Held(Quota),
}

/// All servers, over all lives. A clone is the same.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<Seen>>,
}

/// What they saw.
pub struct Seen {
    lots: fastrand::Rng,
    pub moods: BTreeMap<ProviderName, Mood>,
    /// The most retries that each provider was ever given.
    pub retries: BTreeMap<ProviderName, u16>,
    /// How often each job's message was taken.
    pub taken: BTreeMap<JobId, usize>,
    /// Subjects of what was taken.
    pub subjects: BTreeSet<String>,
    /// How many copies of a job had their reason: a reply that was lost, or a crash before its record.
    pub excused: BTreeMap<JobId, usize>,
    /// Jobs that were refused for good, and put off, at least once.
    pub refused: BTreeSet<JobId>,
    pub put_off: BTreeSet<JobId>,
    /// Attempts of a job that this life knows of, recorded ones and the current one.
    attempts: HashMap<JobId, u32>,
    /// Taken and told so in this life.
    told: BTreeSet<JobId>,
    /// How often a quota was used up.
    pub held_count: usize,
    busy: BTreeSet<JobId>,
    busy_count: BTreeMap<ProviderName, usize>,
    pub faults: Vec<String>,
    /// One line for each send.
    pub history: Vec<String>,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let seen = Seen {
            lots: fastrand::Rng::with_seed(seed),
            moods: BTreeMap::new(),
            retries: BTreeMap::new(),
            taken: BTreeMap::new(),
            subjects: BTreeSet::new(),
            excused: BTreeMap::new(),
            refused: BTreeSet::new(),
            put_off: BTreeSet::new(),
            attempts: HashMap::new(),
            told: BTreeSet::new(),
            held_count: 0,
            busy: BTreeSet::new(),
            busy_count: BTreeMap::new(),
            faults: Vec::new(),
            history: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(seen)) }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().expect("no simulated server panics")
    }

    /// A server starts on what the disk holds.
    pub fn begin_life(&self, jobs: &[Job]) {
        let mut seen = self.seen();
        seen.busy.clear();
        seen.busy_count.clear();
        seen.attempts = jobs.iter().map(|job| (job.id, job.progress.attempts_all)).collect();
        // Their 250 came too late to be recorded, so they are sent once more.
        for job in std::mem::take(&mut seen.told) {
            if jobs.iter().any(|known| known.id == job) {
                *seen.excused.entry(job).or_default() += 1;
            }
        }
    }
}

/// The wire of one life.
pub struct Wire {
    pub net: Net,
    pub disk: Disk,
    pub registry: Arc<Registry>,
    pub clock: Clock,
}

impl Wire {
    fn check(&self, seen: &mut Seen, provider: &Provider, job: &Job) {
        let (name, now) = (&provider.name, self.clock.now());
        let mut faults = Vec::new();
        let mut hold = |holds: bool, what: &str| {
            if !holds {
                faults.push(format!("{now:?} {name} {}: {what}", job.id));
            }
        };
        let JobState::Queued { due } = job.progress.state else {
            return hold(false, "sent though it does not wait");
        };
        hold(due <= now, "sent before it was due");
        hold(now < job.progress.deadline, "sent after its deadline");
        hold(job.progress.provider() == name, "sent through a provider whose turn it is not");
        hold(!provider.disabled, "sent through a disabled provider");
        hold(seen.busy.insert(job.id), "two attempts at once");
        let busy_count = seen.busy_count.entry(name.clone()).or_default();
        *busy_count += 1;
        hold(*busy_count <= CONNECTIONS_MAX, "more sends at once than connections");
        let open = self.registry.health(name).open;
        hold(open.is_none_or(|open| open.since == now), "dialled though its circuit is open");
        let held = self.registry.health(name).held(now).map(|hold| hold.since);
        hold(held.is_none_or(|since| since == now), "dialled though its quota is used up");
        // What is recorded is what a restart knows, too. A grain of time is left out on either side.
        let within = |span_ms: u64| {
            let since = Time(now.0.saturating_sub(span_ms));
            let found = self.disk.delivered_since(since).expect("readable");
            found.get(name).map_or(0, |times| times.values().sum::<u64>())
        };
        let limits = provider.limits;
        let per_minute = limits.messages_per_minute.is_none_or(|most| within(59_000) < most.into());
        hold(per_minute, "more than its messages per minute");
        let per_day = limits.messages_per_day.is_none_or(|most| within(86_339_000) < most.into());
        hold(per_day, "more than its messages per day");
        let retries = seen.retries.get(name).copied().unwrap_or_default();
        hold(job.progress.attempts_here <= retries, "more attempts than retries and one");
        let attempts = seen.attempts.entry(job.id).or_default();
        hold(*attempts == job.progress.attempts_all, "an attempt was not counted, or twice");
        *attempts += 1;
        let on_disk = self.disk.kept.job(job.id).expect("readable");
        hold(on_disk.is_some_and(|(kept, _)| kept.progress == job.progress), "not as on disk");
        seen.faults.extend(faults);
    }

    fn end(seen: &mut Seen, name: &ProviderName) -> (End, Duration) {
        let mood = seen.moods.get(name).copied().unwrap_or(Mood::Away);
        let any = [
            End::Taken,
            End::Taken,
            End::Unread,
            End::PutOff,
            End::Greylisted,
            End::Refused,
            End::Closed,
            End::NoConnection,
            End::Held(Quota::Burst),
        ];
        let quotas = [Quota::Burst, Quota::Rate, Quota::Day];
        let end = match mood {
            Mood::Perfect | Mood::Slow => End::Taken,
            Mood::Good if seen.lots.u8(..) < 230 => End::Taken,
            Mood::Good | Mood::Moody => any[seen.lots.usize(..any.len())],
            Mood::Away => End::NoConnection,
            Mood::Mute => End::Silence,
            Mood::Busy => End::PutOff,
            Mood::Greylisting => End::Greylisted,
            Mood::UsedUp => End::Held(quotas[seen.lots.usize(..quotas.len())]),
        };
        let took = match (mood, end) {
            (Mood::Slow, _) => 20_000,
            (_, End::Silence) => 60_000,
            (_, End::NoConnection) => 1,
            _ => seen.lots.u64(1..100),
        };
        (end, Duration::from_millis(took))
    }
}

impl Transport for Wire {
    fn send<'a>(
        &'a self,
        provider: &'a Arc<Provider>,
        job: &'a Job,
        content: &'a Content,
    ) -> BoxFuture<'a, Outcome> {
        async move {
            let (end, took) = {
                let mut seen = self.net.seen();
                self.check(&mut seen, provider, job);
                let (end, took) = Self::end(&mut seen, &provider.name);
                let now = self.clock.now().0;
                seen.history.push(format!("{now} {} {} {end:?}", provider.name, job.id));
                (end, took)
            };
            // Between the two halves the server has the message, and we do not know yet.
            tokio::time::sleep(took / 2).await;
            {
                let mut seen = self.net.seen();
                if matches!(end, End::Taken | End::Unread) {
                    *seen.taken.entry(job.id).or_default() += 1;
                    seen.subjects.insert(content.subject.clone());
                    if end == End::Taken {
                        seen.told.insert(job.id);
                    } else {
                        *seen.excused.entry(job.id).or_default() += 1;
                    }
                }
            }
            tokio::time::sleep(took / 2).await;
            let mut seen = self.net.seen();
            seen.busy.remove(&job.id);
            if let Some(count) = seen.busy_count.get_mut(&provider.name) {
                *count -= 1;
            }
            match end {
                End::Refused => drop(seen.refused.insert(job.id)),
                End::PutOff | End::Greylisted | End::Unread => drop(seen.put_off.insert(job.id)),
                End::Held(_) => seen.held_count += 1,
                End::Taken | End::Closed | End::NoConnection | End::Silence => {}
            }
            outcome(end)
        }
        .boxed()
    }

    fn probe<'a>(&'a self, provider: &'a Arc<Provider>) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mood = self.net.seen().moods.get(&provider.name).copied();
            match mood {
                Some(mood) if mood.is_reachable() => Ok(()),
                _ => Err(failure(Cause::ConnectionRefused, Stage::Connect, None)),
            }
        }
        .boxed()
    }
}

fn outcome(end: End) -> Outcome {
    let reply = |code, enhanced, text: &str| Some(Reply::new(code, Some(enhanced), text.into()));
    match end {
        End::Taken => Outcome::Delivered(Reply::new(250, Some([2, 0, 0]), "taken".into())),
        End::Unread => Outcome::Deferred(failure(Cause::Deferred, Stage::Dot, None)),
        End::PutOff => {
            Outcome::Deferred(failure(Cause::Deferred, Stage::Rcpt, reply(451, [4, 3, 0], "later")))
        }
        End::Greylisted => Outcome::Deferred(failure(
            Cause::Deferred,
            Stage::Rcpt,
            reply(451, [4, 7, 1], "greylisted"),
        )),
        End::Refused => Outcome::Rejected(failure(
            Cause::Rejected,
            Stage::Rcpt,
            reply(550, [5, 1, 1], "no such user"),
        )),
        End::Closed => Outcome::Unreachable(failure(
            Cause::Protocol,
            Stage::Mail,
            reply(421, [4, 3, 2], "closing"),
        )),
        End::NoConnection => {
            Outcome::Unreachable(failure(Cause::ConnectionRefused, Stage::Connect, None))
        }
        End::Held(quota) => {
            Outcome::Held(quota, failure(Cause::Deferred, Stage::Mail, reply(452, [4, 3, 1], "no")))
        }
        End::Silence => {
            Outcome::Unreachable(failure(Cause::ConnectionTimeout, Stage::Greeting, None))
        }
    }
}

fn failure(cause: Cause, stage: Stage, reply: Option<Reply>) -> Failure {
    Failure { cause, stage, reply, detail: cause.as_str().to_owned() }
}
