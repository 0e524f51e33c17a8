//! A notification can be followed: one trace from its caller over every attempt, in the log, over a
//! restart, and where a collector gets the spans.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::otlp::{Collector, attribute, hex};
use crate::support::smtp::{Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// The numbers of OTLP.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// Posts as a caller that stands in a trace; the id of the notification.
async fn post(app: &App, flags: &str) -> String {
    let body = json!({"recipients": ["ada@example.com"], "subject": "a subject", "text": "a body"});
    let parent = format!("00-{TRACE}-{CALLER}-{flags}");
    let headers = [("traceparent", &*parent), ("tracestate", "vendor=1")];
    let answer = app.client.call(Method::POST, "/notify", &headers, Some(&body)).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The lines of the log with this message, as JSON.
fn lines(app: &App, message: &str) -> Vec<Value> {
    let log = app.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["fields"]["message"] == message).collect()
}

/// A home whose server exports to `collector`, at once.
fn exporting(collector: &Collector, providers: &[Provider]) -> Home {
    Home::new(providers)
        .args(&["--otlp-endpoint", collector.url()])
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_the_caller_over_the_request_to_every_attempt_and_tells_no_secret() {
    let later = say("450 4.2.1 later, ada@example.com");
    let server = SmtpServer::start(Script::plain().on_nth(Verb::Rcpt, 1, later)).await;
    let collector = Collector::start().await;
    let provider = Provider::plain("main", server.port()).retry(1, 10);
    let app = exporting(&collector, &[provider]).start().await;
    let id = post(&app, "01").await;
    let found = app.jobs_are(&id, &["delivered"]).await;

    let request = collector.has(TRACE, "POST /notify", 1).await.remove(0);
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!((request.kind, &*request.trace_state), (SERVER, "vendor=1"));
    assert_eq!(attribute(&request, "http.response.status_code"), "202");
    let span_id = hex(&request.span_id);
    assert_eq!(found["traceparent"], format!("00-{TRACE}-{span_id}-01"));

    let attempts = collector.has(TRACE, "attempt", 2).await;
    for (n, attempt) in attempts.iter().enumerate() {
        assert_eq!(hex(&attempt.parent_span_id), span_id);
        assert_eq!((attempt.kind, &*attempt.trace_state), (CLIENT, "vendor=1"));
        assert_eq!(attribute(attempt, "number"), (n + 1).to_string());
        assert_eq!(attribute(attempt, "mailprovider"), "main");
        assert_eq!(attribute(attempt, "job"), found["jobs"][0]["id"]);
    }
    let told = |n: usize| ["outcome", "stage", "code"].map(|name| attribute(&attempts[n], name));
    assert_eq!(told(0), ["deferred", "rcpt", "450"]);
    assert_eq!(told(1), ["delivered", "dot", "250"]);
    let code = |n: usize| attempts[n].status.as_ref().map_or(0, |status| status.code);
    assert_eq!((code(0), code(1)), (ERROR, 0));

    // The log has the same ids.
    let line = &lines(&app, "not delivered yet")[0];
    assert_eq!(line["span"]["trace_id"], TRACE);
    assert_eq!(line["span"]["span_id"], hex(&attempts[0].span_id));

    app.stop().await;
    let bytes = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for secret in ["ada@", "a subject", "a body", "later"] {
        assert!(!bytes.contains(secret), "{secret} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_notification_outlives_a_kill_and_the_last_spans_a_stop() {
    let server = SmtpServer::start(Script::plain()).await;
    // Nobody listens there yet, so it is parked until a health check after the restart.
    let home = Home::new(&[Provider::plain("main", 1).retry(0, 10)]);
    let mut app = home.start().await;
    let id = post(&app, "01").await;
    app.jobs_are(&id, &["dead"]).await;
    let before = app.client.get(&format!("/notifications/{id}")).await["traceparent"].clone();
    app.process.kill9();

    let collector = Collector::start().await;
    // Nothing is exported before the end.
    let home = home
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    home.providers(&[Provider::plain("main", server.port())]);
    let app = home.start().await;
    let path = format!("/notifications/{id}");
    assert_eq!(app.client.get(&path).await["traceparent"], before);
    app.jobs_are(&id, &["delivered"]).await;
    app.stop().await;
    let attempts = collector.has(TRACE, "attempt", 1).await;
    let parent = format!("00-{TRACE}-{}-01", hex(&attempts[0].parent_span_id));
    assert_eq!(before, parent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_caller_a_trace_begins_and_what_a_caller_does_not_keep_is_not_exported() {
    let server = SmtpServer::start(Script::plain()).await;
    let collector = Collector::start().await;
    let app = exporting(&collector, &[Provider::plain("main", server.port())]).start().await;
    let unkept = post(&app, "00").await;
    let unkept = app.jobs_are(&unkept, &["delivered"]).await["traceparent"].clone();
    let unkept = unkept.as_str().expect("a traceparent");
    assert!(unkept.starts_with(&format!("00-{TRACE}-")) && unkept.ends_with("-00"), "{unkept}");

    let body = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let id = app.notify(&body).await;
    let own = app.jobs_are(&id, &["delivered"]).await["traceparent"].clone();
    let own: Vec<&str> = own.as_str().expect("a traceparent").split('-').collect();
    assert_eq!(own[3], "01");
    let request = collector.has(own[1], "POST /notify", 1).await.remove(0);
    assert!(request.parent_span_id.is_empty());
    collector.has(own[1], "attempt", 1).await;
    app.stop().await;
    let traces: Vec<String> = collector.spans().iter().map(|span| hex(&span.trace_id)).collect();
    assert!(!traces.contains(&TRACE.to_owned()), "{traces:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_delays_nothing_and_is_told_of_once() {
    let server = SmtpServer::start(Script::plain()).await;
    let provider = Provider::plain("main", server.port());
    let home = Home::new(&[provider]).args(&["--otlp-endpoint", "http://127.0.0.1:1"]);
    let app = home.env("OTEL_BSP_SCHEDULE_DELAY", "10").start().await;
    for _ in 0..3 {
        let id = post(&app, "01").await;
        app.jobs_are(&id, &["delivered"]).await;
    }
    let told = "spans cannot be exported, and are lost";
    eventually("it is told", async || (!lines(&app, told).is_empty()).then_some(())).await;
    assert_eq!(lines(&app, told).len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_ends_the_start() {
    for home in [
        Home::new(&[]).args(&["--otlp-endpoint", "collector:4318"]),
        Home::new(&[]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ] {
        let Err(refusal) = home.try_start().await else { panic!("it started") };
        assert!(
            refusal.log.contains("give a URL such as http://127.0.0.1:8080"),
            "{}",
            refusal.log
        );
    }
}
