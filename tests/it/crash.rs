//! Kills and stops: what was answered 202 is delivered, a dead letter, or still queued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::load::{self, Load, Post};
use crate::support::operator::Operator;
use crate::support::oracle::Evidence;
use crate::support::sink::{Act, Letter, Moment, Sink};
use crate::support::wait::{eventually, within};
use crate::support::{lots, nightly};

const CONNECTIONS: usize = 4;
/// Over all kills: a start after one reads them all, and has 5 s for that, also without optimization.
const POSTS: usize = 1600;

/// A few recipients, of every kind of fate; see `Sink::moody`. A third of the posts is for `away` alone,
/// the others may fail over to it.
fn mixed(n: usize) -> Value {
    let kinds = ["ok", "ok", "ok", "later", "ok", "no", "ok", "never", "ok", "ok"];
    let recipients: Vec<String> =
        (0..=n % 3).map(|m| format!("{}-{n}-{m}@example.com", kinds[(n + m) % 10])).collect();
    let provider = if n % 3 == 1 { "away" } else { "main" };
    json!({"recipients": recipients, "text": "Please look.", "mailProvider": provider})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_202_survives_kills_under_load() {
    let mut lots = lots();
    let (main, mut away) = (Sink::moody(), Sink::moody());
    let providers = [
        Provider::plain("away", away.port).retry(1, 10),
        Provider::plain("main", main.port).retry(5, 10),
    ];
    let home = Home::new(&providers).args(&["--unhealthy-interval", "1s"]);
    let home = home.args(&["--max-connections", &CONNECTIONS.to_string()]);
    let operator = Arc::new(Operator::default());
    let load = Load::start(16, mixed);
    let mut app = home.start().await;
    let (mut cuts, mut slowest) = (0, Duration::ZERO);
    let rounds = if nightly() { 200 } else { 20 };
    let half_max = POSTS / rounds / 2;
    for round in 0..rounds {
        load.serve(Some(app.client.clone()));
        let (hand, client, mut its_lots) = (operator.clone(), app.client.clone(), lots.fork());
        let hand = tokio::spawn(async move { hand.act(&client, &mut its_lots).await });
        let half = load.ended_count() + lots.usize(1..=half_max);
        let goal = half + lots.usize(0..=half_max);
        load.allow(2 * half_max);
        for (reached, toggles) in [(half, lots.bool()), (goal, lots.bool())] {
            eventually("enough posts have ended", async || {
                (load.ended_count() >= reached).then_some(())
            })
            .await;
            match (toggles, away.is_open()) {
                (true, true) => away.close().await,
                (true, false) => away.open(),
                (false, _) => continue,
            }
            cuts += 1;
        }
        // The moment itself is a lot too, so that it is not always just after an answer.
        tokio::time::sleep(Duration::from_micros(lots.u64(0..20_000))).await;
        app.process.kill9();
        load.serve(None);
        cuts += 1;
        hand.await.expect("the operator panicked");
        let begin = Instant::now();
        app = home.start().await;
        slowest = slowest.max(begin.elapsed());
        assert!(slowest < Duration::from_secs(5), "ready after {slowest:?}");
        let (posts, hand) = (load.posts(), operator.hand());
        assert_the_first_answer_is_replayed(&app, &posts, &mut lots).await;
        let evidence = Evidence::gather(&app, posts, hand, &[&main, &away]).await;
        let faults = evidence.faults(cuts * 2 * CONNECTIONS);
        assert_eq!(faults, Vec::<String>::new(), "after kill {round}");
    }
    if !away.is_open() {
        away.open();
    }
    load.serve(Some(app.client.clone()));
    let posts = load.finish().await;
    app.drained().await;
    let evidence = Evidence::gather(&app, posts, operator.hand(), &[&main, &away]).await;
    assert_eq!(evidence.faults(cuts * 2 * CONNECTIONS), Vec::<String>::new(), "at the end");
    evidence.assert_counts_agree(&app).await;
    println!("{} copies in {cuts} cuts, ready after {slowest:?}", evidence.copies_count());
}

/// The copies of one recipient's mail have one `Message-ID`.
fn assert_one_id_each(letters: &[Letter]) {
    let mut ids: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for letter in letters {
        ids.entry((&letter.subject, &letter.recipient)).or_default().insert(&letter.message_id);
    }
    ids.retain(|_, ids| ids.len() > 1);
    assert!(ids.is_empty(), "sent under several ids: {ids:?}");
}

async fn assert_the_first_answer_is_replayed(app: &App, posts: &[Post], lots: &mut fastrand::Rng) {
    let keyed = posts.iter().filter(|post| post.key.is_some() && post.accepted().is_some());
    for post in lots.choose_multiple(keyed, 3) {
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
