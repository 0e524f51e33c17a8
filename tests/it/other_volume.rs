//! A server that is given another volume than before says so, and never pretends to go on.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::metrics::Scrape;
use crate::support::sink::Sink;

/// The name of the store that a log line tells, beside this message.
fn store_named(app: &App, message: &str) -> Option<String> {
    let log = app.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = |line: &Value| line["fields"]["message"].as_str() == Some(message);
    lines
        .into_iter()
        .find(told)
        .map(|line| line["fields"]["store"].as_str().expect("a name").to_owned())
}

async fn begun_count(app: &App) -> usize {
    Scrape::of(&app.client).await.count("store_new", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_or_another_volume_is_told_apart_in_log_and_metric() {
    const NEW: &str = "the data folder was empty: a new store begins";
    const OLD: &str = "the store is open";
    let mut sink = Sink::start();
    sink.close().await;
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let app = home.start().await;
    let first = store_named(&app, NEW).expect("a new store");
    assert_eq!(begun_count(&app).await, 1);
    let id = app.notify(&post).await;
    app.stop().await;
    let app = home.start().await;
    assert_eq!(store_named(&app, OLD), Some(first.clone()));
    assert_eq!(begun_count(&app).await, 0);
    app.stop().await;

    // An empty volume in its place.
    fs::rename(home.data(), home.path("taken-away")).expect("take it away");
    fs::create_dir(home.data()).expect("an empty one");
    let app = home.start().await;
    let second = store_named(&app, NEW).expect("a new store");
    assert_ne!(second, first);
    assert_eq!(begun_count(&app).await, 1);
    let path = format!("/notifications/{id}");
    let answer = app.client.call(Method::GET, &path, &[], None).await.expect("an answer");
    assert_eq!(answer.status, 404);
    app.stop().await;

    // The first one again: another than just now, and its mail is there.
    fs::remove_dir_all(home.data()).expect("take it away");
    fs::rename(home.path("taken-away"), home.data()).expect("give it back");
    let app = home.start().await;
    assert_eq!(store_named(&app, OLD), Some(first));
    assert_eq!(app.client.get(&path).await["id"], id.as_str());
    app.stop().await;
}
