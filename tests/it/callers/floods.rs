//! Slow senders, idle connections, floods and slow readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{descriptors, memory_kib, note, open, post_in_time};
use crate::support::app::{App, Home, Provider};
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::eventually;

const IDLE_COUNT: usize = 5_000;
const SLOW_COUNT: usize = 500;
/// These begin briskly, so that each gets its share of the memory, and stall then.
const STALLED_COUNT: usize = 24;

/// After a burst the process may keep so much more than before, for the next one.
const KEPT_KIB_MAX: u64 = 48 << 10;

/// Lets this process, and the server that it starts, have as many descriptors as may be; whether
/// these are enough.
fn has_descriptors() -> bool {
    if !need("12,000 file descriptors") {
        return false;
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("it may rise");
    true
}

/// Waits until descriptors and memory are about what they were.
async fn recovered(app: &App, files_before: usize, kib_before: u64) {
    eventually("the descriptors come back", async || {
        (descriptors(app) <= files_before + 10).then_some(())
    })
    .await;
    eventually("the memory comes back", async || {
        (memory_kib(app, "RssAnon") <= kib_before + KEPT_KIB_MAX).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_and_idle_connections_cost_others_nothing() {
    if !has_descriptors() {
        return;
    }
    let sink = Sink::start();
    let app = Home::new(&[Provider::plain("main", sink.port)]).start().await;
    post_in_time(&app).await;
    let (files, kib) = (descriptors(&app), memory_kib(&app, "RssAnon"));

    let mut idle = Vec::with_capacity(IDLE_COUNT);
    for _ in 0..IDLE_COUNT {
        idle.push(open(&app, b"").await);
    }
    let headers = "POST /notify HTTP/1.1\r\nHost: x\r\nX-A: ";
    let small = "POST /notify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Content-Length: 1000\r\n\r\n{";
    let large = small.replace("1000", "1000000");
    let stalled = format!("{large}{}", " ".repeat(20_000));
    let mut slow = JoinSet::new();
    let begins = [headers, small, &large].into_iter().cycle().take(SLOW_COUNT);
    for begin in begins.chain(std::iter::repeat_n(&*stalled, STALLED_COUNT)) {
        let stream = open(&app, begin.as_bytes()).await;
        slow.spawn(drip(stream));
    }
    for _ in 0..30 {
        post_in_time(&app).await;
    }
    let kib_meanwhile = memory_kib(&app, "RssAnon");
    println!("{kib} KiB before, {kib_meanwhile} KiB with all of them");
    // A large body is taken all the same: those before it are slow, and give way.
    let mut large = note();
    large["text"] = "x".repeat(1_000_000).into();
    app.client.accepted_in_the_end(&large).await;
    drop((idle, slow));
    recovered(&app, files, kib).await;
    app.drained().await;
    app.stop().await;
}

/// A byte a second, until the server or the test ends it.
async fn drip(mut stream: TcpStream) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        if stream.write_all(b" ").await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_bad_and_good_requests_cost_others_nothing() {
    let sink = Sink::start();
    let app = Home::new(&[Provider::plain("main", sink.port)]).start().await;
    post_in_time(&app).await;
    let (files, kib) = (descriptors(&app), memory_kib(&app, "RssAnon"));
    let ended = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    for caller in 0..64 {
        let (client, ended, answered) = (app.client.clone(), ended.clone(), answered.clone());
        flood.spawn(async move {
            let (path, body, status) = match caller % 4 {
                0 => ("/notify", note(), 202),
                1 => ("/notify", json!({"recipients": vec!["x"; 100], "subject": "x"}), 422),
                2 => ("/notify", json!("x".repeat(100_000)), 422),
                _ => ("/nowhere", json!({}), 404),
            };
            while !ended.load(Ordering::Relaxed) {
                let answer = client.call(Method::POST, path, &[], Some(&body)).await;
                assert_eq!(answer.expect("an answer").status, status);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let before = answered.load(Ordering::Relaxed);
    for _ in 0..20 {
        post_in_time(&app).await;
    }
    eventually("the flood was answered meanwhile", async || {
        (answered.load(Ordering::Relaxed) > before + 500).then_some(())
    })
    .await;
    ended.store(true, Ordering::Relaxed);
    while let Some(caller) = flood.join_next().await {
        caller.expect("no assertion failed");
    }
    app.drained().await;
    recovered(&app, files + 64, kib).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_of_large_answers_cost_others_nothing() {
    if !has_descriptors() {
        return;
    }
    // Nobody listens there: a port that was free just now.
    let port = { Sink::start().port };
    let provider = Provider::plain("main", port).retry(0, 10);
    let app = Home::new(&[provider]).start().await;
    let mut body = note();
    body["subject"] = "ü".repeat(998).into();
    body["recipients"] = (0..100).map(|n| format!("r{n}@example.com")).collect();
    for _ in 0..3 {
        app.client.accepted(&body).await;
    }
    eventually("they are dead letters", async || {
        (app.client.get("/deadletters?limit=1").await["total"] == 300).then_some(())
    })
    .await;
    let (files, kib) = (descriptors(&app), memory_kib(&app, "RssAnon"));
    let mut readers = Vec::new();
    for _ in 0..200 {
        let request = b"GET /deadletters?limit=300 HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut stream = open(&app, request).await;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.expect("an answer");
        assert_eq!(&begin, b"HTTP/1.1 200");
        readers.push(stream);
        if readers.len() % 10 == 0 {
            post_in_time(&app).await;
        }
    }
    let kib_meanwhile = memory_kib(&app, "RssAnon");
    println!("{kib} KiB before, {kib_meanwhile} KiB with all of them");
    drop(readers);
    recovered(&app, files, kib).await;
    app.stop().await;
}
