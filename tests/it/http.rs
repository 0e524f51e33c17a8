//! Accepting over HTTP: what is taken, what is refused and how, and what a full queue does.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use breakglass_mailer::core::notification::Address;
use breakglass_mailer::core::provider::Provider;
use breakglass_mailer::core::route::{Catalog, Cluster, Escalation};
use breakglass_mailer::queue::store::StoreError;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::api::{TestApi, notification, post, provider, send};

#[tokio::test]
async fn a_notification_is_one_job_per_recipient_at_the_chosen_provider() {
    let api = TestApi::start();
    let mut body = notification(&["a@example.com", "b@example.com", "a@EXAMPLE.com"]);
    body["mailProvider"] = "spare".into();
    body["cluster"] = "prod-1".into();
    let answer = api.post("/notify", body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("idempotency-replayed"), "");
    let accepted = answer.json();
    let id = accepted["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), format!("/notifications/{id}"));
    assert_eq!(accepted["provider"], "spare");
    assert_eq!(accepted["chain"], json!(["spare", "main"]));
    assert_eq!(accepted["jobs"].as_array().expect("jobs").len(), 2);
    assert_eq!(accepted["jobs"][1]["recipient"], "b@example.com");
    assert_eq!(accepted["warnings"], json!(["cluster prod-1 does not exist"]));
    assert!(accepted["acceptedAt"].as_str().is_some_and(|at| at.ends_with('Z')));
}

#[tokio::test]
async fn an_escalation_gives_the_provider_and_the_recipients() {
    let api = TestApi::start();
    let providers = ["main", "spare"].map(|n| (provider(n, n == "main"), n));
    let providers = providers.map(|(p, _)| (p.name.clone(), Arc::new(p)));
    let mut catalog = Catalog { providers: providers.into(), ..Catalog::default() };
    let mails = vec![Address::parse("oncall@example.com").expect("valid")];
    let escalation = Escalation { mail_provider: Some("spare".into()), notification_mails: mails };
    catalog.escalations.insert(("ops".into(), "prod".into()), escalation);
    catalog.clusters.insert(("ops".into(), "c".into()), Cluster { mail_provider: None });
    api.replace(catalog);
    let body = json!({"subject": "x", "body": "<p>", "escalation": "ops/prod", "cluster": "c"});
    let accepted = api.post("/notify", body).await.json();
    assert_eq!(accepted["chain"], json!(["spare", "main"]));
    assert_eq!(accepted["jobs"][0]["recipient"], "oncall@example.com");
    assert_eq!(accepted["warnings"], json!([]));
}

#[tokio::test]
async fn names_that_lead_nowhere_are_refused_or_leave_no_provider() {
    let api = TestApi::start();
    let mut body = notification(&["a@example.com"]);
    body["mailProvider"] = "nobody".into();
    let answer = api.post("/notify", body.clone()).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    422 Unprocessable Entity application/problem+json 
    {"type":"/problems/invalid-request","title":"Invalid request","status":422,"detail":"One field is bad.","errors":[{"pointer":"/mailProvider","detail":"does not exist"}]}
    "#);
    api.configure([Provider { disabled: true, ..provider("nobody", true) }]);
    let answer = api.post("/notify", body).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    503 Service Unavailable application/problem+json 30
    {"type":"/problems/no-mail-provider","title":"No mail provider","status":503,"detail":"No enabled MailProvider can carry this notification."}
    "#);
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn paths_methods_types_and_sizes_are_refused_as_problems() {
    let api = TestApi::start();
    insta::assert_snapshot!(api.call("POST", "/NOTIFY").await.shown(), @r#"
    404 Not Found application/problem+json 
    {"type":"/problems/not-found","title":"Not found","status":404,"detail":"There is no such path."}
    "#);
    let refused = api.call("GET", "/notify").await;
    assert_eq!(refused.header("allow"), "POST");
    insta::assert_snapshot!(refused.shown(), @r#"
    405 Method Not Allowed application/problem+json 
    {"type":"/problems/method-not-allowed","title":"Method not allowed","status":405,"detail":"This path does not take this method; the Allow header lists those that it takes."}
    "#);
    for (path, allowed) in [
        ("/queue", "GET,HEAD"),
        ("/jobs", "GET,HEAD"),
        ("/notifications/x", "GET,HEAD,DELETE"),
        ("/deadletters", "GET,HEAD"),
        ("/deadletters/x", "GET,HEAD,DELETE"),
        ("/deadletters/x/retry", "POST"),
        ("/providers", "GET,HEAD"),
        ("/livez", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
    ] {
        for method in ["PATCH", "TRACE", "BREW"] {
            let answer = api.call(method, path).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
    }
    let typed = |media_type: &str| {
        let request = Request::post("/notify").header("content-type", media_type);
        let body = notification(&["a@example.com"]).to_string();
        request.body(Body::from(body)).expect("a request")
    };
    insta::assert_snapshot!(api.send(typed("text/plain")).await.shown(), @r#"
    415 Unsupported Media Type application/problem+json 
    {"type":"/problems/unsupported-media-type","title":"Not JSON by type","status":415,"detail":"The Content-Type must be application/json, in UTF-8."}
    "#);
    let accepted = api.send(typed("Application/JSON; Charset=UTF-8")).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    let huge = "a".repeat(1 << 20);
    let answer = api.post("/notify", json!({"text": huge})).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    413 Payload Too Large application/problem+json 
    {"type":"/problems/content-too-large","title":"The request is too large","status":413,"detail":"A request is at most 1 MiB."}
    "#);
    let broken = Request::post("/notify").header("content-type", "application/json");
    let broken = broken.body(Body::from("{\"subject\":\n'x'}")).expect("a request");
    insta::assert_snapshot!(api.send(broken).await.shown(), @r#"
    400 Bad Request application/problem+json 
    {"type":"/problems/bad-request","title":"Bad request","status":400,"detail":"The body of the request is not JSON, see line 2, column 1."}
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_posts_at_once_fill_a_queue_to_its_bound_and_not_beyond() {
    let api = TestApi::start();
    let mut posts = JoinSet::new();
    for _ in 0..50 {
        posts.spawn(send(api.router.clone(), post("/notify", &notification(&["a@example.com"]))));
    }
    let answers = posts.join_all().await;
    let accepted = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!(accepted.count(), 10);
    let full = answers.iter().find(|a| a.status != StatusCode::ACCEPTED).expect("40 of them");
    insta::assert_snapshot!(full.shown(), @r#"
    503 Service Unavailable application/problem+json 10
    {"type":"/problems/queue-full","title":"The queue is full","status":503,"detail":"The queue of main has no place for 1 more jobs: 10 of 10 are taken."}
    "#);
    assert_eq!(api.get("/queue").await["depth"], 10);
    assert_eq!(api.store.notifications_count(), 10);
    let metrics = api.call("GET", "/metrics").await.text;
    let line = r#"breakglass_mailprovider_queue_rejected_total{provider="main",reason="full"} 40"#;
    assert!(metrics.lines().any(|shown| shown == line), "{metrics}");
}

#[tokio::test]
async fn a_notification_that_does_not_fit_whole_is_refused_whole() {
    let api = TestApi::start();
    api.notify(&["a@example.com", "b@example.com"]).await;
    let nine: Vec<String> = (0..9).map(|n| format!("r{n}@example.com")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    let answer = api.post("/notify", notification(&nine)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(api.get("/queue").await["depth"], 2);
    api.notify(&nine[..8]).await;
}

#[tokio::test]
async fn a_disk_that_fails_and_a_server_that_stops_are_told_apart() {
    let api = TestApi::start();
    api.store.fail(Some(StoreError::NoSpace));
    let answer = api.post("/notify", notification(&["a@example.com"])).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    503 Service Unavailable application/problem+json 10
    {"type":"/problems/store-unavailable","title":"The store is unavailable","status":503,"detail":"The data folder has no space left."}
    "#);
    assert_eq!(api.get("/queue").await["depth"], 0);
    api.store.fail(None);
    api.notify(&["a@example.com"]).await;
    api.queue.stop_accepting();
    let answer = api.post("/notify", notification(&["a@example.com"])).await;
    insta::assert_snapshot!(answer.shown(), @r#"
    503 Service Unavailable application/problem+json 5
    {"type":"/problems/shutting-down","title":"The server is shutting down","status":503,"detail":"The server is shutting down."}
    "#);
}

fn keyed(key: &str, subject: &str) -> Request<Body> {
    let mut body = notification(&["a@example.com"]);
    body["subject"] = subject.into();
    let mut request = post("/notify", &body);
    request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
    request
}

#[tokio::test]
async fn a_repeated_key_gives_the_first_answer_whatever_became_of_the_providers() {
    let api = TestApi::start();
    let first = api.send(keyed("K-1", "x")).await;
    api.configure([]);
    let second = api.send(keyed("K-1", "x")).await;
    assert_eq!(second.status, StatusCode::ACCEPTED);
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(second.text, first.text);
    assert_eq!(api.store.notifications_count(), 1);
    let other = api.send(keyed("K-1", "y")).await;
    insta::assert_snapshot!(other.shown(), @r#"
    422 Unprocessable Entity application/problem+json 
    {"type":"/problems/idempotency-key-reused","title":"Idempotency key reused","status":422,"detail":"This Idempotency-Key was used for another request."}
    "#);
    assert_eq!(api.send(keyed("", "x")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_posts_at_once_with_one_key_are_one_notification() {
    let api = TestApi::start();
    let mut posts = JoinSet::new();
    for _ in 0..50 {
        posts.spawn(send(api.router.clone(), keyed("K-5", "x")));
    }
    let answers = posts.join_all().await;
    assert_eq!(api.store.notifications_count(), 1);
    let mut ids: Vec<String> = Vec::new();
    for answer in &answers {
        match answer.status {
            StatusCode::ACCEPTED => ids.push(answer.json()["id"].to_string()),
            StatusCode::CONFLICT => assert_eq!(answer.header("retry-after"), "1"),
            other => panic!("{other}: {}", answer.text),
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_cuts_nothing_in_half() {
    let api = TestApi::start();
    let request = api.send(post("/notify", &notification(&["a@example.com"])));
    // One poll begins the work; then the client is gone and its handler is dropped.
    let answered = futures_util::future::poll_immediate(request).await;
    assert!(answered.is_none(), "the answer came before the client could go away");
    let accepted = async {
        while api.get("/jobs?state=ready").await["items"].as_array().is_none_or(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), accepted).await.expect("it is accepted");
    assert_eq!(api.get("/queue").await["depth"], 1);
}
