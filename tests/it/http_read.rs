//! Reading and acting over HTTP: the queue, jobs, notifications, dead letters, providers, probes.

use axum::http::StatusCode;
use breakglass_mailer::core::health::HealthEvent;
use breakglass_mailer::core::job::DeadReason;
use breakglass_mailer::core::outcome::Cause;
use breakglass_mailer::queue::store::StoreError;
use serde_json::{Value, json};

use crate::support::api::{TestApi, name, notification, provider};

/// Follows `next` to the end; answers the ids in the order of the pages.
async fn all_ids(api: &TestApi, path: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    for _ in 0..100 {
        let page = api.get(&format!("{path}{cursor}")).await;
        let items = page["items"].as_array().expect("items");
        ids.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        match &page["next"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return ids,
        }
    }
    panic!("{path} has no end");
}

fn job_id(accepted: &Value, index: usize) -> String {
    accepted["jobs"][index]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn the_queue_shows_every_provider_and_narrows_to_one() {
    let api = TestApi::start();
    api.notify(&["a@example.com", "b@example.com"]).await;
    let claim = api.queue.claim(&name("main"), |_| true).expect("due");
    api.observe("main", &HealthEvent::CheckPassed);
    let queue = api.get("/queue").await;
    assert_eq!((&queue["depth"], &queue["capacity"]), (&json!(2), &json!(20)));
    assert!(queue["oldestAcceptedAt"].is_string());
    let main = &queue["providers"][0];
    assert_eq!((&main["name"], &main["healthy"]), (&json!("main"), &json!(true)));
    assert_eq!((&main["ready"], &main["inFlight"]), (&json!(1), &json!(1)));
    let expected = json!({
        "depth": 0, "capacity": 10, "oldestAcceptedAt": null,
        "providers": [{"name": "spare", "depth": 0, "capacity": 10, "ready": 0, "scheduled": 0,
            "inFlight": 0, "parked": 0, "healthy": null, "nextAttemptAt": null, "heldUntil": null, "heldReason": null}],
    });
    assert_eq!(api.get("/queue?provider=spare").await, expected);
    drop(claim);
    // A provider that was removed is shown as long as it has jobs.
    api.configure([]);
    let queue = api.get("/queue").await;
    assert_eq!(queue["providers"].as_array().expect("providers").len(), 1);
    assert_eq!(queue["providers"][0]["capacity"], 0);
}

#[tokio::test]
async fn jobs_are_paged_newest_first_in_every_state() {
    let api = TestApi::start();
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(job_id(&api.notify(&["a@example.com"]).await, 0));
    }
    let dead = api.bury(DeadReason::Rejected).await.id.to_string();
    let claim = api.queue.claim(&name("main"), |_| true).expect("due");
    let in_flight = claim.job().id.to_string();
    ids.reverse();
    assert_eq!(all_ids(&api, "/jobs?limit=3").await, ids);
    assert_eq!(all_ids(&api, "/jobs?limit=1&state=dead").await, std::slice::from_ref(&dead));
    assert_eq!(all_ids(&api, "/jobs?state=inFlight").await, std::slice::from_ref(&in_flight));
    let ready: Vec<String> = ids.into_iter().filter(|id| *id != dead && *id != in_flight).collect();
    assert_eq!(all_ids(&api, "/jobs?limit=2&state=ready").await, ready);
    assert_eq!(all_ids(&api, "/jobs?state=scheduled").await, Vec::<String>::new());
    assert_eq!(all_ids(&api, "/jobs?state=ready&provider=spare").await, Vec::<String>::new());
    assert_eq!(all_ids(&api, "/jobs?state=delivered").await, Vec::<String>::new());
    assert_eq!(all_ids(&api, "/jobs?provider=main&limit=1000").await.len(), 7);
}

