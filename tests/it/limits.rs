//! A provider that takes only so much, by its `spec.limits` or by what its server says: the mail waits,
//! or goes on, and no job pays for it.

mod full;
mod paced;
mod quota;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::clock::WallClock;
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::smtp::{Script, SmtpServer, Verb};
use crate::support::wait::eventually;

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

/// Waits until so many jobs of a notification are delivered and the others wait; the others.
async fn delivered(app: &App, notification: &str, wanted_count: usize) -> Vec<Value> {
    let path = format!("/notifications/{notification}");
    eventually(&format!("{wanted_count} are delivered, and the others wait"), async || {
        let found = app.client.get(&path).await;
        let jobs = found["jobs"].as_array().expect("jobs").iter();
        let (done, left): (Vec<_>, Vec<_>) = jobs.partition(|job| job["state"] == "delivered");
        // After the clock was set back what was due is so again within half a minute.
        let waits = |job: &&Value| job["state"] == "ready" || job["state"] == "scheduled";
        let wait = left.iter().all(waits);
        (wait && done.len() == wanted_count).then(|| left.into_iter().cloned().collect())
    })
    .await
}

/// How long after now this is.
fn until(time: &Value) -> SignedDuration {
    let time: Timestamp = text(time).parse().expect("a time");
    time.duration_since(Timestamp::now())
}

async fn day_messages(app: &App) -> Value {
    app.client.get("/providers").await["items"][0]["dayMessages"].clone()
}

