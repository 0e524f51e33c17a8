//! `/openapi.json`: whether it is what it says it is, and whether the API is what it says.
//!
//! Every answer that any test gets is held against it too, in `support::openapi`.

mod fuzz;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use axum::body::Body;
use axum::http::Request;
use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::support::api::{TestApi, notification};
use crate::support::openapi::{check, validator};

/// The endpoints of the API; those of `/mailbox` only in `dev`.
const ENDPOINTS: [&str; 18] = [
    "DELETE /deadletters/{id}",
    "DELETE /notifications/{id}",
    "GET /deadletters",
    "GET /deadletters/{id}",
    "GET /jobs",
    "GET /livez",
    "GET /mailbox",
    "GET /mailbox/{name}",
    "GET /metrics",
    "GET /notifications/{id}",
    "GET /openapi.json",
    "GET /providers",
    "GET /queue",
    "GET /queue/history",
    "GET /readyz",
    "POST /deadletters/retry",
    "POST /deadletters/{id}/retry",
    "POST /notify",
];

/// What a caller may rely on in requests and answers, by schema.
const FIELDS: &[(&str, &str)] = &[
    (
        "NotifyRequest",
        "body cluster escalation expiresAt html mailProvider recipients replyTo subject text",
    ),
    ("Accepted", "acceptedAt chain id jobs provider warnings"),
    ("AcceptedJob", "id recipient"),
    ("Explanation", "candidates chain detail provider queue recipients rule status type warnings"),
    (
        "Candidate",
        "circuitOpenSince decision healthy heldReason heldUntil lastError level named provider reason",
    ),
    ("Place", "capacity depth wanted"),
    ("Queue", "capacity depth oldestAcceptedAt providers"),
    (
        "ProviderQueue",
        "capacity depth healthy heldReason heldUntil inFlight name nextAttemptAt parked ready scheduled",
    ),
    ("Limits", "maxConnections messagesPerDay messagesPerMinute"),
    ("QueueHistory", "at intervalSeconds providers"),
    ("ProviderHistory", "depth name oldestSeconds parked"),
    (
        "Job",
        "acceptedAt attempts chain id nextAttemptAt notification provider recipient redrive state",
    ),
    ("Attempt", "at code durationMs enhancedCode message number outcome provider stage"),
    (
        "DeadLetter",
        "attempts deadAt id lastError notification provider reason recipient redrive subject",
    ),
    ("RetryRequest", "mailProvider"),
    ("RetryFilter", "provider reason recipient"),
    ("Problem", "detail errors status title type"),
    ("FieldError", "detail pointer"),
];

fn document() -> Value {
    breakglass_mailer::http::document()
}

/// Each operation, with its method in upper case and its path.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("operations");
        item.iter().map(|(method, found)| (method.to_uppercase(), path.clone(), found.clone()))
    });
    all.collect()
}

