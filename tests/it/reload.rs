//! Manifests that change while mail waits, and those that every user starts from.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::load::Load;
use crate::support::smtp::{Action, Script, SmtpServer, Verb};
use crate::support::wait::{eventually, within};

const SOON: [&str; 2] = ["--unhealthy-interval", "1s"];

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

async fn server() -> SmtpServer {
    SmtpServer::start(Script::plain()).await
}

/// One that puts everything off.
async fn busy() -> SmtpServer {
    SmtpServer::start(Script::reply_to_rcpt(451, "4.3.0 not now")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_for_a_retry_go_to_where_the_provider_is_by_then() {
    let (old, new) = (busy().await, server().await);
    let provider = |port| Provider::plain("main", port).retry(5, 1000);
    let home = Home::new(&[provider(old.port())]);
    let app = home.start().await;
    let id = app.notify(&many(10)).await;
    app.queue_has("main", "scheduled", 10).await;
    home.providers(&[provider(new.port())]);
    let found = app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(new.accepted().len(), 10);
    assert!(old.accepted().is_empty());
    assert_eq!(found["chain"], json!(["main"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_jobs_go_out_once_the_provider_is_corrected() {
    let mut wrong = server().await;
    wrong.refuse().await;
    let right = server().await;
    let home = Home::new(&[Provider::plain("main", wrong.port())]);
    let app = home.start().await;
    let id = app.notify(&many(10)).await;
    app.queue_has("main", "parked", 10).await;
    home.providers(&[Provider::plain("main", right.port())]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(right.accepted().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_refused_with_line_and_rule_and_the_last_good_one_stays() {
    let server = server().await;
    let provider = Provider::plain("main", server.port());
    let home = Home::new(std::slice::from_ref(&provider));
    let app = home.start().await;
    let broken = "apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: MailProvider\n\
        metadata:\n  name: main\nspec:\n  default: true\n  smtp:\n    host: localhost\n    \
        port: 70000\n  sender:\n    address: noreply@example.com\n";
    let refusal = async |text: &str, place: &str, rule: &str| {
        home.write(text);
        eventually(&format!("the log names {place} and {rule}"), async || {
            let log = app.process.log();
            log.lines().find(|line| line.contains(place) && line.contains(rule)).map(str::to_owned)
        })
        .await
    };
    let line = refusal(broken, "providers.yaml:9", "spec.smtp.port").await;
    assert!(line.contains("\"ERROR\"") && line.contains("the last good ones stay"), "{line}");
    refusal("kind: [\n", "providers.yaml:", "the last good ones stay").await;
    let id = app.notify(&many(3)).await;
    app.jobs_are(&id, &["delivered"]).await;

    home.providers(&[provider.sender_name("Corrected")]);
    app.provider_is("main", |shown| shown["sender"]["name"] == "Corrected").await;
    let id = app.notify(&many(1)).await;
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(server.accepted().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_disabled_or_removed_provider_follow_their_chain_when_they_are_due() {
    for is_removed in [false, true] {
        let (first, second) = (busy().await, server().await);
        let spare = Provider::plain("spare", second.port());
        let main = Provider::plain("main", first.port()).retry(5, 2000);
        let home = Home::new(&[spare.clone(), main.clone()]);
        let app = home.start().await;
        let mut body = many(20);
        body["mailProvider"] = "main".into();
        let id = app.notify(&body).await;
        app.queue_has("main", "scheduled", 20).await;
        match is_removed {
            true => home.providers(&[spare]),
            false => home.providers(&[spare, main.disabled()]),
        }
        app.jobs_are(&id, &["delivered"]).await;
        assert_eq!(second.accepted().len(), 20);
        assert!(first.accepted().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_without_another_provider_wait_until_theirs_is_back() {
    for is_removed in [false, true] {
        let (server, other) = (busy().await, server().await);
        let spare = Provider::plain("spare", other.port()).disabled();
        let main = Provider::plain("main", server.port()).retry(5, 1000);
        let home = Home::new(&[main.clone(), spare.clone()]);
        let app = home.start().await;
        let id = app.notify(&many(20)).await;
        app.queue_has("main", "scheduled", 20).await;
        match is_removed {
            true => home.providers(std::slice::from_ref(&spare)),
            false => home.providers(&[main.clone().disabled(), spare.clone()]),
        }
        let gone = "/problems/no-mail-provider";
        eventually("the provider is gone", async || {
            let answer = app.client.notify(&json!({"subject": "s"}), None).await.ok()?;
            assert_eq!(answer.status, 422, "{}", answer.body);
            let shown = app.client.get("/providers").await;
            let mut items = shown["items"].as_array().expect("items").iter();
            items.all(|item| item["name"] != "main" || item["disabled"] == true).then_some(())
        })
        .await;
        let refused = app.client.notify(&many(1), None).await.expect("an answer");
        assert_eq!((refused.status, text(&refused.json()["type"])), (503, gone.to_owned()));
        let dials = server.seen().count(Verb::Rcpt);
        server.follow(Script::plain());
        app.queue_has("main", "ready", 20).await;
        assert_eq!(server.seen().count(Verb::Rcpt), dials, "a provider at rest is not dialled");

        home.providers(&[main, spare]);
        app.jobs_are(&id, &["delivered"]).await;
        assert_eq!(server.accepted().len(), 20);
        assert!(other.accepted().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_parked_for_a_provider_that_rests_goes_out_when_it_is_back() {
    let mut server = server().await;
    server.refuse().await;
    let main = Provider::plain("main", server.port());
    let home = Home::new(std::slice::from_ref(&main)).args(&SOON);
    let app = home.start().await;
    let id = app.notify(&many(5)).await;
    app.queue_has("main", "parked", 5).await;
    home.providers(&[main.clone().disabled()]);
    app.provider_is("main", |shown| shown["disabled"] == true).await;
    server.listen();
    home.providers(&[main]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(server.accepted().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_provider_ends_when_it_is_disabled() {
    let server = SmtpServer::start(Script::plain().on(Verb::Greeting, Action::Hang)).await;
    let main = Provider::plain("main", server.port());
    let home = Home::new(std::slice::from_ref(&main)).args(&["--health-timeout", "1h"]);
    let _app = home.start().await;
    let connections = async |open_count| {
        // Sooner than the deadline of a greeting would end it.
        let limit = Duration::from_secs(30);
        within(limit, &format!("{open_count} checks are under way"), async || {
            let seen = server.seen();
            (seen.open_count == open_count).then_some(seen.connections_count)
        })
        .await
    };
    for n in 1..3 {
        assert_eq!(connections(1).await, n);
        home.providers(&[main.clone().disabled()]);
        assert_eq!(connections(0).await, n);
        home.providers(std::slice::from_ref(&main));
    }
    assert_eq!(connections(1).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_disabled_before_it_was_removed_leaves_no_metrics() {
    let (server, other) = (server().await, server().await);
    let (main, spare) =
        (Provider::plain("main", server.port()), Provider::plain("spare", other.port()));
    let home = Home::new(&[main.clone(), spare.clone()]);
    let app = home.start().await;
    let id = app.notify(&many(1)).await;
    app.jobs_are(&id, &["delivered"]).await;
    let metrics = async || {
        let path = "/metrics";
        app.client.call(hyper::Method::GET, path, &[], None).await.expect("an answer").body
    };
    assert!(metrics().await.contains("provider=\"main\""));
    home.providers(&[spare.clone(), main.disabled()]);
    app.provider_is("main", |shown| shown["disabled"] == true).await;
    home.providers(&[spare]);
    eventually("its series are gone", async || {
        (!metrics().await.contains("provider=\"main\"")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_outlive_their_provider_disabled_deleted_and_brought_back_over_restarts() {
    let (server, other) = (busy().await, server().await);
    let spare = Provider::plain("spare", other.port()).disabled();
    let main = Provider::plain("main", server.port()).retry(5, 1000);
    let home = Home::new(&[main.clone(), spare.clone()]);
    let mut app = home.start().await;
    let id = app.notify(&many(100)).await;
    app.queue_has("main", "scheduled", 100).await;
    home.providers(&[main.clone().disabled(), spare.clone()]);
    app.provider_is("main", |shown| shown["disabled"] == true).await;
    app.queue_has("main", "ready", 100).await;
    let dials = server.seen().connections_count;
    app.process.kill9();
    app = home.start().await;
    app.queue_has("main", "ready", 100).await;

    home.providers(std::slice::from_ref(&spare));
    let is_listed =
        async |app: &App| app.client.get("/providers").await.to_string().contains("main");
    eventually("it is gone", async || (!is_listed(&app).await).then_some(())).await;
    app.queue_has("main", "ready", 100).await;
    app.stop().await;
    let app = home.start().await;
    app.queue_has("main", "ready", 100).await;
    assert_eq!(server.seen().connections_count, dials, "what is not there is not dialled");

    server.follow(Script::plain());
    home.providers(&[main, spare]);
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(server.accepted().len(), 100, "each once");
    assert!(other.accepted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_edits_under_load_lose_nothing_and_cause_few_checks() {
    let servers = [server().await, server().await];
    let provider = |n: usize| Provider::plain("main", servers[n % 2].port()).retry(2, 10);
    let home = Home::new(&[provider(0)]);
    let app = home.start().await;
    let begin = Instant::now();
    let load = Load::start(
        8,
        |n| json!({"recipients": [format!("to-{n}@example.com")], "text": "Please look."}),
    );
    load.serve(Some(app.client.clone()));
    for n in 1..=50 {
        // The server and its settings change in turn.
        home.providers(&[provider(n / 2).sender_name(&format!("Edit {n}"))]);
        load.allow(8);
        eventually("the load goes on", async || (n * 4 <= load.ended_count()).then_some(())).await;
    }
    app.provider_is("main", |shown| shown["sender"]["name"] == "Edit 50").await;
    let checks_count: usize = servers.iter().map(|server| server.seen().count(Verb::Noop)).sum();
    let two_seconds = begin.elapsed().as_secs() / 2;
    assert!(checks_count as u64 <= two_seconds + 2, "{checks_count} checks in {two_seconds} × 2 s");
    eventually("all posts have ended", async || (load.ended_count() == 400).then_some(())).await;
    let posts = load.finish().await;
    app.drained().await;
    let promised: BTreeSet<_> = posts.iter().filter_map(|post| post.accepted()).collect();
    assert_eq!((posts.len(), promised.len()), (400, 400));
    let promised = promised.iter().flat_map(|(_, jobs)| jobs.keys().cloned());
    let all: Vec<_> = servers.iter().flat_map(SmtpServer::accepted).collect();
    let reached = all.iter().flat_map(|letter| letter.recipients.clone());
    assert_eq!(reached.collect::<BTreeSet<_>>(), promised.collect());
    assert_eq!(all.len(), 400, "each once");
    assert_eq!(app.client.get("/deadletters").await["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_of_the_reference_starts_a_server_that_shows_no_password() {
    let home = Home::new(&[]);
    let folder = home.path("manifests");
    std::fs::create_dir(&folder).expect("a folder");
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples");
    let mut names = BTreeSet::new();
    let mut passwords = BTreeSet::new();
    for entry in std::fs::read_dir(reference).expect("the examples") {
        let path = entry.expect("an example").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let value = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
        let secrets = ["password: \"", "clientSecret: \"", "refreshToken: \""];
        let is_secret = |line: &&str| secrets.iter().any(|field| line.contains(field));
        passwords.extend(text.lines().filter(is_secret).map(value));
        for document in text.split("\n---").filter(|text| text.contains("kind: MailProvider")) {
            let name = document.lines().find_map(|line| line.trim().strip_prefix("name: "));
            names.insert(name.expect("a name").to_owned());
        }
        // A name that never resolves: nobody out there hears of a test.
        let lines = text.lines().map(|line| match line.trim().strip_prefix("host: ") {
            Some(_) => format!("{line}.invalid\n"),
            None => format!("{}\n", line.replace("URL: https://", "URL: https://nobody.invalid/")),
        });
        let copy = folder.join(path.file_name().expect("a name"));
        std::fs::write(copy, lines.collect::<String>()).expect("write");
    }
    passwords.extend(["secret-password".to_owned(), "your-secure-password".to_owned()]);
    passwords.insert("xxxx xxxx xxxx xxxx".to_owned());
    let app = home.reading(folder).start().await;
    let shown = app.client.get("/providers").await;
    let items = shown["items"].as_array().expect("items");
    assert_eq!(items.iter().map(|item| text(&item["name"])).collect::<BTreeSet<_>>(), names);
    for secret in &passwords {
        assert!(!shown.to_string().contains(secret), "{secret} in {shown}");
        assert!(!app.process.log().contains(secret), "{secret} in the log");
    }
    let urgent = app.provider_is("urgent-mail", |_| true).await;
    assert_eq!((&urgent["security"], &urgent["retry"]["count"]), (&json!("implicit"), &json!(5)));
    let body = json!({"subject": "s", "text": "t", "escalation": "production-escalation",
        "cluster": "production-cluster"});
    let answer = app.client.accepted(&body).await;
    assert_eq!(answer["jobs"][0]["recipient"], "oncall@example.com");
    assert_eq!(
        (&answer["chain"][0], &answer["chain"][1]),
        (&json!("urgent-mail"), &json!("standard-mail"))
    );
}