#[tokio::test]
async fn bad_query_parameters_are_named() {
    let api = TestApi::start();
    let mut shown = String::new();
    for path in [
        "/jobs?limti=3",
        "/jobs?limit=0",
        "/jobs?limit=1001",
        "/jobs?limit=1&limit=2",
        "/jobs?state=Ready",
        "/jobs?provider=No",
        "/jobs?cursor=x",
        "/deadletters?cursor=1_x",
        "/deadletters?reason=bored",
        "/providers?x",
    ] {
        let answer = api.call("GET", path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        shown += &format!("{path}: {detail}\n");
    }
    insta::assert_snapshot!(shown, @r#"
    /jobs?limti=3: The query parameter "limti" is not known; this path takes state, provider, recipient, limit, cursor.
    /jobs?limit=0: The query parameter "limit" must be a number from 1 to 1000.
    /jobs?limit=1001: The query parameter "limit" must be a number from 1 to 1000.
    /jobs?limit=1&limit=2: The query parameter "limit" must not be given twice.
    /jobs?state=Ready: The query parameter "state" must be one of ready, inFlight, scheduled, delivered, dead, cancelled.
    /jobs?provider=No: The query parameter "provider" must be the name of a MailProvider: lower-case letters, digits, hyphens and dots.
    /jobs?cursor=x: The query parameter "cursor" must be the "next" of an earlier page.
    /deadletters?cursor=1_x: The query parameter "cursor" must be the "next" of an earlier page.
    /deadletters?reason=bored: The query parameter "reason" must be one of rejected, deferred, unreachable, expired, internal.
    /providers?x: The query parameter "x" is not known; this path takes none.
    "#);
}

#[tokio::test]
async fn a_notification_shows_every_attempt_and_never_its_bodies() {
    let api = TestApi::start();
    let accepted = api.notify(&["a@example.com", "b@example.com"]).await;
    let dead = api.bury(DeadReason::Rejected).await;
    let path = format!("/notifications/{}", accepted["id"].as_str().expect("an id"));
    let shown = api.get(&path).await;
    assert_eq!(shown["subject"], "Escalation approved");
    assert_eq!(shown["expiresAt"], Value::Null);
    let mut jobs = shown["jobs"].as_array().expect("jobs").clone();
    jobs.sort_by_key(|job| job["state"].to_string());
    assert_eq!((&jobs[0]["id"], &jobs[0]["state"]), (&json!(dead.id.to_string()), &json!("dead")));
    assert_eq!(jobs[0]["nextAttemptAt"], Value::Null);
    let mut attempt = jobs[0]["attempts"][0].clone();
    attempt["at"] = Value::Null;
    let expected = json!({"number": 1, "at": null, "provider": "main", "stage": "rcpt",
        "outcome": "rejected", "code": 550, "enhancedCode": "5.1.1", "message": "no such user",
        "durationMs": 12});
    assert_eq!(attempt, expected);
    assert_eq!((&jobs[1]["state"], &jobs[1]["attempts"]), (&json!("ready"), &json!([])));
    assert!(jobs[1]["nextAttemptAt"].is_string());
    assert!(!shown.to_string().contains("hello"));
    for path in ["/notifications/x", "/notifications/%ff", "/deadletters/x"] {
        assert_eq!(api.call("GET", path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let unknown = format!("/notifications/{}", dead.id);
    assert_eq!(api.call("GET", &unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn cancelling_keeps_what_is_in_flight_and_says_so() {
    let api = TestApi::start();
    let accepted = api.notify(&["a@example.com", "b@example.com"]).await;
    let claim = api.queue.claim(&name("main"), |_| true).expect("due");
    let in_flight = claim.job().id.to_string();
    let path = format!("/notifications/{}", accepted["id"].as_str().expect("an id"));
    let answer = api.call("DELETE", &path).await;
    assert_eq!(answer.status, StatusCode::OK);
    let done = answer.json();
    assert_eq!(done["kept"], json!([{"id": in_flight, "state": "inFlight"}]));
    assert_eq!(done["cancelled"].as_array().expect("ids").len(), 1);
    assert_eq!(api.get("/queue").await["depth"], 1);
    let again = api.call("DELETE", &path).await.json();
    assert_eq!(again["cancelled"], json!([]));
    assert_eq!(again["kept"].as_array().expect("both").len(), 2);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_with_content_and_taken_out() {
    let api = TestApi::start();
    api.notify(&["a@example.com", "b@example.com", "c@example.com"]).await;
    let rejected = api.bury(DeadReason::Rejected).await.id.to_string();
    let parked = api.bury(DeadReason::Unreachable).await.id.to_string();
    let list = api.get("/deadletters").await;
    assert_eq!(list["total"], 2);
    let mut item = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["id"] == rejected.as_str())
        .expect("listed")
        .clone();
    for time in ["/deadAt", "/lastError/at", "/notification", "/recipient"] {
        assert!(item.pointer(time).is_some_and(Value::is_string), "{time}");
        *item.pointer_mut(time).expect("there") = Value::Null;
    }
    let expected = json!({"id": rejected, "notification": null, "provider": "main",
        "subject": "Escalation approved", "recipient": null, "reason": "rejected",
        "redrive": "manual", "attempts": 1, "deadAt": null,
        "lastError": {"code": 550, "enhancedCode": "5.1.1", "message": "no such user",
            "stage": "rcpt", "at": null}});
    assert_eq!(item, expected);
    let parked_only = api.get("/deadletters?reason=unreachable&provider=main").await;
    assert_eq!(parked_only["total"], 1);
    assert_eq!(parked_only["items"][0]["redrive"], "automatic");
    let ids = all_ids(&api, "/deadletters?limit=1").await;
    assert!(ids.len() == 2 && ids.contains(&parked));
    assert!(!list.to_string().contains("hello"));

    let one = api.get(&format!("/deadletters/{rejected}")).await;
    assert_eq!(one["attempts"][0]["code"], 550);
    assert!(one.get("content").is_none());
    let one = api.get(&format!("/deadletters/{rejected}?include=content")).await;
    let content = json!({"subject": "Escalation approved", "html": null, "text": "hello",
        "replyTo": null});
    assert_eq!(one["content"], content);

    let path = format!("/deadletters/{rejected}");
    assert_eq!(api.call("DELETE", &path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.call("DELETE", &path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.call("GET", &path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(all_ids(&api, "/jobs?state=cancelled").await, [rejected]);
}

#[tokio::test]
async fn a_dead_letter_is_queued_again_where_there_is_place() {
    let api = TestApi::start();
    api.notify(&["a@example.com"]).await;
    let id = api.bury(DeadReason::Rejected).await.id;
    let path = format!("/deadletters/{id}/retry");
    let unknown = api.post(&path, json!({"mailProvider": "nobody", "x": 1})).await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(unknown.json()["errors"][0]["pointer"], "/x");
    let unknown = api.post(&path, json!({"mailProvider": "nobody"})).await;
    assert_eq!(unknown.json()["errors"][0]["pointer"], "/mailProvider");

    for _ in 0..10 {
        api.notify(&["b@example.com"]).await;
    }
    let full = api.call("POST", &path).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(full.json()["type"], "/problems/queue-full");
    let elsewhere = api.post(&path, json!({"mailProvider": "spare"})).await;
    assert_eq!(elsewhere.status, StatusCode::ACCEPTED);
    assert_eq!(api.get("/queue?provider=spare").await["depth"], 1);
    assert_eq!(api.call("POST", &path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn all_dead_letters_are_queued_again_until_the_queue_is_full() {
    let api = TestApi::start();
    for _ in 0..2 {
        for _ in 0..6 {
            api.post("/notify", notification(&["a@example.com"])).await;
            api.bury(DeadReason::Rejected).await;
        }
    }
    let answer = api.post("/deadletters/retry", json!({"reason": "expired"})).await;
    assert_eq!(answer.json(), json!({"retried": 0, "refused": 0}));
    let answer = api.post("/deadletters/retry", json!({"provider": "main"})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json(), json!({"retried": 10, "refused": 2}));
    let bad = api.post("/deadletters/retry", json!({"reason": "bored"})).await;
    assert_eq!(bad.json()["errors"][0]["pointer"], "/reason");
}

#[tokio::test]
async fn providers_are_shown_with_their_conditions() {
    let api = TestApi::start();
    let refused = HealthEvent::CheckFailed(Cause::ConnectionRefused, "connection refused".into());
    api.observe("main", &refused);
    let providers = api.get("/providers").await;
    let main = &providers["items"][0];
    assert_eq!((&main["name"], &main["healthy"]), (&json!("main"), &json!(false)));
    assert_eq!(main["security"], "opportunistic");
    assert_eq!(main["lastError"], "connection refused");
    assert_eq!(main["retry"], json!({"count": 3, "initialBackoffMs": 100, "queueSize": 10}));
    assert_eq!(
        main["conditions"][0],
        json!({"type": "Ready", "status": "False", "reason": "HealthCheckFailed",
            "message": "connection refused"})
    );
}

#[tokio::test]
async fn probes_and_metrics_tell_the_state_of_the_process() {
    let api = TestApi::start();
    assert_eq!(api.call("GET", "/livez").await.status, StatusCode::OK);
    assert_eq!(api.call("GET", "/readyz").await.status, StatusCode::OK);
    api.ready.send_replace(false);
    let answer = api.call("GET", "/readyz").await;
    assert_eq!(
        (answer.status, answer.json()["status"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!("notReady"))
    );
    api.call("GET", "/secret-path?token=x").await;
    api.notify(&["a@example.com"]).await;
    let metrics = api.call("GET", "/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in [
        r#"breakglass_mailer_http_requests_total{method="GET",path="unmatched",status="404"} 1"#,
        r#"breakglass_mailprovider_queue_depth{provider="main",state="ready"} 1"#,
        r#"breakglass_mailprovider_queue_capacity{provider="spare"} 10"#,
        r#"breakglass_mailprovider_configured{provider="spare",status="enabled"} 1"#,
    ] {
        assert!(metrics.text.lines().any(|shown| shown == line), "{line}\n{}", metrics.text);
    }
    assert!(!metrics.text.contains("secret-path"));
    api.configure([provider("main", true)]);
    let metrics = api.call("GET", "/metrics").await.text;
    assert!(!metrics.contains("\"spare\""));
}

#[tokio::test]
async fn an_action_on_a_full_disk_is_refused_at_once_and_changes_nothing() {
    let api = TestApi::start();
    let accepted = api.notify(&["a@example.com", "b@example.com"]).await;
    let id = api.bury(DeadReason::Rejected).await.id;
    api.store.fail(Some(StoreError::NoSpace));
    let notification = format!("/notifications/{}", accepted["id"].as_str().expect("an id"));
    for (method, path) in [
        ("POST", format!("/deadletters/{id}/retry")),
        ("POST", "/deadletters/retry".into()),
        ("DELETE", format!("/deadletters/{id}")),
        ("DELETE", notification),
    ] {
        let answer = api.call(method, &path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{method} {path}");
        assert_eq!(answer.json()["type"], "/problems/store-unavailable");
    }
    api.store.fail(None);
    assert_eq!(api.get("/deadletters").await["total"], 1);
    let queue = api.get("/queue?provider=main").await;
    assert_eq!((&queue["depth"], &queue["providers"][0]["ready"]), (&json!(1), &json!(1)));
}