#[tokio::test]
async fn the_document_is_answered_by_the_server_that_it_describes() {
    let api = TestApi::start();
    let answer = api.call("GET", "/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let mut expected = document();
    let paths = expected["paths"].as_object_mut().expect("paths");
    paths.retain(|path, _| !path.starts_with("/mailbox"));
    // This server asks nobody for a token.
    expected["security"] = json!([{}, {"bearer": []}]);
    assert_eq!(answer.json(), expected);
    assert_eq!(api.call("GET", "/openapi.json").await.text, answer.text);
}

#[test]
fn the_document_is_openapi_3_1_and_its_schemas_are_schemas() {
    let meta: Value = serde_json::from_str(include_str!("openapi/openapi-3.1.json")).expect("JSON");
    let document = document();
    let meta = jsonschema::validator_for(&meta).expect("a schema");
    let errors: Vec<String> = meta.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        jsonschema::draft202012::meta::validate(schema).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let ids = operations(&document).into_iter().map(|(_, _, found)| found["operationId"].clone());
    let ids: Vec<Value> = ids.collect();
    let distinct: BTreeSet<String> = ids.iter().map(Value::to_string).collect();
    assert_eq!(ids.len(), distinct.len(), "{ids:?}");
}

#[test]
fn every_endpoint_and_every_field_of_the_contract_is_described() {
    let document = document();
    let described = operations(&document).into_iter().map(|(method, path, _)| method + " " + &path);
    let described: BTreeSet<String> = described.collect();
    assert_eq!(described, ENDPOINTS.map(str::to_owned).into());
    for (name, fields) in FIELDS {
        let schema = &document["components"]["schemas"][name];
        let described = schema["properties"].as_object().expect("properties");
        let described: Vec<&str> = described.keys().map(String::as_str).collect();
        assert_eq!(described.join(" "), *fields, "{name}");
        for (field, schema) in schema["properties"].as_object().expect("properties") {
            assert!(schema["description"].is_string(), "{name}.{field} has no description");
        }
    }
}

#[tokio::test]
async fn every_path_takes_the_methods_that_are_described_and_no_others() {
    let mailbox = tempfile::tempdir().expect("a folder");
    let api = TestApi::with_mailbox(mailbox.path());
    let document = document();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let url = path.replace("{id}", "01a205c3-2dd0-7680-b861-77841a510462");
        let mut described: BTreeSet<String> = BTreeSet::new();
        for method in item.as_object().expect("operations").keys() {
            described.insert(method.to_uppercase());
            if method == "get" {
                described.insert("HEAD".into());
            }
        }
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"] {
            let answer = api.call(method, &url).await;
            let is_refused = answer.status == 405;
            assert_eq!(is_refused, !described.contains(method), "{method} {path}");
            if is_refused {
                let allowed = answer.header("allow").split(',').map(str::to_owned).collect();
                assert_eq!(described, allowed, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_query_parameter_is_described_and_no_other_is_taken() {
    let api = TestApi::start();
    for (method, path, operation) in operations(&document()) {
        if path.starts_with("/mailbox") || operation["security"] == json!([]) {
            continue;
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let names: Vec<&str> = in_query.filter_map(|p| p["name"].as_str()).collect();
        let url = path.replace("{id}", "01a205c3-2dd0-7680-b861-77841a510462") + "?unheard=of";
        let body = Body::from(notification(&["a@example.com"]).to_string());
        let request = Request::builder().method(&*method).uri(url);
        let request = request.header("content-type", "application/json").body(body);
        let answer = api.send(request.expect("a request")).await;
        assert_eq!(answer.status, 400, "{method} {path}");
        let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let said = format!("The query parameter \"unheard\" is not known; this path takes {list}.");
        assert_eq!(answer.json()["detail"], said, "{method} {path}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[test]
fn every_example_is_as_its_schema_says() {
    let mut examples_count = 0;
    for (method, path, operation) in operations(&document()) {
        let mut bodies = vec![operation["requestBody"].clone()];
        bodies.extend(operation["responses"].as_object().expect("responses").values().cloned());
        let contents = bodies.iter().filter_map(|body| body["content"].as_object());
        for described in contents.flat_map(|content| content.values()) {
            let named = described["examples"].as_object().into_iter().flat_map(|all| all.values());
            let examples = named.map(|example| &example["value"]).chain(described.get("example"));
            for example in examples {
                let valid = validator(&described["schema"]).validate(example);
                assert!(valid.is_ok(), "{method} {path}: {example} {valid:?}");
                examples_count += 1;
            }
        }
    }
    assert!(100 < examples_count, "{examples_count} examples");
}

#[tokio::test]
async fn what_the_schema_says_of_a_notification_is_what_the_server_takes() {
    let schema = validator(&document()["components"]["schemas"]["NotifyRequest"]);
    let addresses =
        |count: usize| -> Vec<String> { (0..count).map(|n| format!("a{n}@example.com")).collect() };
    let long_name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d");
    // What is changed in a good notification; null takes a field out.
    let good = [
        json!({}),
        json!({"subject": "ä".repeat(998)}),
        json!({"subject": " x"}),
        json!({"html": "<p>", "text": null}),
        json!({"body": "<p>", "text": null}),
        json!({"html": "", "text": "x"}),
        json!({"text": "line\nline\u{7}"}),
        json!({"escalation": "ops/prod", "cluster": long_name}),
        json!({"mailProvider": "main"}),
        json!({"replyTo": "Größe@bücher.example"}),
        json!({"expiresAt": "2999-12-31T23:59:59.123+02:00"}),
    ];
    let bad = [
        json!({"recipients": addresses(101)}),
        json!({"recipients": []}),
        json!({"recipients": [7]}),
        json!({"recipients": null}),
        json!({"recipients": "a@example.com"}),
        json!({"subject": "ä".repeat(999)}),
        json!({"subject": null}),
        json!({"subject": "  "}),
        json!({"subject": ""}),
        json!({"subject": "a\nb"}),
        json!({"subject": "a\u{2028}b"}),
        json!({"text": null}),
        json!({"text": ""}),
        json!({"text": "a\0b"}),
        json!({"html": "a", "body": "b"}),
        json!({"escalation": "a/b/c"}),
        json!({"cluster": "Prod"}),
        json!({"mailProvider": "ops/main"}),
        json!({"mailProvider": "-a"}),
        json!({"mailProvider": format!("{long_name}.{}", "e".repeat(63))}),
        json!({"replyTo": "nobody"}),
        json!({"replyTo": format!("{}@example.com", "a".repeat(300))}),
        json!({"expiresAt": "tomorrow"}),
        json!({"priority": "high"}),
    ];
    let cases = good.iter().map(|change| (change, true)).chain(bad.iter().map(|c| (c, false)));
    for (change, is_good) in cases {
        let mut body = notification(&["a@example.com"]);
        for (field, value) in change.as_object().expect("an object") {
            body[field] = value.clone();
        }
        body.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        // A queue takes ten jobs, so each has a server of its own.
        let api = TestApi::start();
        let answer = api.post("/notify", body.clone()).await;
        assert_eq!(answer.status, if is_good { 202 } else { 422 }, "{change}: {}", answer.text);
        assert_eq!(schema.is_valid(&body), is_good, "{change}");
    }
    let mut most = notification(&[]);
    most["recipients"] = addresses(100).into();
    assert!(schema.is_valid(&most));
    let answer = TestApi::start().post("/notify", most).await;
    assert_eq!(answer.json()["type"], "/problems/queue-full");
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    };
    let is_found = |path: &str, status: u16, pairs: &[(&'static str, &'static str)], body: &str| {
        let headers = headers(pairs);
        catch_unwind(AssertUnwindSafe(|| check("GET", path, status, &headers, body))).is_err()
    };
    let json = [("content-type", "application/json")];
    let problem = [("content-type", "application/problem+json")];
    let missing = |kind: &str, status: u16| {
        let body = json!({"type": kind, "title": "t", "status": status, "detail": "d"});
        body.to_string()
    };
    let not_found = missing("/problems/not-found", 404);
    assert!(!is_found("/livez", 200, &json, r#"{"status": "alive"}"#));
    assert!(!is_found("/deadletters/x?include=content", 404, &problem, &not_found));
    assert!(!is_found("/nothing", 404, &problem, &not_found));
    assert!(is_found("/livez", 200, &json, r#"{"status": "alive", "more": 1}"#), "a field");
    assert!(is_found("/livez", 200, &json, "{}"), "a missing field");
    assert!(is_found("/livez", 200, &problem, r#"{"status": "alive"}"#), "a media type");
    assert!(is_found("/livez", 204, &[], ""), "a status");
    assert!(is_found("/nothing", 200, &json, "{}"), "a path");
    assert!(is_found("/notifications/x", 404, &problem, &missing("/problems/gone", 404)), "a type");
    assert!(is_found("/queue", 503, &problem, &missing("/problems/queue-full", 503)), "its type");
    let busy = missing("/problems/store-unavailable", 503);
    assert!(is_found("/jobs", 503, &problem, &busy), "no Retry-After");
    let retry = [problem[0], ("retry-after", "10")];
    assert!(!is_found("/jobs", 503, &retry, &busy));
    assert!(is_found("/livez", 200, &[json[0], ("location", "/x")], r#"{"status": "alive"}"#));
}
