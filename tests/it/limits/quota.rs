//! Answers by which a server says that a quota is used up, at every stage of the dialogue.

use super::*;
use crate::support::smtp::say;

const DAY: &str = "550 5.4.5 Daily user sending limit exceeded. gsmtp";

fn to(recipient: &str, provider: &str) -> Value {
    json!({"recipients": [recipient], "subject": "Breakglass", "text": "Please look.",
        "mailProvider": provider})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_at_any_stage_holds_the_provider_and_not_the_message() {
    let table = [
        (Verb::Greeting, "421 4.7.0 unusual rate of unsolicited mail", "greeting", 5),
        (Verb::Auth, "454 4.7.0 Too many login attempts, please try again later.", "auth", 5),
        (Verb::Mail, "451 4.7.500 Server busy. Please try again later", "mail", 5),
        (Verb::Rcpt, "550 5.7.708 Access denied, traffic not accepted from this IP", "rcpt", 60),
        (Verb::Data, DAY, "data", 60),
        (Verb::Dot, "432 4.3.2 Concurrent connections limit exceeded.", "dot", 1),
        (Verb::Dot, "454 Throttling failure: Daily message quota exceeded.", "dot", 60),
    ];
    for (verb, reply, stage, minutes) in table {
        let server = SmtpServer::start(Script::plain().on(verb, say(reply))).await;
        let other = Sink::start();
        let providers = [
            // The default, and not in the chain of what goes to it alone.
            Provider::plain("other", other.port).disabled(),
            Provider::plain("main", server.port()).login("mailer", "secret").retry(0, 10),
        ];
        let home = Home::new(&providers).args(&["--unhealthy-interval", "1s"]);
        let app = home.start().await;
        let id = app.notify(&to("ada@example.com", "main")).await;
        let shown = app.provider_is("main", |shown| shown["heldUntil"].is_string()).await;
        let wait = until(&shown["heldUntil"]);
        let minute = SignedDuration::from_mins(1);
        assert!(wait <= minute * minutes && minute * (minutes - 1) < wait, "{reply}: {wait}");
        assert!(
            text(&shown["heldReason"]).starts_with("the server's quota is used up: "),
            "{shown}"
        );
        assert_ne!(shown["healthy"], false, "{reply}: {shown}");
        assert_eq!(shown["circuitOpenSince"], Value::Null, "{reply}");
        assert_eq!(shown["conditions"][0]["status"], "True", "{reply}: {shown}");

        let waiting = delivered(&app, &id, 0).await;
        assert!(SignedDuration::ZERO < until(&waiting[0]["nextAttemptAt"]), "{waiting:?}");
        let attempts = waiting[0]["attempts"].as_array().expect("attempts");
        // Before MAIL a check may have been the first to hear it.
        for attempt in attempts {
            assert_eq!(
                (&attempt["stage"], &attempt["outcome"]),
                (&json!(stage), &json!("deferred"))
            );
        }
        let connections_count = server.seen().connections_count;
        let late = app.notify(&to("late@example.com", "main")).await;
        let waiting = delivered(&app, &late, 0).await;
        assert_eq!(waiting[0]["attempts"], json!([]), "{reply}: it is not tried");
        assert_eq!(server.seen().connections_count, connections_count, "{reply}: nor dialled");
        assert_eq!(app.client.get("/deadletters").await["total"], 0, "{reply}");

        // A start forgets the hold, and the first message learns how things are.
        server.follow(Script::plain());
        app.stop().await;
        let app = home.start().await;
        app.jobs_are(&id, &["delivered"]).await;
        app.jobs_are(&late, &["delivered"]).await;
        assert_eq!(server.accepted().len(), 2, "{reply}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_provider_takes_over_at_once_and_other_providers_do_not_notice() {
    let first = SmtpServer::start(Script::plain().on(Verb::Mail, say(DAY))).await;
    let second = Sink::start();
    let providers =
        [Provider::plain("second", second.port), Provider::plain("first", first.port())];
    let app = Home::new(&providers).start().await;
    let id = app.notify(&to("ada@example.com", "first")).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    let made: Vec<_> = attempts.iter().map(|a| (&a["provider"], &a["outcome"])).collect();
    assert_eq!(json!(made), json!([["first", "deferred"], ["second", "delivered"]]));
    for n in 0..20 {
        let id = app.notify(&to(&format!("to-{n}@example.com"), "first")).await;
        let found = app.jobs_are(&id, &["delivered"]).await;
        let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "the first one is left alone: {found}");
    }
    assert_eq!(first.seen().count(Verb::Mail), 1);
    let explained =
        app.client.post("/notify?dryRun=true", &to("x@example.com", "first")).await.json();
    assert!(explained["candidates"][0]["heldUntil"].is_string(), "{explained}");
    let scrape = Scrape::of(&app.client).await;
    let moved = [("from", "first"), ("to", "second")];
    assert_eq!(scrape.count("failovers_total", &moved), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_for_a_quota_goes_on_as_soon_as_another_provider_of_its_chain_is_back() {
    let first = SmtpServer::start(Script::plain().on(Verb::Mail, say(DAY))).await;
    let mut second = Sink::start();
    second.close().await;
    let providers =
        [Provider::plain("second", second.port), Provider::plain("first", first.port())];
    let app = Home::new(&providers).args(&["--unhealthy-interval", "1s"]).start().await;
    // So that it is known to be away.
    let parked = app.notify(&to("parked@example.com", "second")).await;
    app.jobs_are(&parked, &["dead"]).await;
    let id = app.notify(&to("ada@example.com", "first")).await;
    delivered(&app, &id, 0).await;
    app.provider_is("first", |shown| shown["heldUntil"].is_string()).await;
    second.open();
    app.jobs_are(&id, &["delivered"]).await;
    app.jobs_are(&parked, &["delivered"]).await;
    assert_eq!(second.letters().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_for_a_quota_expires_in_time_and_a_new_server_lifts_the_hold() {
    let server = SmtpServer::start(Script::plain().on(Verb::Mail, say(DAY))).await;
    let main = Provider::plain("main", server.port());
    let home = Home::new(&[main]);
    let app = home.start().await;
    let kept = app.notify(&to("kept@example.com", "main")).await;
    app.provider_is("main", |shown| shown["heldUntil"].is_string()).await;
    let mut body = to("old@example.com", "main");
    let soon = Timestamp::now() + SignedDuration::from_secs(2);
    body["expiresAt"] = soon.to_string().into();
    let old = app.notify(&body).await;
    app.jobs_are(&old, &["dead"]).await;
    assert_eq!(app.client.dead_letters().await[0]["reason"], "expired");

    let sink = Sink::start();
    home.providers(&[Provider::plain("main", sink.port)]);
    app.jobs_are(&kept, &["delivered"]).await;
    let shown = app.provider_is("main", |shown| shown["healthy"] == true).await;
    assert_eq!(shown["heldUntil"], Value::Null);
}
