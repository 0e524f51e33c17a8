//! Kills and stops: what was answered 202 is delivered, a dead letter, or still queued.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::load::{End, Load, Post};
use crate::support::sink::{Act, Letter, Moment, Sink};
use crate::support::wait::{eventually, within};
use crate::support::{load, lots};

const CONNECTIONS: usize = 4;
const KILLS: usize = 20;

/// A few recipients, of every kind of fate; see `moody`.
fn mixed(n: usize) -> Value {
    let kinds = ["ok", "ok", "ok", "later", "ok", "no", "ok", "never", "ok", "ok"];
    let recipients: Vec<String> =
        (0..=n % 3).map(|m| format!("{}-{n}-{m}@example.com", kinds[(n + m) % 10])).collect();
    json!({"recipients": recipients, "text": "Please look."})
}

/// Puts off `later` about every second time and `never` each time, refuses `no`.
fn moody() -> Sink {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    Sink::with(move |moment| match moment {
        Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
        Moment::Recipient(to) if to.starts_with("never-") => Act::Say("451 4.3.0 not today"),
        Moment::Recipient(to) if to.starts_with("later-") => {
            match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 {
                0 => Act::Say("451 4.3.0 not now"),
                _ => Act::Accept,
            }
        }
        _ => Act::Accept,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_202_survives_twenty_kills_under_load() {
    let mut lots = lots();
    let sink = moody();
    let home = Home::new(&[Provider::plain("main", sink.port).retry(5, 10)])
        .args(&["--max-connections", &CONNECTIONS.to_string()]);
    let load = Load::start(16, mixed);
    let mut app = home.start().await;
    for _ in 0..KILLS {
        load.serve(Some(app.client.clone()));
        let goal = load.ended_count() + lots.usize(1..150);
        load.allow(200);
        eventually("enough posts have ended", async || (load.ended_count() >= goal).then_some(()))
            .await;
        // The moment itself is a lot too, so that it is not always just after an answer.
        tokio::time::sleep(Duration::from_micros(lots.u64(0..20_000))).await;
        app.process.kill9();
        load.serve(None);
        let begin = Instant::now();
        app = home.start().await;
        assert!(begin.elapsed() < Duration::from_secs(5), "ready after {:?}", begin.elapsed());
    }
    load.serve(Some(app.client.clone()));
    let posts = load.finish().await;
    app.drained().await;

    let letters = sink.letters();
    let dead = app.client.dead_letters().await;
    assert_eq!(missing(&posts, &letters, &dead), Vec::<String>::new(), "lost");
    assert_eq!(ghosts(&posts, &letters, &dead), Vec::<String>::new(), "sent without a 202");
    let copies = letters.len() - distinct(&letters).len();
    assert!(copies <= KILLS * CONNECTIONS, "{copies} copies after {KILLS} kills");
    assert_one_id_each(&letters);
    assert_the_first_answer_is_replayed(&app, &posts).await;
}

/// The jobs that were answered 202 and are neither with the peer nor dead.
fn missing(posts: &[Post], letters: &[Letter], dead: &[Value]) -> Vec<String> {
    let sent: BTreeSet<(&str, &str)> =
        letters.iter().map(|letter| (&*letter.subject, &*letter.recipient)).collect();
    let buried: BTreeSet<(&str, &str)> = dead.iter().map(fate).collect();
    let accepted = posts.iter().filter_map(|post| Some((post, post.accepted()?)));
    accepted
        .flat_map(|(post, (id, jobs))| jobs.keys().map(move |to| (&*post.token, id, &**to)))
        .filter(|(token, id, to)| !sent.contains(&(token, to)) && !buried.contains(&(id, to)))
        .map(|(token, id, to)| format!("{token} {id} {to}"))
        .collect()
}

fn fate(dead: &Value) -> (&str, &str) {
    let text = |name: &str| dead[name].as_str().expect("a string");
    (text("notification"), text("recipient"))
}

/// What was sent or buried although its caller read a refusal, or under another id than it read.
fn ghosts(posts: &[Post], letters: &[Letter], dead: &[Value]) -> Vec<String> {
    let posts: BTreeMap<&str, &Post> = posts.iter().map(|post| (&*post.token, post)).collect();
    let sent = letters.iter().map(|letter| (&*letter.subject, &*letter.recipient, Some(letter)));
    let buried = dead
        .iter()
        .map(|dead| (dead["subject"].as_str().expect("a subject"), fate(dead).1, None::<&Letter>));
    sent.chain(buried)
        .filter(|(token, to, letter)| match posts.get(token).map(|post| &post.end) {
            Some(End::Accepted { jobs, .. }) => match (jobs.get(*to), letter) {
                (Some(job), Some(letter)) => !letter.message_id.contains(job),
                (job, _) => job.is_none(),
            },
            Some(End::Unread) => false,
            Some(End::Refused(_)) | None => true,
        })
        .map(|(token, to, _)| format!("{token} {to}"))
        .collect()
}

fn distinct(letters: &[Letter]) -> BTreeSet<(&str, &str)> {
    letters.iter().map(|letter| (&*letter.message_id, &*letter.recipient)).collect()
}

/// One subject and recipient is one job, so all its copies have one `Message-ID`.
fn assert_one_id_each(letters: &[Letter]) {
    let mut ids: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for letter in letters {
        ids.entry((&letter.subject, &letter.recipient)).or_default().insert(&letter.message_id);
    }
    ids.retain(|_, ids| ids.len() > 1);
    assert!(ids.is_empty(), "sent under several ids: {ids:?}");
}

async fn assert_the_first_answer_is_replayed(app: &App, posts: &[Post]) {
    let keyed = posts.iter().filter(|post| post.key.is_some() && post.accepted().is_some());
    for post in keyed.step_by(20) {
        let again = app.client.notify(&post.body, post.key.as_deref()).await.expect("an answer");
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(load::end(Ok(again)), post.end, "the first answer again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_starts_opens_the_next_time_with_every_job() {
    let mut lots = lots();
    let mut sink = Sink::start();
    sink.close().await;
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&[
        "--unhealthy-interval",
        "1s",
        "--health-interval",
        "1s",
    ]);
    let app = home.start().await;
    let mut owed = BTreeSet::new();
    for batch in 0..20 {
        let to: Vec<String> = (0..100).map(|n| format!("to-{batch}-{n}@example.com")).collect();
        app.client.accepted(&json!({"recipients": to, "subject": "s", "text": "t"})).await;
        owed.extend(to);
    }
    app.stop().await;

    let begin = Instant::now();
    home.start().await.stop().await;
    let usual = begin.elapsed();
    for round in 0..10 {
        if round % 2 == 1 {
            // Without its index the start is a rebuild. The one before may not have come so far.
            let _ = std::fs::remove_dir_all(home.data().join("index"));
        }
        let mut process = home.spawn();
        tokio::time::sleep(usual.mul_f64(lots.f64())).await;
        process.kill9();
    }
    sink.open();
    let app = home.start().await;
    app.drained().await;
    let letters = sink.letters();
    let sent: BTreeSet<String> = letters.iter().map(|letter| letter.recipient.clone()).collect();
    assert_eq!(owed.difference(&sent).count(), 0, "lost");
    assert_one_id_each(&letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_send_finish_and_turns_everything_else_away() {
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let mut app = home.start().await;
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    app.client.accepted(&post).await;
    eventually("the message waits for its reply", async || (sink.held_count() == 1).then_some(()))
        .await;

    app.process.term();
    within(Duration::from_secs(2), "readiness goes off", async || {
        (app.client.status("/readyz").await == Some(503)).then_some(())
    })
    .await;
    let refused = app.client.notify(&post, None).await.expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.json()["type"].as_str().expect("a type").ends_with("/shutting-down"));
    sink.release();
    assert!(app.process.exit(Duration::from_secs(10)).await.success());

    let app = home.start().await;
    app.drained().await;
    assert_eq!(sink.letters().len(), 1, "one copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_does_not_wait_for_a_peer_that_hangs_and_keeps_its_job() {
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&["--shutdown-grace", "1s"]);
    let mut app = home.start().await;
    app.client
        .accepted(&json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"}))
        .await;
    eventually("the message waits for its reply", async || (sink.held_count() == 1).then_some(()))
        .await;

    app.process.term();
    assert!(app.process.exit(Duration::from_secs(5)).await.success());
    sink.release();
    let app = home.start().await;
    app.drained().await;
    assert_one_id_each(&sink.letters());
    assert!(!sink.letters().is_empty(), "delivered after the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_folder_names_the_first_and_leaves_it_alone() {
    let sink = Sink::start();
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let app = home.start().await;

    let begin = Instant::now();
    let refusal = home.try_start().await.err().expect("the second one exits");
    assert!(begin.elapsed() < Duration::from_secs(2), "exited after {:?}", begin.elapsed());
    assert!(!refusal.status.success());
    let holder = app.process.id().to_string();
    assert!(refusal.log.contains(&holder), "names process {holder}: {}", refusal.log);

    app.client
        .accepted(&json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"}))
        .await;
    app.drained().await;
    assert_eq!(sink.letters().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_retry_keeps_its_due_time_over_a_restart() {
    let sink = Sink::with(|moment| match moment {
        Moment::Recipient(_) => Act::Say("451 4.3.0 not now"),
        _ => Act::Accept,
    });
    let home = Home::new(&[Provider::plain("main", sink.port).retry(3, 60_000)]);
    let app = home.start().await;
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let id = app.client.accepted(&post).await["id"].as_str().expect("an id").to_owned();
    let before = scheduled(&app).await;
    app.stop().await;

    let app = home.start().await;
    assert_eq!(scheduled(&app).await, before);
    let notification = app.client.get(&format!("/notifications/{id}")).await;
    let attempts = notification["jobs"][0]["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 1, "{notification}");
}

/// When the only job is due, once it waits for that.
async fn scheduled(app: &App) -> String {
    eventually("the job waits for its next attempt", async || {
        let queue = app.client.get("/queue").await;
        let provider = &queue["providers"][0];
        let due = provider["nextAttemptAt"].as_str().map(str::to_owned);
        (provider["scheduled"] == 1).then_some(due?)
    })
    .await
}
