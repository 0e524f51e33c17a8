//! What a Prometheus reads from a server to which everything happened.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::provider::{escalation, manifests};
use crate::support::smtp::{Action, Blackhole, Certificate, PKI, Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

/// The closed set of `emails_failed_total`, but for `internal`, which no peer can bring about.
const CAUSES: [&str; 10] = [
    "connection_timeout",
    "connection_refused",
    "dns",
    "tls",
    "auth_failed",
    "password_unavailable",
    "deferred",
    "rejected",
    "protocol",
    "expired",
];

/// The name of a series without its prefix, its labels, and its value.
type Reading<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

fn mail(provider: &str, recipients_count: usize) -> Value {
    let to: Vec<_> = (0..recipients_count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "s", "text": "t", "mailProvider": provider})
}

/// Posts one mail for each cause to the provider that is named after it; all are dead letters then.
async fn fail_in_every_way(app: &App) {
    let mut ids = Vec::new();
    for cause in CAUSES {
        let mut body = mail(&cause.replace('_', "-"), 1);
        if cause == "expired" {
            let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
            body["expiresAt"] = soon.to_string().into();
        }
        ids.push(app.notify(&body).await);
    }
    for id in ids {
        app.jobs_are(&id, &["dead"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_moves_with_its_labels_and_the_series_of_a_removed_provider_are_gone() {
    let script = Script::plain;
    let mut away = SmtpServer::start(script()).await;
    away.refuse().await;
    let blackhole = Blackhole::start().await;
    let good = SmtpServer::start(script()).await;
    let slow = SmtpServer::start(script().on(Verb::Mail, Action::Hang)).await;
    let busy = SmtpServer::start(Script::reply_to_rcpt(451, "4.3.0 later")).await;
    let picky = SmtpServer::start(Script::reply_to_rcpt(550, "5.1.1 no such user")).await;
    let rude = SmtpServer::start(script().on(Verb::Greeting, say("554 5.3.2 no"))).await;
    let locked = SmtpServer::start(script().on(Verb::Auth, say("535 5.7.8 no"))).await;
    let expired = SmtpServer::start(Script::starttls().certificate(Certificate::Expired)).await;
    let plain = |name, server: &SmtpServer| Provider::plain(name, server.port());
    let providers = [
        // The default, so that nothing has a second provider that was not asked for.
        plain("off", &good).disabled(),
        plain("good", &good),
        plain("slow", &slow),
        plain("full", &busy).retry(5, 60_000).queue_size(10),
        Provider::plain("connection-timeout", blackhole.port),
        plain("connection-refused", &away),
        plain("dns", &good).host("no-such-host.invalid"),
        Provider::tls("tls", "localhost", expired.port(), &PKI.ca_pem),
        plain("auth-failed", &locked).login("mailer", "hunter2"),
        plain("password-unavailable", &good).login("mailer", "hunter2").secret(None),
        plain("deferred", &busy).retry(2, 10),
        plain("rejected", &picky),
        plain("protocol", &rude),
        plain("expired", &busy).retry(5, 60_000),
    ];
    let chosen = escalation("oncall", &json!({"mailProvider": "good"}));
    let home = Home::new(&[]).args(&["--max-connections", "1"]);
    home.write(&(manifests(&providers) + &chosen));
    let app = home.start().await;

    fail_in_every_way(&app).await;
    let three = app.notify(&mail("good", 3)).await;
    app.jobs_are(&three, &["delivered"]).await;
    let mut failing_over = mail("connection-refused", 1);
    failing_over["escalation"] = "oncall".into();
    let failed_over = app.notify(&failing_over).await;
    app.jobs_are(&failed_over, &["delivered"]).await;
    app.notify(&mail("full", 9)).await;
    let refused = app.client.notify(&mail("full", 2), None).await.expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.body);
    app.notify(&mail("slow", 2)).await;
    app.queue_has("slow", "inFlight", 1).await;
    app.queue_has("full", "scheduled", 9).await;
    app.provider_is("connection-timeout", |shown| shown["healthy"] == false).await;
    let scrape = eventually("a job is a second old", async || {
        let scrape = Scrape::of(&app.client).await;
        let age = scrape.value("oldest_pending_seconds", &[("provider", "full")]);
        (1.0 <= age).then_some(scrape)
    })
    .await;

    assert_eq!(scrape.media_type, "text/plain; version=0.0.4; charset=utf-8");
    for cause in CAUSES {
        let provider = cause.replace('_', "-");
        for reason in CAUSES.into_iter().chain(["internal"]) {
            let labels = [("provider", &*provider), ("reason", reason)];
            let expected = usize::from(reason == cause);
            assert_eq!(scrape.count("emails_failed_total", &labels), expected, "{labels:?}");
        }
    }
    let full = [("provider", "full"), ("reason", "full")];
    let failover = [("from", "connection-refused"), ("to", "good")];
    let posted = [("method", "POST"), ("path", "/notify"), ("status", "202")];
    let not_taken = [("method", "POST"), ("path", "/notify"), ("status", "503")];
    let exact: [Reading<'_>; 17] = [
        ("configured", &[("provider", "good"), ("status", "enabled")], 1),
        ("configured", &[("provider", "off"), ("status", "disabled")], 1),
        ("health_check_total", &[("provider", "good"), ("result", "success")], 1),
        ("health_check_total", &[("provider", "good"), ("result", "failure")], 0),
        ("health_check_duration_seconds_count", &[("provider", "good")], 1),
        ("emails_sent_total", &[("provider", "good")], 4),
        ("delivery_latency_seconds_count", &[("provider", "good")], 4),
        ("send_duration_seconds_count", &[("provider", "good")], 4),
        ("send_duration_seconds_count", &[("provider", "deferred")], 3),
        ("retries_total", &[("provider", "deferred")], 2),
        ("failovers_total", &failover, 1),
        ("queue_capacity", &[("provider", "full")], 10),
        ("queue_rejected_total", &full, 1),
        ("deadletters", &[("provider", "rejected")], 1),
        ("http_requests_total", &posted, CAUSES.len() + 4),
        ("http_requests_total", &not_taken, 1),
        ("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1),
    ];
    for (name, labels, expected) in exact {
        assert_eq!(scrape.count(name, labels), expected, "{name}{labels:?}");
    }
    assert_eq!(scrape.find("configured", &[("provider", "good"), ("status", "disabled")]), None);
    for (provider, status, is_open) in
        [("good", 1.0, 0.0), ("rejected", 1.0, 0.0), ("dns", 0.0, 1.0), ("off", -1.0, 0.0)]
    {
        let labels = [("provider", provider)];
        assert_eq!(scrape.value("status", &labels), status, "{provider}");
        assert_eq!(scrape.value("circuit_open", &labels), is_open, "{provider}");
    }
    let failed = [("provider", "dns"), ("result", "failure")];
    assert!(0 < scrape.count("health_check_total", &failed));
    for (provider, states) in [
        // By state: ready, scheduled, inFlight, parked.
        ("good", [0, 0, 0, 0]),
        ("slow", [1, 0, 1, 0]),
        ("full", [0, 9, 0, 0]),
        ("dns", [0, 0, 0, 1]),
    ] {
        let depth = |state| [("provider", provider), ("state", state)];
        let shown = ["ready", "scheduled", "inFlight", "parked"]
            .map(|state| scrape.count("queue_depth", &depth(state)));
        assert_eq!(shown, states, "{provider}");
    }
    assert!(0 < scrape.count("store_commit_duration_seconds_count", &[]));
    assert!(CAUSES.len() <= scrape.count("store_commit_jobs_sum", &[]));
    assert_eq!(scrape.count("store_damaged_records", &[]), 0);
    if need("promtool") {
        lint(&scrape.text);
    }

    home.providers(&providers[2..]);
    eventually("the series of the removed ones are gone", async || {
        let text = Scrape::of(&app.client).await.text;
        (!text.contains("\"good\"") && !text.contains("\"off\"")).then_some(())
    })
    .await;
}

/// `promtool check metrics` has nothing to say.
fn lint(text: &str) {
    let mut promtool = Command::new("/usr/bin/promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let said = promtool.wait_with_output().expect("promtool ends");
    let words = [said.stdout, said.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(said.status.success() && words.is_empty(), "{}: {words}", said.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_parked_again_and_again_counts_as_one_failure() {
    let limited = Script::plain().on(Verb::Mail, say("421 4.7.0 too many connections"));
    let server = SmtpServer::start(limited).await;
    let home = Home::new(&[Provider::plain("main", server.port())]);
    let app = home.args(&["--unhealthy-interval", "50ms"]).start().await;
    app.notify(&mail("main", 1)).await;
    server.wait_until(|seen| 3 <= seen.count(Verb::Mail)).await;
    app.queue_has("main", "parked", 1).await;
    let failed = [("provider", "main"), ("reason", "protocol")];
    assert_eq!(Scrape::of(&app.client).await.count("emails_failed_total", &failed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_scrape_after_a_restart_shows_what_waits_and_what_is_dead() {
    let mut away = SmtpServer::start(Script::plain()).await;
    away.refuse().await;
    let picky = SmtpServer::start(Script::reply_to_rcpt(550, "5.1.1 no such user")).await;
    let home = Home::new(&[
        Provider::plain("away", away.port()).queue_size(20),
        Provider::plain("picky", picky.port()),
    ]);
    let app = home.start().await;
    let parked = app.notify(&mail("away", 3)).await;
    let refused = app.notify(&mail("picky", 2)).await;
    app.jobs_are(&parked, &["dead"]).await;
    app.jobs_are(&refused, &["dead"]).await;
    app.stop().await;

    let app = home.start().await;
    let scrape = Scrape::of(&app.client).await;
    let exact: [Reading<'_>; 6] = [
        ("queue_depth", &[("provider", "away"), ("state", "parked")], 3),
        ("queue_capacity", &[("provider", "away")], 20),
        ("deadletters", &[("provider", "away")], 3),
        ("deadletters", &[("provider", "picky")], 2),
        ("configured", &[("provider", "away"), ("status", "enabled")], 1),
        // Counters begin anew, and with all their series.
        ("emails_failed_total", &[("provider", "picky"), ("reason", "rejected")], 0),
    ];
    for (name, labels, expected) in exact {
        assert_eq!(scrape.count(name, labels), expected, "{name}{labels:?}");
    }
}
