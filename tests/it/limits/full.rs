//! A full queue says when it is worth trying again, and that is when it is.

use super::*;
use crate::support::smtp::say;

/// Fills a queue of ten.
async fn fill(app: &App) -> String {
    app.notify(&many(10)).await
}

/// After how many seconds a full queue is worth trying again with so many recipients.
async fn retry_after(app: &App, count: usize) -> i64 {
    let answer = app.client.notify(&many(count), None).await.expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(text(&answer.json()["type"]).ends_with("/queue-full"), "{}", answer.body);
    answer.headers["retry-after"].to_str().expect("ASCII").parse().expect("seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_slow_server_it_is_the_time_that_the_places_take() {
    let sink = Sink::start();
    sink.delay(100);
    let main = Provider::plain("main", sink.port).queue_size(10);
    let app = Home::new(&[main]).args(&["--max-connections", "1"]).start().await;
    let begin = std::time::Instant::now();
    fill(&app).await;
    eventually("some are through", async || (4 <= sink.letters().len()).then_some(())).await;
    let took_each = begin.elapsed().as_secs_f64() / sink.letters().len() as f64;
    // Ten more places: those that are free, and those that the rest leaves.
    let depth = app.client.get("/queue").await["depth"].as_u64().expect("a number");
    let told = retry_after(&app, 10).await as f64;
    let expected = took_each * depth as f64;
    assert!(told <= 3.0 * expected + 2.0, "{told} for {expected}");
    assert!(expected / 3.0 - 1.0 <= told, "{told} for {expected}");
    app.drained().await;
    fill(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_limit_or_a_hold_it_is_the_end_of_that() {
    let sink = Sink::start();
    let busy = say("432 4.3.2 Concurrent connections limit exceeded.");
    let server = SmtpServer::start(Script::plain().on(Verb::Mail, busy)).await;
    let full = |port| Provider::plain("main", port).queue_size(10);
    let per_day = full(sink.port).limits(json!({"messagesPerDay": 1}));
    let app = Home::new(&[per_day]).start().await;
    let id = fill(&app).await;
    delivered(&app, &id, 1).await;
    assert_eq!(retry_after(&app, 5).await, 3600, "no longer than this, however long it is");

    let per_minute = full(sink.port).limits(json!({"messagesPerMinute": 1}));
    let app = Home::new(&[per_minute]).start().await;
    let id = fill(&app).await;
    let waiting = delivered(&app, &id, 1).await;
    let next = until(&waiting[0]["nextAttemptAt"]).as_secs();
    let told = retry_after(&app, 2).await;
    assert!(next - 5 <= told && told <= next + 2, "{told}, and the next goes out in {next}");
    let told = retry_after(&app, 3).await;
    assert!(next + 50 <= told && told <= next + 65, "a minute later: {told} after {next}");
    assert_eq!(retry_after(&app, 11).await, 3600, "that many never fit");

    let app = Home::new(&[full(server.port())]).start().await;
    fill(&app).await;
    let shown = app.provider_is("main", |shown| shown["heldUntil"].is_string()).await;
    let told = retry_after(&app, 1).await;
    let held = until(&shown["heldUntil"]).as_secs();
    assert!(held <= told && told <= held + 5, "{told}, and it is held for {held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_unreachable_server_it_is_the_next_look_at_it() {
    let mut sink = Sink::start();
    sink.close().await;
    let main = Provider::plain("main", sink.port).queue_size(10);
    let app = Home::new(&[main]).start().await;
    fill(&app).await;
    app.queue_has("main", "parked", 10).await;
    let told = retry_after(&app, 1).await;
    let shown = app.provider_is("main", |shown| shown["circuitOpenSince"].is_string()).await;
    let next = until(&shown["nextCheck"]).as_secs();
    assert!((1..=31).contains(&told), "{told}");
    assert!(told <= next.max(0) + 31, "{told}, and it is looked at in {next}");
}
