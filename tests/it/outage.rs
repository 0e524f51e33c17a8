//! A provider that cannot be reached: it costs a few attempts and some time, and never mail.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::app::{App, Home, Provider};
use crate::support::client::{condition, text};
use crate::support::metrics::Scrape;
use crate::support::provider::manifests;
use crate::support::sink::{Act, Letter, Moment, Sink};
use crate::support::smtp::{Action, Script, SmtpServer, Verb, say};
use crate::support::wait::{eventually, within};

/// So that no test waits for the usual half a minute.
const SOON: [&str; 2] = ["--unhealthy-interval", "1s"];

fn to(recipient: &str) -> Value {
    json!({"recipients": [recipient], "subject": "Breakglass", "text": "Please look."})
}

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

/// A sink that refuses connections.
async fn closed() -> Sink {
    let mut sink = Sink::start();
    sink.close().await;
    sink
}

fn recipients(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|letter| &*letter.recipient).collect()
}

async fn attempts_count(app: &App, notification: &str) -> usize {
    let found = app.client.get(&format!("/notifications/{notification}")).await;
    let jobs = found["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| job["attempts"].as_array().expect("attempts").len()).sum()
}

/// How many health checks were made, of whatever outcome.
async fn checks_count(app: &App) -> usize {
    let scrape = Scrape::of(&app.client).await;
    let ended =
        |result| scrape.count("health_check_total", &[("provider", "main"), ("result", result)]);
    ended("success") + ended("failure")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_parks_jobs_without_attempts_and_they_go_out_by_themselves_in_order() {
    let mut sink = closed().await;
    let home = Home::new(&[Provider::plain("main", sink.port).retry(2, 10)]).args(&SOON);
    let app = home.args(&["--max-connections", "1"]).start().await;
    let first = app.notify(&to("to-0@example.com")).await;
    let found = app.jobs_are(&first, &["dead"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 3, "count + 1: {found}");
    let ends =
        |attempt: &Value| attempt["outcome"] == "unreachable" && attempt["stage"] == "connect";
    assert!(attempts.iter().all(ends), "{found}");
    app.provider_is("main", |shown| shown["circuitOpenSince"].is_string()).await;

    for n in 1..6 {
        let id = app.notify(&to(&format!("to-{n}@example.com"))).await;
        app.jobs_are(&id, &["dead"]).await;
        assert_eq!(attempts_count(&app, &id).await, 0, "parked without dialling");
    }
    let queue = app.queue_has("main", "parked", 6).await;
    assert_eq!((&queue["depth"], &queue["healthy"]), (&json!(6), &json!(false)));
    let letters = app.client.dead_letters().await;
    let waits =
        |letter: &Value| letter["reason"] == "unreachable" && letter["redrive"] == "automatic";
    assert!(letters.iter().all(waits), "{letters:?}");

    sink.open();
    app.drained().await;
    let expected: Vec<_> = (0..6).map(|n| format!("to-{n}@example.com")).collect();
    assert_eq!(recipients(&sink.letters()), expected, "oldest first");
    assert_eq!(app.client.get("/deadletters").await["total"], 0);
    let shown = app.provider_is("main", |shown| shown["healthy"] == true).await;
    assert_eq!(shown["circuitOpenSince"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_of_421_counts_as_unreachable_and_few_connections_are_made_meanwhile() {
    let away = Script::plain().on(Verb::Greeting, say("421 4.3.2 going down"));
    let server = SmtpServer::start(away).await;
    let home = Home::new(&[Provider::plain("main", server.port()).retry(3, 100)]).args(&SOON);
    let app = home.start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(app.notify(&many(100)).await);
    }
    for id in &ids {
        app.jobs_are(id, &["dead"]).await;
    }
    app.queue_has("main", "parked", 500).await;
    let connections_count = server.seen().connections_count;
    let mut attempts = 0;
    for id in &ids {
        attempts += attempts_count(&app, id).await;
    }
    // One connection may have been dialled that is not counted yet.
    let dialled = attempts + checks_count(&app).await + 1;
    assert!(connections_count <= dialled, "{connections_count} connections, {dialled} expected");
    assert!(attempts <= 40, "{attempts} attempts for 500 jobs");
    let letter = &app.client.dead_letters().await[0];
    assert_eq!(
        (&letter["reason"], &letter["redrive"]),
        (&json!("unreachable"), &json!("automatic"))
    );

    server.follow(Script::plain());
    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
    assert_eq!(server.accepted().len(), 500);
}

/// Ten minutes with checks every half a minute, in less time: twenty failed checks, one a second at most.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_few_connections_and_everything_goes_out_after_it_without_a_hand() {
    let server = SmtpServer::start(Script::plain().on(Verb::Greeting, Action::Close(vec![]))).await;
    let home = Home::new(&[Provider::plain("main", server.port()).retry(3, 100)]);
    let app = home.args(&["--unhealthy-interval", "500ms"]).start().await;
    let mut ids = Vec::new();
    for n in 1..=20 {
        ids.push(app.notify(&many(25)).await);
        eventually("another check has failed", async || {
            (n <= checks_count(&app).await).then_some(())
        })
        .await;
    }
    app.queue_has("main", "parked", 500).await;
    let connections_count = server.seen().connections_count;
    // Until the circuit is open: count + 1, and what was under way on the other connections.
    let dialled = checks_count(&app).await + 1 + 4 + 3;
    assert!(connections_count <= dialled, "{connections_count} connections, {dialled} expected");

    server.follow(Script::plain());
    within(Duration::from_secs(60), "everything is delivered", async || {
        (app.client.get("/queue").await["depth"] == 0).then_some(())
    })
    .await;
    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
    assert_eq!(server.accepted().len(), 500, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_takes_exactly_its_size_and_parked_jobs_keep_their_places() {
    let mut sink = closed().await;
    let home = Home::new(&[Provider::plain("main", sink.port).queue_size(10)]).args(&SOON);
    let app = home.start().await;
    let mut posts = JoinSet::new();
    for n in 0..50 {
        let (client, body) = (app.client.clone(), to(&format!("to-{n}@example.com")));
        posts.spawn(async move { client.notify(&body, None).await.expect("an answer") });
    }
    let answers = posts.join_all().await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 202);
    assert_eq!(accepted.len(), 10);
    for answer in refused {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(text(&answer.json()["type"]).ends_with("/queue-full"), "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
    }
    app.queue_has("main", "parked", 10).await;
    let answer = app.client.notify(&to("late@example.com"), None).await.expect("an answer");
    assert_eq!(answer.status, 503, "parked jobs count: {}", answer.body);

    sink.open();
    app.drained().await;
    let letters = sink.letters();
    let reached: BTreeSet<_> = recipients(&letters).into_iter().map(str::to_owned).collect();
    let promised = accepted.iter().map(|answer| text(&answer.json()["jobs"][0]["recipient"]));
    assert_eq!(reached, promised.collect());
    assert_eq!(letters.len(), 10);
    assert_eq!(app.client.notify(&many(11), None).await.expect("an answer").status, 503);
    let id = app.notify(&many(10)).await;
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_provider_of_the_chain_takes_over_at_once_and_nothing_is_lost() {
    let first = closed().await;
    let second = Sink::start();
    let providers = [
        Provider::plain("second", second.port),
        Provider::plain("first", first.port).retry(1, 10).queue_size(50),
    ];
    let app = Home::new(&providers).start().await;
    let post = async |n: usize| {
        let mut body = to(&format!("to-{n}@example.com"));
        body["mailProvider"] = "first".into();
        app.notify(&body).await
    };
    let id = post(0).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    let made: Vec<_> = attempts.iter().map(|attempt| &attempt["provider"]).collect();
    assert_eq!(json!(made), json!(["first", "first", "second"]));
    for n in 1..30 {
        let id = post(n).await;
        let found = app.jobs_are(&id, &["delivered"]).await;
        let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "the open circuit costs no attempt: {found}");
        assert_eq!(attempts[0]["provider"], "second");
    }
    let expected: Vec<_> = (0..30).map(|n| format!("to-{n}@example.com")).collect();
    assert_eq!(recipients(&second.letters()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_parked_at_its_last_provider_goes_out_by_an_earlier_one_that_is_back_already() {
    let mut first = closed().await;
    let mut last = Sink::with(|moment| match moment {
        Moment::Greeting => Act::Hold,
        _ => Act::Accept,
    });
    let providers = [Provider::plain("last", last.port), Provider::plain("first", first.port)];
    let app = Home::new(&providers).args(&SOON).start().await;
    let mut body = to("ada@example.com");
    body["mailProvider"] = "first".into();
    let id = app.notify(&body).await;
    app.queue_has("first", "inFlight", 1).await;
    // The health check and the send wait for the greeting of the last one.
    eventually("it is tried", async || (last.held_count() == 2).then_some(())).await;
    first.open();
    app.provider_is("first", |shown| shown["healthy"] == true).await;
    last.close().await;
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(recipients(&first.letters()), ["ada@example.com"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_mail_survives_a_stop_and_a_kill_and_goes_out_when_the_provider_is_back() {
    let mut sink = closed().await;
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&SOON);
    let app = home.start().await;
    let id = app.notify(&many(20)).await;
    app.queue_has("main", "parked", 20).await;
    app.stop().await;

    let mut app = home.start().await;
    app.queue_has("main", "parked", 20).await;
    let late = app.notify(&to("late@example.com")).await;
    app.queue_has("main", "parked", 21).await;
    app.process.kill9();

    let app = home.start().await;
    app.queue_has("main", "parked", 21).await;
    sink.open();
    app.jobs_are(&id, &["delivered"]).await;
    app.jobs_are(&late, &["delivered"]).await;
    let letters = sink.letters();
    assert_eq!(letters.len(), 21);
    assert_eq!(recipients(&letters).into_iter().collect::<BTreeSet<_>>().len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redrive_parked_mail_waits_for_an_operators_hand() {
    let mut sink = closed().await;
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&SOON);
    let app = home.args(&["--redrive", "off"]).start().await;
    let id = app.notify(&many(5)).await;
    app.queue_has("main", "parked", 5).await;
    assert_eq!(app.client.dead_letters().await[0]["redrive"], "manual");
    sink.open();
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    let fresh = app.notify(&to("fresh@example.com")).await;
    app.jobs_are(&fresh, &["delivered"]).await;
    app.queue_has("main", "parked", 5).await;
    assert_eq!(recipients(&sink.letters()), ["fresh@example.com"]);

    let answer = app.client.post("/deadletters/retry", &json!({"reason": "unreachable"})).await;
    assert_eq!((answer.status, &answer.json()["retried"]), (202, &json!(5)));
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_parks_the_mail_without_dialling_and_its_arrival_releases_it() {
    let server = SmtpServer::start(Script::plain()).await;
    let provider = Provider::plain("main", server.port()).login("mailer", "hunter2-secret");
    let home = Home::new(&[provider.clone().secret(None)]).args(&SOON);
    let app = home.start().await;
    let id = app.notify(&many(3)).await;
    app.queue_has("main", "parked", 3).await;
    let shown = app.provider_is("main", |shown| shown["healthy"] == false).await;
    assert_eq!(condition(&shown, "PasswordLoaded")["reason"], "SecretNotFound");
    assert_eq!(condition(&shown, "Ready")["reason"], "PasswordLoadFailed");
    assert_eq!(server.seen().connections_count, 0);

    home.write(&manifests(&[provider]));
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(server.accepted().len(), 3);
    assert!(0 < server.seen().count(Verb::Auth));
    eventually("it is ready", async || {
        let all = app.client.get("/providers").await;
        assert!(!all.to_string().contains("hunter2"), "{all}");
        (all["items"][0]["conditions"][0]["status"] == "True").then_some(())
    })
    .await;
    assert!(!app.process.log().contains("hunter2"));
}
