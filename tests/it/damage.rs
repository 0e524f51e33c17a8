//! Damaged files: the server has everything, or says loudly what is damaged, or refuses to start. It
//! never panics, and it never differs in silence.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::image::Image;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;
use crate::support::{lots, nightly};

const FLIPS: usize = 500;
/// What a disk loses at once: a sector, and a page.
const BLOCKS_BYTES: [usize; 2] = [512, 4096];
const TEXT: &str = "Please look.";

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_flipped_bits_are_harmless_or_reported() {
    let mut lots = lots();
    let store = Store::closed().await;
    // Mostly where there is something: a segment is zeros for the greater part.
    let written = |bytes: &[u8]| (0..bytes.len()).filter(|at| bytes[*at] != 0).collect::<Vec<_>>();
    let files: Vec<_> = store
        .image
        .files
        .iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(path, bytes)| (path, bytes.len(), written(bytes)))
        .collect();
    let damages = (0..FLIPS).map(|n| {
        let (path, size, written) = &files[n % files.len()];
        let at = match lots.choice(written) {
            Some(at) if n % 8 != 0 => *at,
            _ => lots.usize(..size),
        };
        Damage::Flip { path: PathBuf::clone(path), at, bit: lots.u8(..8) }
    });
    let damages = damages.collect();
    assert_no_silent_difference(&store, damages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zeroed_blocks_are_harmless_or_reported() {
    let mut lots = lots();
    let store = Store::closed().await;
    let files = store.image.files.iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
    let files: Vec<_> = files.collect();
    let zeros_count = if nightly() { 500 } else { 60 };
    let damages = (0..zeros_count).map(|n| {
        let (path, bytes) = files[n % files.len()];
        let block_bytes = BLOCKS_BYTES[n / files.len() % 2];
        let begin = lots.usize(..bytes.len()) / block_bytes * block_bytes;
        Damage::Zero { path: path.clone(), begin, end: bytes.len().min(begin + block_bytes) }
    });
    let damages = damages.collect();
    assert_no_silent_difference(&store, damages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_short_emptied_or_removed_is_harmless_or_reported() {
    let store = Store::closed().await;
    let all = [Damage::Halve, Damage::Empty, Damage::Remove];
    let paths = store.image.files.keys();
    let mut damages: Vec<_> =
        paths.flat_map(|path| all.map(|damage| damage(path.clone()))).collect();
    let strangers = ["stranger", "journal/stranger", "journal/9999999999.seg", "index/stranger"];
    damages.extend(strangers.map(|path| Damage::Add(path.into())));
    assert_no_silent_difference(&store, damages).await;
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { path: PathBuf, at: usize, bit: u8 },
    Zero { path: PathBuf, begin: usize, end: usize },
    Halve(PathBuf),
    Empty(PathBuf),
    Remove(PathBuf),
    Add(PathBuf),
}

impl Damage {
    fn apply(&self, image: &mut Image) {
        let mut bytes = |path: &PathBuf| image.files.remove(path).unwrap_or_default();
        let (path, bytes) = match self {
            Self::Flip { path, at, bit } => {
                let mut bytes = bytes(path);
                bytes[*at] ^= 1 << bit;
                (path, bytes)
            }
            Self::Zero { path, begin, end } => {
                let mut bytes = bytes(path);
                bytes[*begin..*end].fill(0);
                (path, bytes)
            }
            Self::Halve(path) => {
                let mut bytes = bytes(path);
                bytes.truncate(bytes.len() / 2);
                (path, bytes)
            }
            Self::Empty(path) => (path, vec![]),
            Self::Remove(path) => return drop(bytes(path)),
            Self::Add(path) => (path, b"I am lost.\n".to_vec()),
        };
        image.files.insert(path.clone(), bytes);
    }

    fn path(&self) -> &Path {
        match self {
            Self::Flip { path, .. } | Self::Zero { path, .. } => path,
            Self::Halve(path) | Self::Empty(path) | Self::Remove(path) | Self::Add(path) => path,
        }
    }
}

/// What the server says of each job: its state, and whether its content can be read where the API
/// shows it.
type Known = BTreeMap<String, (&'static str, Option<bool>)>;

/// A closed store and what the server knew when it was closed.
struct Store {
    image: Image,
    notifications: Vec<String>,
    known: Known,
    providers: [Provider; 3],
    /// Refuse connections, so that nothing moves while it is looked at.
    _away: [Sink; 3],
}

impl Store {
    /// Twelve notifications of four jobs each: delivered, rejected, waiting for a retry and parked;
    /// and one more that was cancelled.
    async fn closed() -> Self {
        let mut fine = Sink::with(|moment| match moment {
            Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
            _ => Act::Accept,
        });
        let mut busy = Sink::with(|moment| match moment {
            Moment::Recipient(_) => Act::Say("451 4.3.0 not now"),
            _ => Act::Accept,
        });
        let mut away = Sink::start();
        away.close().await;
        let providers = [
            Provider::plain("fine", fine.port),
            Provider::plain("busy", busy.port).retry(10, 60_000),
            Provider::plain("away", away.port),
        ];
        let home = Home::new(&providers);
        let app = home.start().await;
        let mut notifications = Vec::new();
        for (n, provider) in (0..12).zip(["fine", "busy", "away"].iter().cycle()) {
            let to: Vec<_> = ["ok", "no", "ok-too", "no-way"]
                .map(|kind| format!("{kind}-{n}@example.com"))
                .into();
            let id = post(&app, &to, n, provider).await;
            settled(&app, &id).await;
            notifications.push(id);
        }
        let cancelled = post(&app, &["ok-12@example.com".into()], 12, "busy").await;
        settled(&app, &cancelled).await;
        let path = format!("/notifications/{cancelled}");
        let answer = app.client.call(Method::DELETE, &path, &[], None).await.expect("an answer");
        assert!(answer.status < 300, "{}", answer.body);
        notifications.push(cancelled);
        fine.close().await;
        busy.close().await;
        let known = known(&app, &notifications).await;
        app.stop().await;
        let mut image = Image::read(home.data()).expect("read the store");
        // Large, and its bytes mean nothing.
        image.files.remove(Path::new("reserve"));
        Self { image, notifications, known, providers, _away: [fine, busy, away] }
    }

    /// Starts a server on the damaged store; the fault that it hides, if any.
    async fn hidden_fault(&self, damage: &Damage) -> Option<String> {
        let mut image = self.image.clone();
        damage.apply(&mut image);
        let home = Home::new(&self.providers);
        image.write(home.data()).expect("write the store");
        let file = damage.path().to_str().expect("UTF-8").to_owned();
        let app = match home.try_start().await {
            Ok(app) => app,
            Err(refusal) if refusal.log.contains("panicked at") => {
                return Some(format!("panicked:\n{}", refusal.log));
            }
            Err(refusal) if refusal.status.code().is_none_or(|code| code == 0) => {
                return Some(format!("{}:\n{}", refusal.status, refusal.log));
            }
            Err(refusal) => {
                let named = refusal.log.contains(&file);
                return (!named).then(|| format!("a refusal without {file}:\n{}", refusal.log));
            }
        };
        let now = known(&app, &self.notifications).await;
        let differing = self.known.iter().filter(|(id, what)| now.get(*id) != Some(*what)).count()
            + now.keys().filter(|id| !self.known.contains_key(*id)).count();
        let log = app.process.log();
        if log.contains("panicked at") {
            Some(format!("panicked:\n{log}"))
        } else if differing > self.known.len() / 4 && matches!(damage, Damage::Flip { .. }) {
            Some(format!("the rest was not kept: {differing} jobs differ:\n{log}"))
        } else if differing > 0 && !(is_named(&log, &file) && counts_damage(&app).await) {
            Some(format!("{differing} jobs differ in silence:\n{log}"))
        } else {
            None
        }
    }
}

async fn post(app: &App, to: &[String], n: usize, provider: &str) -> String {
    let post = json!({
        "recipients": to, "subject": format!("post {n}"), "text": TEXT,
        "mailProvider": provider,
    });
    app.client.accepted(&post).await["id"].as_str().expect("an id").to_owned()
}

/// Waits until every job of the notification had its first attempt.
async fn settled(app: &App, id: &str) {
    eventually("no job of it is ready or in flight", async || {
        let notification = app.client.get(&format!("/notifications/{id}")).await;
        let moving = |job: &Value| job["state"] == "ready" || job["state"] == "inFlight";
        (!notification["jobs"].as_array()?.iter().any(moving)).then_some(())
    })
    .await;
}

async fn known(app: &App, notifications: &[String]) -> Known {
    let mut known = Known::new();
    for id in notifications {
        let path = format!("/notifications/{id}");
        let answer = app.client.call(Method::GET, &path, &[], None).await.expect("an answer");
        if answer.status != 200 {
            continue;
        }
        let notification = answer.json();
        for job in notification["jobs"].as_array().expect("jobs") {
            let id = job["id"].as_str().expect("an id").to_owned();
            let path = format!("/deadletters/{id}?include=content");
            let letter = app.client.call(Method::GET, &path, &[], None).await.expect("an answer");
            let rejected = letter.status == 200 && letter.json()["reason"] == "rejected";
            // A retry may have come due and been parked since: both still wait.
            let state = match job["state"].as_str().expect("a state") {
                "delivered" => "delivered",
                "cancelled" => "cancelled",
                "dead" if rejected => "rejected",
                _ => "waiting",
            };
            let is_shown = rejected || job["provider"] == "away";
            let content = is_shown.then(|| letter.body.contains(TEXT));
            known.insert(id, (state, content));
        }
    }
    known
}

/// Whether a warning or an error names the file and an offset.
fn is_named(log: &str, file: &str) -> bool {
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| {
        let loud = line["level"] == "ERROR" || line["level"] == "WARN";
        let text = line["fields"].to_string();
        loud && text.contains(file) && text.contains("offset")
    })
}

async fn counts_damage(app: &App) -> bool {
    let metrics =
        app.client.call(Method::GET, "/metrics", &[], None).await.expect("an answer").body;
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.strip_prefix("breakglass_mailer_store_damaged_records"))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .any(|count| count > 0.0)
}

async fn assert_no_silent_difference(store: &Store, damages: Vec<Damage>) {
    let left = RefCell::new(damages);
    let faults = RefCell::new(Vec::new());
    let look = async || {
        loop {
            let Some(damage) = left.borrow_mut().pop() else { return };
            if let Some(fault) = store.hidden_fault(&damage).await {
                faults.borrow_mut().push(format!("{damage:?}: {fault}"));
            }
        }
    };
    // Four servers at once: each test thread only waits for them.
    tokio::join!(look(), look(), look(), look());
    let faults = faults.into_inner();
    assert!(faults.is_empty(), "{} hidden faults, the first: {}", faults.len(), faults[0]);
}
