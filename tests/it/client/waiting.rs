//! Gateways before the server, servers that are away for a moment, and mail that is parked: what
//! `notify` repeats and waits for.

use serde_json::{Value, json};

use super::unlike_ours::{ID, NOTIFY, accepted};
use crate::support::app::{Home, Provider};
use crate::support::cli::Shell;
use crate::support::client::text;
use crate::support::peer::{self, Peer, answer, header, problem};
use crate::support::sink::Sink;

fn page(status: u16) -> String {
    answer(status, "Content-Type: text/html\r\n", "<h1>The server behind me is slow</h1>")
}

/// The notification with its one job in this state.
fn notification(state: &str, redrive: Option<&str>) -> String {
    let mut job = json!({
        "id": ID, "recipient": "ada@example.com", "state": state, "provider": "main",
        "chain": ["main"], "nextAttemptAt": null, "attempts": [],
    });
    job["redrive"] = redrive.into();
    let at = "2026-11-23T00:00:00.000Z";
    let body = json!({
        "id": ID, "subject": "s", "chain": ["main"], "acceptedAt": at, "expiresAt": null,
        "warnings": [], "jobs": [job],
    });
    peer::json(200, &body)
}

#[tokio::test]
async fn a_post_that_only_a_gateway_answered_is_repeated_with_the_same_key() {
    // Not a problem of ours, although one by its form.
    let not_ours = json!({"type": "about:blank", "status": 503, "detail": "no upstream"});
    let not_ours = peer::json(503, &not_ours);
    let peer = Peer::start(vec![page(504), page(500), not_ours, accepted()]).await;
    Shell::at(&peer.url).run(&NOTIFY).await.ended(0);
    let requests = peer.requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
}

#[tokio::test]
async fn a_post_whose_answer_cannot_be_read_tells_the_key_and_is_exit_code_3() {
    let large = format!("Large: {}\r\n", "x".repeat(1 << 20));
    for unreadable in [
        page(202),
        page(501),
        peer::json(202, &json!({"id": ID})),
        answer(202, &large, &accepted()),
        "HTTP/1.1 202 Acc\u{0}epted\r\n\r\n".to_owned(),
    ] {
        let peer = Peer::start(vec![unreadable]).await;
        let ran = Shell::at(&peer.url).run(&NOTIFY).await.ended(3);
        let key = header(&peer.requests()[0], "idempotency-key").expect("a key").to_owned();
        assert!(ran.err.contains(&format!("--idempotency-key {key} ")), "{ran:?}");
        assert_eq!(peer.requests().len(), 1, "{ran:?}");
    }
}

#[tokio::test]
async fn waiting_goes_on_over_gateways_refusals_for_now_and_parked_mail() {
    let answers = vec![
        accepted(),
        page(502),
        page(503),
        page(504),
        problem(503, "store-unavailable", "no", Some(0)),
        String::new(),
        notification("dead", Some("automatic")),
        notification("ready", None),
        notification("delivered", None),
    ];
    let count = answers.len();
    let peer = Peer::start(answers).await;
    let wait = [&NOTIFY[..], &["--wait", "1h"]].concat();
    let ran = Shell::at(&peer.url).run(&wait).await.ended(0);
    assert!(ran.out.contains("delivered"), "{ran:?}");
    assert_eq!(peer.requests().len(), count);
    // What needs somebody's hand is not waited for.
    for end in [
        notification("dead", Some("manual")),
        problem(404, "not-found", "There is no such notification.", None),
    ] {
        let peer = Peer::start(vec![accepted(), end]).await;
        Shell::at(&peer.url).run(&wait).await.ended(1);
        assert_eq!(peer.requests().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_goes_out_by_itself_is_shown_as_parked() {
    for (redrive, shown, told) in [("auto", "parked", "automatic"), ("off", "dead", "manual")] {
        let mut sink = Sink::start();
        sink.close().await;
        let home = Home::new(&[Provider::plain("main", sink.port).retry(0, 10)]);
        let app = home.args(&["--redrive", redrive]).start().await;
        let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
        let id = app.notify(&post).await;
        let found = app.jobs_are(&id, &["dead"]).await;
        assert_eq!(text(&found["jobs"][0]["redrive"]), told);
        for path in ["/jobs", "/jobs?state=dead", "/deadletters"] {
            assert_eq!(text(&app.client.get(path).await["items"][0]["redrive"]), told, "{path}");
        }
        let shell = Shell::at(app.client.url());
        let list = shell.run(&["jobs", "--state", "dead"]).await.ended(0).out;
        let words: Vec<_> = list.lines().nth(1).expect("a job").split_whitespace().collect();
        assert_eq!(words[..2], [&*id, shown], "{list}");
        let one = shell.run(&["jobs", "show", &id]).await.ended(0).out;
        assert!(one.contains(&format!("\nSTATE      {shown}\n")), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_dead_says_nothing_of_a_redrive() {
    let sink = Sink::start();
    let app = Home::new(&[Provider::plain("main", sink.port)]).start().await;
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let id = app.notify(&post).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    let listed = app.client.get("/jobs").await;
    let jobs: [&Value; 2] = [&found["jobs"][0], &listed["items"][0]];
    assert!(jobs.iter().all(|job| job["id"].is_string() && job.get("redrive").is_none()));
}
