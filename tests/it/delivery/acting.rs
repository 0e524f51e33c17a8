//! What an operator does with jobs and dead letters, and what time does to them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{many, notification};
use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::smtp::{Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

/// Posts to this recipient and waits for the dead letter; its id.
async fn dead_letter(app: &App, to: &str) -> String {
    let id = app.notify(&notification(&[to])).await;
    text(&app.jobs_are(&id, &["dead"]).await["jobs"][0]["id"])
}

async fn retry(app: &App, id: &str, body: &Value) -> u16 {
    app.client.post(&format!("/deadletters/{id}/retry"), body).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_to_the_end_is_a_dead_letter_that_a_retry_delivers() {
    let server = SmtpServer::start(Script::reply_to_rcpt(452, "4.2.2 mailbox full")).await;
    let app = Home::new(&[Provider::plain("main", server.port()).retry(1, 10)]).start().await;
    let id = app.notify(&notification(&["ada@example.com"])).await;
    app.jobs_are(&id, &["dead"]).await;
    let letters = app.client.get("/deadletters").await;
    assert_eq!(letters["total"], 1);
    let letter = &letters["items"][0];
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("deferred"), &json!(2)));
    assert_eq!((&letter["redrive"], &letter["notification"]), (&json!("manual"), &json!(id)));
    assert_eq!(letter["lastError"]["code"], 452);
    let path = format!("/deadletters/{}", text(&letter["id"]));
    let shown = app.client.get(&path).await;
    assert_eq!(shown["attempts"].as_array().expect("attempts").len(), 2);
    assert!(shown.get("content").is_none(), "{shown}");
    let content = &app.client.get(&format!("{path}?include=content")).await["content"];
    assert_eq!(content["text"], "Please look.");

    // Refused again, it gets as many attempts as at first.
    assert_eq!(retry(&app, &text(&letter["id"]), &json!({})).await, 202);
    eventually("four attempts", async || {
        let letters = app.client.get("/deadletters").await;
        (letters["items"][0]["attempts"] == 4).then_some(())
    })
    .await;
    server.follow(Script::plain());
    assert_eq!(retry(&app, &text(&letter["id"]), &json!({})).await, 202);
    let found = app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(found["jobs"][0]["attempts"].as_array().expect("attempts").len(), 5);
    assert_eq!(app.client.get("/deadletters").await["total"], 0);
    assert_eq!(server.accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_sent_by_another_provider() {
    let server = SmtpServer::start(Script::reply_to_rcpt(550, "5.7.1 not from you")).await;
    let other = SmtpServer::start(Script::plain()).await;
    let providers =
        [Provider::plain("main", server.port()), Provider::plain("other", other.port())];
    let app = Home::new(&providers).start().await;
    let id = dead_letter(&app, "ada@example.com").await;
    assert_eq!(retry(&app, &id, &json!({"mailProvider": "nobody"})).await, 422);
    assert_eq!(retry(&app, &id, &json!({"mailProvider": "other"})).await, 202);
    app.drained().await;
    eventually("the other took it", async || (other.accepted().len() == 1).then_some(())).await;
    assert_eq!(app.client.get("/deadletters").await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_go_out_again_by_reason() {
    let script = Script::plain().on_line(Verb::Rcpt, "no-", say("550 5.1.1 no such user")).on_line(
        Verb::Rcpt,
        "later-",
        say("451 4.3.0 not now"),
    );
    let server = SmtpServer::start(script).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    let to = ["no-1@example.com", "later-1@example.com", "no-2@example.com", "ada@example.com"];
    let id = app.notify(&notification(&to)).await;
    app.jobs_are(&id, &["dead", "delivered"]).await;
    server.follow(Script::plain());
    let answer = app.client.post("/deadletters/retry", &json!({"reason": "rejected"})).await;
    assert_eq!((answer.status, &answer.json()["retried"]), (202, &json!(2)), "{}", answer.body);
    app.drained().await;
    let left = app.client.dead_letters().await;
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0]["reason"], &left[0]["recipient"]), (&json!("deferred"), &json!(to[1])));
    let answer = app.client.post("/deadletters/retry", &json!({"provider": "main"})).await;
    assert_eq!(answer.json()["retried"], 1);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(server.accepted().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_dead_letter_is_gone_and_never_sent() {
    let server = SmtpServer::start(Script::reply_to_rcpt(550, "5.1.1 no such user")).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    let id = dead_letter(&app, "ada@example.com").await;
    server.follow(Script::plain());
    let path = format!("/deadletters/{id}");
    assert_eq!(app.client.delete(&path).await.status, 204);
    assert_eq!(app.client.delete(&path).await.status, 404);
    assert_eq!(app.client.status(&path).await, Some(404));
    assert_eq!(retry(&app, &id, &json!({})).await, 404);
    let answer = app.client.post("/deadletters/retry", &json!({})).await;
    assert_eq!(answer.json()["retried"], 0);
    assert!(server.accepted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_what_waits_and_names_what_is_in_flight() {
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&["--max-connections", "1"]);
    let app = home.start().await;
    let id = app.notify(&many(5)).await;
    eventually("one is in flight", async || (sink.held_count() == 1).then_some(())).await;
    let path = format!("/notifications/{id}");
    let flying = app.client.get(&path).await["jobs"].as_array().expect("jobs").clone();
    let flying = flying.iter().find(|job| job["state"] == "inFlight").expect("one is");

    let answer = app.client.delete(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["kept"], json!([{"id": flying["id"], "state": "inFlight"}]));
    assert_eq!(answer["cancelled"].as_array().expect("ids").len(), 4);
    sink.release();
    app.jobs_are(&id, &["delivered", "cancelled"]).await;
    app.drained().await;
    let letters = sink.letters();
    let reached: Vec<_> = letters.iter().map(|letter| &*letter.recipient).collect();
    assert_eq!(json!(reached), json!([flying["recipient"]]));
    assert_eq!(app.client.delete("/notifications/nothing").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_jobs_and_dead_letters_show_each_of_them_once_newest_first() {
    let server = SmtpServer::start(Script::reply_to_rcpt(550, "5.1.1 no such user")).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    let mut ids = BTreeSet::new();
    for count in [10, 10, 5] {
        let id = app.notify(&many(count)).await;
        let found = app.jobs_are(&id, &["dead"]).await;
        ids.extend(found["jobs"].as_array().expect("jobs").iter().map(|job| text(&job["id"])));
    }
    let lists = [
        ("/deadletters?limit=10", "deadAt"),
        ("/deadletters?reason=rejected&provider=main&limit=10", "deadAt"),
        ("/jobs?limit=10", "acceptedAt"),
        ("/jobs?state=dead&limit=10", "acceptedAt"),
    ];
    for (path, time) in lists {
        let pages = pages(&app, path).await;
        let lengths: Vec<_> = pages.iter().map(Vec::len).collect();
        assert_eq!(lengths, [10, 10, 5], "{path}");
        let all = pages.concat();
        assert_eq!(all.iter().map(|item| text(&item["id"])).collect::<BTreeSet<_>>(), ids);
        let times: Vec<_> = all.iter().map(|item| text(&item[time])).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{path}: {times:?}");
    }
    assert_eq!(app.client.get("/deadletters?reason=deferred").await["total"], 0);
}

async fn pages(app: &App, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.client.get(&format!("{path}{cursor}")).await;
        pages.push(page["items"].as_array().expect("items").clone());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_expires_while_it_waits_is_dead_and_stays_it_when_the_provider_is_back() {
    let mut sink = Sink::start();
    sink.close().await;
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let app = home.args(&["--unhealthy-interval", "1s"]).start().await;
    let mut body = notification(&["late@example.com"]);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    body["expiresAt"] = soon.to_string().into();
    let late = app.notify(&body).await;
    let patient = app.notify(&notification(&["ada@example.com"])).await;
    eventually("one has expired", async || {
        (app.client.get("/deadletters?reason=expired").await["total"] == 1).then_some(())
    })
    .await;
    app.queue_has("main", "parked", 1).await;
    sink.open();
    app.jobs_are(&patient, &["delivered"]).await;
    app.drained().await;
    app.jobs_are(&late, &["dead"]).await;
    let letters = app.client.dead_letters().await;
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["redrive"]),
        (&json!("expired"), &json!("manual"))
    );
    let reached = sink.letters();
    assert_eq!(reached.iter().map(|l| &*l.recipient).collect::<Vec<_>>(), ["ada@example.com"]);
}
