//! A process with few file descriptors: it waits, loses nothing and recovers.

use serde_json::json;
use tokio::task::JoinSet;

use super::{descriptors, memory_kib, note, open};
use crate::support::app::{Home, Provider};
use crate::support::client::Client;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;

const FILES_COUNT: usize = 64;
const CALLERS_COUNT: usize = 200;
const POSTS_COUNT: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn with_64_file_descriptors_200_callers_wait_and_nothing_is_lost() {
    let sinks: Vec<Sink> = std::iter::repeat_with(Sink::start).take(6).collect();
    let providers: Vec<Provider> = sinks
        .iter()
        .enumerate()
        .map(|(n, sink)| Provider::plain(format!("p{n}"), sink.port).retry(3, 100))
        .collect();
    let limit = format!("--nofile={FILES_COUNT}:{FILES_COUNT}");
    let app = Home::new(&providers).under(&["prlimit", &limit]).start().await;
    let address = app.client.url().trim_start_matches("http://").to_owned();
    // Callers that only hold their connections.
    let mut idle = Vec::new();
    for _ in 0..CALLERS_COUNT {
        idle.push(open(&app, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS_COUNT {
        let client = Client::new(&address);
        callers.spawn(async move {
            for n in 0..POSTS_COUNT {
                let body = json!({"recipients": ["a@example.com"],
                    "subject": format!("{caller}.{n}"), "text": "x".repeat(20_000),
                    "mailProvider": format!("p{}", (caller + n) % 6)});
                client.accepted_in_the_end(&body).await;
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("every post is accepted");
    }
    drop(idle);
    app.drained().await;
    let count = || sinks.iter().map(|sink| sink.letters().len()).sum::<usize>();
    assert_eq!(count(), CALLERS_COUNT * POSTS_COUNT);
    assert_eq!(app.client.get("/deadletters").await["total"], 0);
    assert_eq!(app.client.status("/readyz").await, Some(200));
    eventually("the descriptors come back", async || (descriptors(&app) < 50).then_some(())).await;
    let log = app.process.log();
    assert!(!log.contains("panicked"), "{log}");
    println!("{} KiB", memory_kib(&app, "VmHWM"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_server_hangs_leaves_connections_for_the_others() {
    // With so few descriptors there are 16 for mail servers.
    const SHARE: usize = 4;
    let (other, hangs) = (Sink::start(), Sink::with(hang));
    let providers = [
        Provider::plain("other", other.port),
        Provider::plain("greedy", hangs.port).limits(json!({"maxConnections": 1000})),
    ];
    let limit = format!("--nofile={FILES_COUNT}:{FILES_COUNT}");
    let app = Home::new(&providers).under(&["prlimit", &limit]).start().await;
    let to: Vec<_> = (0..40).map(|n| format!("to-{n}@example.com")).collect();
    let waits = json!({"recipients": to, "subject": "x", "text": "y", "mailProvider": "greedy"});
    app.notify(&waits).await;
    eventually("it has its share", async || (hangs.held_count() == SHARE).then_some(())).await;
    let id = app.notify(&note()).await;
    app.jobs_are(&id, &["delivered"]).await;
    app.queue_has("greedy", "inFlight", SHARE).await;
    assert_eq!(hangs.held_count(), SHARE);
    hangs.release();
    app.drained().await;
    assert_eq!((hangs.letters().len(), other.letters().len()), (40, 1));
}

fn hang(moment: Moment<'_>) -> Act {
    match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    }
}
