//! The server dies at named points: before a certain system call, and at a certain word of its peer.
//!
//! `strace` kills it on the way into a call, so the call is not made; the sink kills it from inside of
//! the dialogue. Nothing in the product knows of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider, Refusal};
use crate::support::client::{Client, text};
use crate::support::need;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::{LIMIT, eventually};

const KEY: &str = "the-only-key";

fn mail() -> Value {
    json!({"recipients": ["ada@example.com"], "subject": "Breakglass", "text": "Please look."})
}

/// The same home with a server that dies before its nth `call` in one thread; only calls on `path`
/// count when there is one.
fn dying(home: &Home, providers: &[Provider], call: &str, path: Option<&Path>, nth: usize) -> Home {
    let kill = format!("inject={call}:signal=KILL:when={nth}");
    let trace = format!("trace={call}");
    let mut command = vec!["strace", "-D", "-f", "-o", "/dev/null", "-e", &*trace, "-e", &*kill];
    if let Some(path) = path {
        command.extend(["-P", path.to_str().expect("UTF-8")]);
    }
    Home::at(home.data().clone(), providers).under(&command)
}

/// Begins the store, so that what is counted afterwards is the work and not the beginning.
async fn begun(providers: &[Provider]) -> Home {
    let home = Home::new(providers);
    home.start().await.stop().await;
    home
}

/// Waits until the server is dead, by a kill.
async fn dead(app: &mut App) {
    let status = app.process.exit(LIMIT).await;
    assert_eq!(status.code(), None, "killed, not ended: {}", app.process.log());
}

