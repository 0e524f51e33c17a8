//! Paths, methods, ids and queries that lead nowhere.

use axum::http::StatusCode;
use serde_json::json;

use crate::support::api::{TestApi, notification};

/// All paths and what they take.
const PATHS: [(&str, &str); 14] = [
    ("/notify", "POST"),
    ("/queue", "GET,HEAD"),
    ("/jobs", "GET,HEAD"),
    ("/notifications/0190a0b0-0000-7000-8000-000000000000", "GET,HEAD,DELETE"),
    ("/deadletters", "GET,HEAD"),
    ("/deadletters/retry", "POST"),
    ("/deadletters/0190a0b0-0000-7000-8000-000000000000", "GET,HEAD,DELETE"),
    ("/deadletters/0190a0b0-0000-7000-8000-000000000000/retry", "POST"),
    ("/providers", "GET,HEAD"),
    ("/livez", "GET,HEAD"),
    ("/readyz", "GET,HEAD"),
    ("/metrics", "GET,HEAD"),
    ("/openapi.json", "GET,HEAD"),
    ("/deadletters/x/retry", "POST"),
];

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_405_with_those_that_it_takes() {
    let api = TestApi::start();
    for (path, allowed) in PATHS {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
            "BREW", "M-SEARCH",
        ] {
            if allowed.split(',').any(|taken| taken == method) {
                continue;
            }
            let answer = api.call(method, path).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            let has_body = method != "HEAD";
            assert_eq!(answer.text.contains("/problems/method-not-allowed"), has_body, "{method}");
        }
    }
}

#[tokio::test]
async fn a_path_that_is_none_is_404_whatever_is_asked_of_it() {
    let api = TestApi::start();
    for path in [
        "/notify/",
        "//notify",
        "/notify//",
        "/./notify",
        "/x/../notify",
        "/%6eotify",
        "/notify%2f",
        "/notify%00",
        "/notify%20",
        "/notify;x=1",
        "/notify.json",
        "/Notify",
        "/NOTIFY",
        "/v1/notify",
        "/queue/",
        "/jobs/0190a0b0-0000-7000-8000-000000000000",
        "/notifications",
        "/notifications/",
        "/deadletters/",
        "/deadletters/x/retry/",
        "/deadletters/x/y",
        "/metrics/../notify",
        "/.git/config",
        "/mailbox",
        "/..%2f..%2fetc%2fpasswd",
        "/%ff",
        "/%",
        "/%zz",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let answer = api.call(method, path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(answer.json()["type"], "/problems/not-found", "{method} {path}");
        }
        let answer = api.post(path, notification(&["a@example.com"])).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn what_is_no_id_or_nobodys_id_is_404() {
    let api = TestApi::start();
    api.notify(&["a@example.com"]).await;
    let long = "0".repeat(10_000);
    for id in [
        "x",
        "0",
        "-1",
        "%20",
        "%00",
        "%ff",
        "%2e%2e",
        "..%2fqueue",
        "null",
        "0190a0b0-0000-7000-8000-00000000000",
        "0190a0b0-0000-7000-8000-0000000000000",
        "0190a0b0-0000-7000-8000-00000000000g",
        "0190a0b0-0000-7000-8000-000000000000%0a",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "0190a0b0-0000-7000-8000-000000000000",
        &long,
    ] {
        for (method, path) in [
            ("GET", format!("/notifications/{id}")),
            ("DELETE", format!("/notifications/{id}")),
            ("GET", format!("/deadletters/{id}")),
            ("GET", format!("/deadletters/{id}?include=content")),
            ("DELETE", format!("/deadletters/{id}")),
            ("POST", format!("/deadletters/{id}/retry")),
        ] {
            let answer = api.call(method, &path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path:.100}");
            assert_eq!(answer.json()["type"], "/problems/not-found", "{method} {path:.100}");
        }
    }
    assert_eq!(api.get("/queue").await["depth"], 1);
}

#[tokio::test]
async fn a_bad_query_is_400_and_names_the_parameter() {
    let api = TestApi::start();
    let long = "9".repeat(10_000);
    for (path, parameters) in [
        ("/jobs", &["limit", "state", "provider", "cursor"][..]),
        ("/deadletters", &["limit", "reason", "provider", "cursor"]),
        ("/queue", &["provider"]),
        ("/providers", &[]),
        ("/notifications/0190a0b0-0000-7000-8000-000000000000", &[]),
        ("/deadletters/0190a0b0-0000-7000-8000-000000000000", &["include"]),
    ] {
        let mut bad =
            vec![("x=1".to_owned(), "x"), ("Limit=1".to_owned(), "Limit"), ("=".to_owned(), "")];
        for name in parameters {
            for value in ["", "%00", "%20", "NO", "a%20b", "-1", "💥", "a/b", "%ff", &long] {
                bad.push((format!("{name}={value}"), name));
            }
            bad.push((format!("{name}=1&{name}=1"), name));
            bad.push(((*name).to_owned(), name));
            bad.push((format!("{name}[]=1"), ""));
        }
        if parameters.contains(&"limit") {
            bad.extend(
                ["0", "1001", "+5 ", "1.0", "18446744073709551616"]
                    .map(|value| (format!("limit={}", value.replace(' ', "%20")), "limit")),
            );
        }
        for (query, name) in bad {
            let answer = api.call("GET", &format!("{path}?{query}")).await;
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{path}?{query:.60}: {}",
                answer.text
            );
            assert!(answer.text.contains("query parameter"), "{path}?{query:.60}: {}", answer.text);
            assert!(answer.text.contains(name), "{path}?{query:.60}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_bad_body_for_what_is_done_with_dead_letters_is_named_too() {
    let api = TestApi::start();
    for (body, status, pointer) in [
        (json!({"provider": 7}), 422, "/provider"),
        (json!({"provider": "NO"}), 422, "/provider"),
        (json!({"reason": null}), 422, "/reason"),
        (json!({"reason": "Rejected"}), 422, "/reason"),
        (json!({"reason": ["rejected"]}), 422, "/reason"),
        (json!({"mailProvider": "main"}), 422, "/mailProvider"),
        (json!([]), 422, "\"pointer\":\"\""),
    ] {
        let answer = api.post("/deadletters/retry", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
        assert!(answer.text.contains(pointer), "{body}: {}", answer.text);
    }
}
