//! The files of the page as they are answered, without a browser.

use axum::body::Body;
use axum::http::Request;

use crate::support::api::TestApi;

const SCRIPTS: [&str; 11] = [
    "act.js",
    "api.js",
    "app.js",
    "chart.js",
    "detail.js",
    "dialog.js",
    "dom.js",
    "lists.js",
    "message.js",
    "overview.js",
    "words.js",
];

const OTHERS: [&str; 6] =
    ["style.css", "controls.css", "parts.css", "lists.css", "icon.svg", "message.html"];

#[tokio::test]
async fn the_page_may_run_and_load_nothing_but_its_own_files() {
    let api = TestApi::start();
    let page = api.call("GET", "/").await;
    assert_eq!(
        (page.status.as_u16(), page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|given| given == rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let lower = page.text.to_lowercase();
    for inline in ["<style", "style=", "onclick", "onload", "javascript:", "http:", "https:"] {
        assert!(!lower.contains(inline), "{inline}");
    }
    let frame = api.call("GET", "/ui/message.html").await;
    let policy = frame.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'; img-src data:;"));
    assert!(!policy.contains("script"), "{policy}");
}

#[tokio::test]
async fn no_script_makes_html_of_text_and_each_is_reached_from_the_page() {
    let api = TestApi::start();
    let mut all = api.call("GET", "/").await.text;
    for name in SCRIPTS {
        let file = api.call("GET", &format!("/ui/{name}")).await;
        assert_eq!(file.header("content-type"), "text/javascript; charset=utf-8", "{name}");
        for danger in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!file.text.contains(danger), "{name}: {danger}");
        }
        all += &file.text;
    }
    for name in SCRIPTS.iter().chain(&OTHERS) {
        assert!(all.contains(&format!("/{name}\"")) || all.contains(&format!("{name}'")), "{name}");
    }
    assert_eq!(api.call("GET", "/ui/ui.rs").await.status, 404);
    assert_eq!(api.call("GET", "/ui/..%2fui.rs").await.status, 404);
    assert_eq!(api.call("POST", "/").await.status, 405);
}

#[tokio::test]
async fn a_file_that_a_browser_has_already_is_not_sent_again() {
    let api = TestApi::start();
    let first = api.call("GET", "/ui/app.js").await;
    assert_eq!(first.header("cache-control"), "no-cache");
    let again = async |tag: &str| {
        let request = Request::get("/ui/app.js").header("if-none-match", tag);
        api.send(request.body(Body::empty()).expect("a request")).await
    };
    let same = again(&format!("\"other\", {}", first.header("etag"))).await;
    assert_eq!((same.status.as_u16(), &*same.text), (304, ""));
    assert_eq!(same.header("etag"), first.header("etag"));
    assert_eq!(again("\"other\"").await.text, first.text);
}

#[tokio::test]
async fn the_history_of_a_queue_ends_with_what_it_is_now() {
    let api = TestApi::start();
    api.notify(&["a@example.com", "b@example.com"]).await;
    let history = api.get("/queue/history").await;
    assert_eq!(history["at"].as_array().map(Vec::len), Some(1), "{history}");
    let main = &history["providers"][0];
    assert_eq!((&main["name"], &main["depth"][0]), (&"main".into(), &2.into()), "{history}");
}

#[tokio::test]
async fn jobs_and_dead_letters_are_found_by_a_part_of_their_recipient() {
    let api = TestApi::start();
    api.notify(&["ada@one.example", "bob@two.example"]).await;
    let found = async |path: &str| -> Vec<String> {
        let items = api.get(path).await["items"].as_array().cloned().expect("items");
        items.iter().filter_map(|item| item["recipient"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(found("/jobs?recipient=ONE.ex").await, ["ada@one.example"]);
    assert_eq!(found("/jobs?state=ready&recipient=bob").await, ["bob@two.example"]);
    assert_eq!(found("/jobs?recipient=eve").await, [""; 0]);
    let dead = api.bury(breakglass_mailer::core::job::DeadReason::Rejected).await;
    let (who, _) = dead.recipient.as_str().split_once('@').expect("an address");
    assert_eq!(found(&format!("/deadletters?recipient={who}")).await, [dead.recipient.as_str()]);
    assert_eq!(found("/deadletters?recipient=eve").await, [""; 0]);
    let none = api.post("/deadletters/retry", serde_json::json!({"recipient": "eve"})).await;
    assert_eq!(none.json(), serde_json::json!({"retried": 0, "refused": 0}));
    let one = api.post("/deadletters/retry", serde_json::json!({"recipient": who})).await;
    assert_eq!(one.json(), serde_json::json!({"retried": 1, "refused": 0}));
    assert_eq!(api.call("GET", "/jobs?recipient=").await.status, 400);
}