/// After a restart: the post is accepted under its key, from before the kill or anew, and delivered
/// under one id. Answers how many letters came in all.
async fn letters_after(home: &Home, sink: &Sink, was_accepted: bool) -> (usize, bool) {
    let app = home.start().await;
    let answer = app.client.notify(&mail(), Some(KEY)).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
    let is_replayed = answer.headers.contains_key("idempotency-replayed");
    assert!(is_replayed || !was_accepted, "it was answered 202 and is not known any more");
    let id = text(&answer.json()["id"]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(app.client.jobs().await.len(), 1, "one job");
    let letters = sink.letters();
    let jobs: BTreeSet<&str> = letters.iter().map(|letter| letter.job()).collect();
    assert_eq!(jobs.len(), 1, "one Message-ID");
    app.stop().await;
    (letters.len(), is_replayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_the_journal_it_loses_nothing_and_repeats_only_an_unrecorded_250() {
    if !need("strace") {
        return;
    }
    // The first write and sync are those of the acceptance, the second those of its delivery. What
    // was written outlives a kill.
    let table = [
        ("pwritev", 1, "not written", (1, false)),
        ("fdatasync", 1, "written, not synced", (1, true)),
        ("pwritev", 2, "answered by the peer, not recorded", (2, true)),
        ("fdatasync", 2, "recorded, not synced", (1, true)),
    ];
    for (call, nth, point, expected) in table {
        let sink = Sink::start();
        let providers = [Provider::plain("main", sink.port)];
        let home = begun(&providers).await;
        let segment = home.data().join("journal/0000000001.seg");
        let mut app = dying(&home, &providers, call, Some(&segment), nth).start().await;
        let was_accepted =
            app.client.notify(&mail(), Some(KEY)).await.is_ok_and(|answer| answer.status == 202);
        dead(&mut app).await;
        assert!(!was_accepted || nth == 2, "{point}: no 202 before the sync");
        assert_eq!(letters_after(&home, &sink, was_accepted).await, expected, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_sync_and_the_answer_it_knows_the_notification_under_its_key() {
    if !need("strace") {
        return;
    }
    let mut sink = Sink::start();
    let providers = [Provider::plain("main", sink.port)];
    let home = begun(&providers).await;
    // Nothing else is sent while the provider is away. The first answers are about readiness.
    sink.close().await;
    let mut app = dying(&home, &providers, "sendto,writev", None, 25).start().await;
    let mut answered = Vec::new();
    let cut = loop {
        let n = answered.len();
        assert!(n < 2000, "it is not killed at all");
        let body =
            json!({"recipients": [format!("to-{n}@example.com")], "subject": "s", "text": "t"});
        match app.client.notify(&body, Some(&format!("key-{n}"))).await {
            Ok(answer) => {
                assert_eq!(answer.status, 202, "{}", answer.body);
                answered.push(answer.json());
            }
            Err(_) => break body,
        }
    };
    dead(&mut app).await;

    let app = home.start().await;
    let key = format!("key-{}", answered.len());
    let answer = app.client.notify(&cut, Some(&key)).await.expect("an answer");
    assert_eq!(
        (answer.status, &answer.headers["idempotency-replayed"]),
        (202, &"true".parse().expect("ASCII"))
    );
    assert_eq!(app.client.jobs().await.len(), answered.len() + 1);
    sink.open();
    for accepted in &answered {
        app.jobs_are(&text(&accepted["id"]), &["delivered"]).await;
    }
    app.drained().await;
    assert_eq!(sink.letters().len(), answered.len() + 1, "no copies");
}

/// Where in the dialogue the sink kills the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Recipient,
    Data,
    /// The message is there whole, and the peer does not take it.
    DotRefused,
    /// The peer took it, and its 250 is not read any more.
    DotTaken,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_dialogue_it_repeats_only_what_the_peer_took() {
    let points =
        [(Word::Recipient, 1), (Word::Data, 1), (Word::DotRefused, 1), (Word::DotTaken, 2)];
    for (point, letters_count) in points {
        let victim: Arc<Mutex<Option<Pid>>> = Arc::default();
        let hand = victim.clone();
        let sink = Sink::with(move |moment| {
            let is_it = match moment {
                Moment::Recipient(_) => point == Word::Recipient,
                Moment::Data => point == Word::Data,
                Moment::Dot => matches!(point, Word::DotRefused | Word::DotTaken),
                Moment::Greeting => false,
            };
            match hand.lock().expect("not poisoned").take_if(|_| is_it) {
                Some(pid) => {
                    kill_process(pid, Signal::KILL).expect("it lives");
                    match point {
                        Word::DotTaken => Act::Accept,
                        _ => Act::Say("451 4.3.0 not now"),
                    }
                }
                None => Act::Accept,
            }
        });
        let home = begun(&[Provider::plain("main", sink.port)]).await;
        let mut app = home.start().await;
        let pid = i32::try_from(app.process.id()).expect("a process id");
        *victim.lock().expect("not poisoned") = Pid::from_raw(pid);
        let answer = app.client.notify(&mail(), Some(KEY)).await;
        let was_accepted = answer.is_ok_and(|answer| answer.status == 202);
        dead(&mut app).await;
        let found = letters_after(&home, &sink, was_accepted).await;
        assert_eq!(found, (letters_count, true), "{point:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_record_it_repeats_nothing() {
    let sink = Sink::start();
    let home = begun(&[Provider::plain("main", sink.port)]).await;
    let mut app = home.start().await;
    let answer = app.client.notify(&mail(), Some(KEY)).await.expect("an answer");
    app.jobs_are(&text(&answer.json()["id"]), &["delivered"]).await;
    app.process.kill9();
    assert_eq!(letters_after(&home, &sink, true).await, (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_makes_the_index_again_it_makes_it_at_the_next_start() {
    if !need("strace") {
        return;
    }
    let mut sink = Sink::start();
    sink.close().await;
    let providers = [Provider::plain("main", sink.port)];
    let home = Home::new(&providers).args(&["--unhealthy-interval", "1s"]);
    let mut app = home.start().await;
    let to: Vec<String> = (0..100).map(|n| format!("to-{n}@example.com")).collect();
    let id = app.notify(&json!({"recipients": to, "subject": "s", "text": "t"})).await;
    app.queue_has("main", "parked", 100).await;
    app.process.kill9();

    // Removing the old one, reading the journal, writing the new one.
    let segment = home.data().join("journal/0000000001.seg");
    let points = [("unlinkat", None), ("read", Some(&*segment)), ("pwrite64", None)];
    let mut deaths = Vec::new();
    for (call, path) in points {
        let mut nth = 1;
        loop {
            match dying(&home, &providers, call, path, nth).try_start().await {
                Ok(mut app) => {
                    app.process.kill9();
                    break;
                }
                Err(Refusal { status, log }) => {
                    assert_eq!(status.code(), None, "killed, not refused: {log}");
                    deaths.push((call, nth));
                }
            }
            nth *= 2;
        }
    }
    println!("{deaths:?}");
    let is_met = |(call, _): &(&str, _)| deaths.iter().any(|(at, _)| at == call);
    assert!(points.iter().all(is_met), "{deaths:?}");

    let app = home.start().await;
    app.queue_has("main", "parked", 100).await;
    sink.open();
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 100, "every job once");
}

/// How many contents of almost a mebibyte, of which two segments of 32 MiB are full.
const LARGE: usize = 72;

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_frees_a_segment_it_keeps_what_was_in_it_and_frees_it_later() {
    if !need("strace") {
        return;
    }
    let mut sink = Sink::start();
    sink.close().await;
    let providers = [Provider::plain("main", sink.port)];
    let base = Home::new(&providers);
    let app = base.start().await;
    let kept = app
        .notify(&json!({"recipients": ["ada@example.com", "bob@example.com"],
        "subject": "kept", "text": "This stays in the first segment."}))
        .await;
    let text = "It is large. ".repeat(75_000);
    let mut large = Vec::new();
    for n in 0..LARGE {
        let to = [format!("to-{n}@example.com")];
        large.push(app.notify(&json!({"recipients": to, "subject": "large", "text": text})).await);
    }
    app.queue_has("main", "parked", LARGE + 2).await;
    // Less than what makes it worth while.
    let (before, last) = large.split_at(LARGE * 2 / 3);
    cancel(&app.client, before).await;
    app.stop().await;
    let first = Path::new("journal/0000000001.seg");
    assert!(base.data().join(first).exists(), "nothing was freed yet");

    let current = Path::new("journal/0000000003.seg");
    let table = [
        ("rename", Path::new("identity.new"), 1, "what is alive was carried"),
        ("unlink", first, 1, "the journal is noted to begin later"),
        ("fsync", Path::new("journal"), 1, "the file is gone, its name not yet for good"),
        ("pwritev", current, 8, "while the last ones are taken out"),
        (
            "fdatasync",
            current,
            12,
            "while the last ones are taken out, or what is alive is carried",
        ),
    ];
    for (call, path, nth, point) in table {
        let home = Home::new(&providers).args(&["--unhealthy-interval", "1s"]);
        copy(base.data(), home.data());
        let path = home.data().join(path);
        let mut app = dying(&home, &providers, call, Some(&path), nth).start().await;
        let cancelled = cancel(&app.client, last).await;
        dead(&mut app).await;

        let mut app = home.start().await;
        for id in before.iter().chain(&last[..cancelled]) {
            app.jobs_are(id, &["cancelled"]).await;
        }
        cancel(&app.client, &last[cancelled..]).await;
        eventually("the first segment is freed", async || {
            (!home.data().join(first).exists()).then_some(())
        })
        .await;
        app.process.kill9();
        let app = home.start().await;
        assert_eq!(app.client.jobs().await.len(), LARGE + 2, "{point}");
        let letters_count = sink.letters().len();
        sink.open();
        app.jobs_are(&kept, &["delivered"]).await;
        app.drained().await;
        let letters = sink.letters().split_off(letters_count);
        assert_eq!(letters.len(), 2, "{point}");
        let is_whole = |letter: &crate::support::sink::Letter| {
            String::from_utf8_lossy(&letter.bytes).contains("This stays in the first segment.")
        };
        assert!(letters.iter().all(is_whole), "{point}");
        app.stop().await;
        sink.close().await;
    }
}

/// Takes these notifications out, until one gets no answer; how many were.
async fn cancel(client: &Client, notifications: &[String]) -> usize {
    for (n, id) in notifications.iter().enumerate() {
        let path = format!("/notifications/{id}");
        match client.call(hyper::Method::DELETE, &path, &[], None).await {
            Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.body),
            Err(_) => return n,
        }
    }
    notifications.len()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(std::fs::copy(&path, &to).expect("copy")),
        }
    }
}