/// The same once it is known, which it is not at once after a start.
async fn known_day_messages(app: &App) -> Value {
    let known = async || Some(day_messages(app).await).filter(|count| !count.is_null());
    eventually("what was sent is counted", known).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_days_count_holds_over_a_stop_and_a_kill_and_a_reload_lifts_it() {
    let sink = Sink::start();
    let main = Provider::plain("main", sink.port);
    let limited = |per_day: usize| main.clone().limits(json!({"messagesPerDay": per_day}));
    let home = Home::new(&[limited(3)]);
    let app = home.start().await;
    let id = app.notify(&many(6)).await;
    let waiting = delivered(&app, &id, 3).await;
    for job in &waiting {
        assert_eq!(job["attempts"], json!([]), "it costs none: {job}");
        let wait = until(&job["nextAttemptAt"]);
        let day = SignedDuration::from_hours(23)..SignedDuration::from_hours(25);
        assert!(day.contains(&wait), "{wait}: {job}");
    }
    let shown = app.provider_is("main", |shown| shown["heldUntil"].is_string()).await;
    assert_eq!(shown["heldReason"], "3 messages were sent within 24 hours");
    assert_eq!(shown["limits"]["messagesPerDay"], 3);
    assert_eq!((&shown["healthy"], &shown["dayMessages"]), (&json!(true), &json!(3)));
    assert_eq!(shown["conditions"][0]["status"], "True");
    let queue = app.queue_has("main", "ready", 3).await;
    assert_eq!(queue["heldUntil"], shown["heldUntil"]);
    assert_eq!(queue["nextAttemptAt"], waiting[0]["nextAttemptAt"]);
    let scrape = Scrape::of(&app.client).await;
    let of_main = [("provider", "main")];
    assert_eq!(scrape.count("held", &of_main), 1);
    assert_eq!(scrape.count("day_messages", &of_main), 3);
    app.stop().await;

    let mut app = home.start().await;
    delivered(&app, &id, 3).await;
    assert_eq!(known_day_messages(&app).await, 3);
    home.providers(&[limited(4)]);
    delivered(&app, &id, 4).await;
    app.process.kill9();

    let app = home.start().await;
    delivered(&app, &id, 4).await;
    assert_eq!(known_day_messages(&app).await, 4);
    home.providers(&[main]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 6, "each once");
    assert_eq!(day_messages(&app).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_new_counts_what_was_sent_before_it_and_by_earlier_runs() {
    let sink = Sink::start();
    let main = Provider::plain("main", sink.port);
    let home = Home::new(std::slice::from_ref(&main));
    let app = home.start().await;
    let first = app.notify(&many(2)).await;
    app.jobs_are(&first, &["delivered"]).await;
    app.stop().await;
    let app = home.start().await;
    let second = app.notify(&many(2)).await;
    app.jobs_are(&second, &["delivered"]).await;
    home.providers(&[main.limits(json!({"messagesPerDay": 5}))]);
    app.provider_is("main", |shown| shown["limits"]["messagesPerDay"] == 5).await;
    let third = app.notify(&many(3)).await;
    delivered(&app, &third, 1).await;
    assert_eq!(known_day_messages(&app).await, 5);
    assert_eq!(sink.letters().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_runs_sent_is_shown_though_no_mail_waits() {
    let sink = Sink::start();
    let main = Provider::plain("main", sink.port).limits(json!({"messagesPerDay": 5}));
    let home = Home::new(&[main]);
    let app = home.start().await;
    let id = app.notify(&many(2)).await;
    app.jobs_are(&id, &["delivered"; 2]).await;
    app.stop().await;
    let app = home.start().await;
    assert_eq!(known_day_messages(&app).await, 2);
    let of_main = [("provider", "main")];
    assert_eq!(Scrape::of(&app.client).await.count("day_messages", &of_main), 2);
}

/// The history is the only memory of the day, so it is kept for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_history_does_not_shorten_the_day() {
    let sink = Sink::start();
    let main = Provider::plain("main", sink.port).limits(json!({"messagesPerDay": 2}));
    let home = Home::new(&[main]).args(&["--history-retention", "0s"]);
    let app = home.start().await;
    let id = app.notify(&many(3)).await;
    let waiting = delivered(&app, &id, 2).await;
    app.stop().await;
    for _ in 0..2 {
        // Forgetting is the first thing that a start does.
        let app = home.start().await;
        assert_eq!(delivered(&app, &id, 2).await.len(), waiting.len());
        assert_eq!(known_day_messages(&app).await, 2);
        app.stop().await;
    }
    assert_eq!(sink.letters().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_takes_its_messages_and_the_others_wait_also_over_a_kill() {
    let sink = Sink::start();
    let main = Provider::plain("main", sink.port);
    let home = Home::new(&[main.clone().limits(json!({"messagesPerMinute": 5}))]);
    let mut app = home.start().await;
    let id = app.notify(&many(8)).await;
    let waiting = delivered(&app, &id, 5).await;
    for job in &waiting {
        let wait = until(&job["nextAttemptAt"]);
        assert!(wait <= SignedDuration::from_secs(61), "{wait}: {job}");
        assert!(SignedDuration::ZERO < wait, "{wait}: {job}");
    }
    let shown = app.provider_is("main", |_| true).await;
    assert_eq!(shown["heldUntil"], Value::Null, "a minute is no hold");
    app.process.kill9();
    let app = home.start().await;
    delivered(&app, &id, 5).await;
    home.providers(&[main]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_used_up_sends_mail_on_to_the_next_provider() {
    let (first, second) = (Sink::start(), Sink::start());
    let providers = [
        Provider::plain("second", second.port),
        Provider::plain("first", first.port).limits(json!({"messagesPerDay": 2})),
    ];
    let app = Home::new(&providers).start().await;
    let mut body = many(6);
    body["mailProvider"] = "first".into();
    let id = app.notify(&body).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    assert_eq!((first.letters().len(), second.letters().len()), (2, 4));
    for job in found["jobs"].as_array().expect("jobs") {
        assert_eq!(job["attempts"].as_array().expect("attempts").len(), 1, "{job}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_between_two_runs_neither_frees_the_day_nor_makes_it_longer() {
    if !need("faketime") {
        return;
    }
    for setting in ["-1h", "-10y"] {
        let sink = Sink::start();
        let main = Provider::plain("main", sink.port).limits(json!({"messagesPerDay": 1}));
        let (clock, home) = WallClock::of(Home::new(&[main]).args(&["--max-age", "90000h"]), "+0");
        let app = home.start().await;
        let id = app.notify(&many(2)).await;
        delivered(&app, &id, 1).await;
        app.stop().await;
        clock.set(setting);
        let app = home.start().await;
        let waiting = delivered(&app, &id, 1).await;
        let next: Timestamp = text(&waiting[0]["nextAttemptAt"]).parse().expect("a time");
        let fresh = app.client.accepted(&many(1)).await;
        let now: Timestamp = text(&fresh["acceptedAt"]).parse().expect("a time");
        let wait = next.duration_since(now);
        assert!(wait <= SignedDuration::from_hours(24) + SignedDuration::from_mins(1), "{wait}");
        assert!(SignedDuration::from_hours(23) < wait, "{setting}: {wait}");
        assert_eq!(sink.letters().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_never_sees_more_connections_than_it_takes_and_checks_are_among_them() {
    let server = SmtpServer::start(Script::plain()).await;
    let main = Provider::plain("main", server.port()).limits(json!({"maxConnections": 1}));
    let home = Home::new(&[main]).args(&["--health-interval", "100ms"]);
    let app = home.start().await;
    let mut open_most = 0;
    for _ in 0..4 {
        let id = app.notify(&many(50)).await;
        let path = format!("/notifications/{id}");
        eventually("all are delivered", async || {
            open_most = open_most.max(server.seen().open_count);
            let found = app.client.get(&path).await;
            let jobs = found["jobs"].as_array().expect("jobs");
            jobs.iter().all(|job| job["state"] == "delivered").then_some(())
        })
        .await;
    }
    assert_eq!(open_most, 1);
    server.wait_until(|seen| 3 < seen.count(Verb::Noop)).await;
    assert_eq!(server.accepted().len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_widens_and_narrows_what_a_provider_is_given_at_once() {
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let main = Provider::plain("main", sink.port);
    let home = Home::new(&[main.clone().limits(json!({"maxConnections": 1}))]);
    let app = home.start().await;
    let id = app.notify(&many(9)).await;
    app.queue_has("main", "inFlight", 1).await;
    eventually("it is at its end", async || (sink.held_count() == 1).then_some(())).await;
    home.providers(&[main.clone().limits(json!({"maxConnections": 3}))]);
    app.queue_has("main", "inFlight", 3).await;
    eventually("they are at theirs", async || (sink.held_count() == 3).then_some(())).await;
    home.providers(&[main.limits(json!({"maxConnections": 2}))]);
    app.provider_is("main", |shown| shown["limits"]["maxConnections"] == 2).await;
    sink.release();
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 9);
}
