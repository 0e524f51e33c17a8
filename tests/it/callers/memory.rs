//! Large notifications, from many callers at once, in little memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{memory_kib, post_in_time};
use crate::support::app::{Home, Provider};
use crate::support::client::Client;
use crate::support::nightly;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::within;

/// What the process may have, from the first request to the last delivery, beside the pages of the
/// program itself, which the kernel can drop.
const MEMORY_KIB_MAX: u64 = 128 << 10;

const CALLERS_COUNT: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn large_notifications_from_many_callers_at_once_fit_into_little_memory() {
    let posts_count = if nightly() { 10_000 } else { 1_000 };
    // What is read to the final dot and refused there is not kept by this process.
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Say("550 5.7.1 no"),
        Moment::Greeting | Moment::Recipient(_) | Moment::Data => Act::Accept,
    });
    let provider = Provider::plain("main", sink.port).queue_size(posts_count + 100);
    let app = Home::new(&[provider]).start().await;
    post_in_time(&app).await;
    let (own, peak) = (memory_kib(&app, "RssAnon"), memory_kib(&app, "VmHWM"));

    let address = app.client.url().trim_start_matches("http://").to_owned();
    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS_COUNT {
        let (client, next) = (Client::new(&address), next.clone());
        callers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= posts_count {
                    return;
                }
                // Most have 256 KiB; the first are nearly as large as may be.
                let bytes = if n < CALLERS_COUNT / 10 { 1_000_000 } else { 256 << 10 };
                let body = json!({"recipients": ["a@example.com"], "subject": n.to_string(),
                    "text": "0123456789abcdef".repeat(bytes / 16)});
                client.accepted_in_the_end(&body).await;
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("every post is accepted");
    }
    let limit = Duration::from_secs(if nightly() { 1_800 } else { 180 });
    within(limit, "all are tried", async || {
        (app.client.get("/queue").await["depth"] == 0).then_some(())
    })
    .await;
    let letters = app.client.get("/deadletters?limit=1").await["total"].clone();
    assert_eq!(letters, posts_count + 1);
    let most = own + memory_kib(&app, "VmHWM") - peak;
    println!("{own} KiB before, {most} KiB at most");
    assert!(most < MEMORY_KIB_MAX, "the process had {most} KiB");
    app.stop().await;
}
