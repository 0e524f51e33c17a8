//! What a dry run tells, and that it is what the post itself then comes to.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use breakglass_mailer::core::health::HealthEvent;
use breakglass_mailer::core::notification::Address;
use breakglass_mailer::core::outcome::Cause;
use breakglass_mailer::core::provider::Provider;
use breakglass_mailer::core::route::{Catalog, Cluster, Escalation};
use serde_json::{Value, json};

use crate::support::api::{Answer, TestApi, notification, post, provider};
use crate::support::app::{Home, Provider as Manifest};
use crate::support::cli::Shell;
use crate::support::smtp::{Script, SmtpServer};

/// A post with an idempotency key.
fn keyed(key: &str, path: &str, body: &Value) -> Request<Body> {
    let mut request = post(path, body);
    let key = HeaderValue::from_bytes(key.as_bytes()).expect("a value");
    request.headers_mut().insert("idempotency-key", key);
    request
}

/// Posts as a dry run.
async fn dry(api: &TestApi, body: &Value) -> Answer {
    api.send(post("/notify?dryRun=true", body)).await
}

/// Posts as a dry run; what it explains.
async fn explained(api: &TestApi, body: &Value) -> Value {
    let answer = dry(api, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// A field of each candidate.
fn each<'a>(explained: &'a Value, field: &str) -> Vec<&'a Value> {
    explained["candidates"].as_array().expect("candidates").iter().map(|c| &c[field]).collect()
}

/// `main` is the default, `off` is disabled; the escalation `prod` names `spare` and a recipient,
/// the cluster `edge` names `main`.
fn town(api: &TestApi) {
    let off = Provider { disabled: true, ..provider("off", false) };
    let providers = [provider("main", true), provider("spare", false), off];
    let providers = providers.map(|provider| (provider.name.clone(), Arc::new(provider)));
    let mut catalog = Catalog { namespace: "default".into(), ..Catalog::default() };
    catalog.providers = providers.into();
    let mails = vec![Address::parse("oncall@example.com").expect("valid")];
    let prod = Escalation { mail_provider: Some("spare".into()), notification_mails: mails };
    catalog.escalations.insert(("default".into(), "prod".into()), prod);
    let edge = Cluster { mail_provider: Some("main".into()) };
    catalog.clusters.insert(("default".into(), "edge".into()), edge);
    api.replace(catalog);
}

#[tokio::test]
async fn a_dry_run_tells_the_rule_the_chain_the_queue_and_what_became_of_every_level() {
    let api = TestApi::start();
    town(&api);
    let body = json!({"subject": "s", "text": "t", "mailProvider": "off", "escalation": "prod",
        "cluster": "edge"});
    let found = explained(&api, &body).await;
    assert_eq!(found["status"], 202);
    assert_eq!(found["type"], Value::Null);
    assert_eq!(found["provider"], "spare");
    assert_eq!(found["rule"], "escalation");
    assert_eq!(found["chain"], json!(["spare", "main"]));
    assert_eq!(found["recipients"], json!(["oncall@example.com"]));
    assert_eq!(found["queue"], json!({"depth": 0, "capacity": 10, "wanted": 1}));
    assert_eq!(each(&found, "level"), ["mailProvider", "escalation", "cluster", "default"]);
    assert_eq!(
        each(&found, "named"),
        [&json!("off"), &json!("prod"), &json!("edge"), &json!(null)]
    );
    assert_eq!(each(&found, "provider"), ["off", "spare", "main", "main"]);
    assert_eq!(each(&found, "decision"), ["disabled", "taken", "taken", "repeated"]);
    assert_eq!(
        found["candidates"][3]["reason"],
        "default: MailProvider main is in the chain already"
    );

    let accepted = api.post("/notify", body).await.json();
    for same in ["provider", "chain", "warnings"] {
        assert_eq!(found[same], accepted[same], "{same}");
    }
    let jobs = accepted["jobs"].as_array().expect("jobs").iter();
    assert!(jobs.map(|job| &job["recipient"]).eq(found["recipients"].as_array().expect("a list")));
}

#[tokio::test]
async fn a_dry_run_takes_nothing_in_and_no_key() {
    let api = TestApi::start();
    let body = notification(&["a@example.com"]);
    assert_eq!(api.send(keyed("k-1", "/notify?dryRun=true", &body)).await.status, StatusCode::OK);
    assert_eq!(api.store.notifications_count(), 0);
    assert_eq!(api.get("/queue").await["depth"], 0);
    // The key is still free for any request.
    let other = notification(&["b@example.com"]);
    let answer = api.send(keyed("k-1", "/notify?dryRun=false", &other)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("idempotency-replayed"), "");
    assert_eq!(api.get("/queue").await["depth"], 1);
}

#[tokio::test]
async fn what_would_be_refused_for_want_of_a_place_or_a_provider_is_explained() {
    let api = TestApi::start();
    api.notify(&["a@example.com"]).await;
    let ten: Vec<String> = (0..10).map(|n| format!("a{n}@example.com")).collect();
    let ten = notification(&ten.iter().map(String::as_str).collect::<Vec<_>>());
    let full = explained(&api, &ten).await;
    let refused = api.post("/notify", ten.clone()).await;
    for same in ["status", "type", "detail"] {
        assert_eq!(full[same], refused.json()[same], "{same}");
    }
    assert_eq!(full["type"], "/problems/queue-full");
    assert_eq!(full["provider"], "main");
    assert_eq!(full["queue"], json!({"depth": 1, "capacity": 10, "wanted": 10}));

    api.configure([provider("spare", false)]);
    let none = explained(&api, &ten).await;
    let refused = api.post("/notify", ten.clone()).await;
    for same in ["status", "type", "detail"] {
        assert_eq!(none[same], refused.json()[same], "{same}");
    }
    assert_eq!(none["type"], "/problems/no-mail-provider");
    assert_eq!([&none["provider"], &none["rule"], &none["queue"]], [&Value::Null; 3]);
    assert_eq!(none["chain"], json!([]));
    assert_eq!(none["candidates"][3]["reason"], "no MailProvider is the default");

    api.queue.stop_accepting();
    api.configure([provider("main", true)]);
    assert_eq!(explained(&api, &ten).await["type"], "/problems/shutting-down");
}

#[tokio::test]
async fn what_is_bad_in_itself_is_refused_as_without_a_dry_run() {
    let api = TestApi::start();
    let mut unknown = notification(&["a@example.com"]);
    unknown["mailProvider"] = "nobody".into();
    for body in [json!({}), json!({"recipients": ["a"], "subject": "", "text": "t"}), unknown] {
        let answer = dry(&api, &body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(answer.text, api.post("/notify", body).await.text);
    }
    for key in ["", "two words", "\u{d7}", &"k".repeat(256)] {
        let [dry, wet] = ["/notify?dryRun=true", "/notify"]
            .map(async |path| api.send(keyed(key, path, &notification(&["a@example.com"]))).await);
        let (dry, wet) = (dry.await, wet.await);
        assert_eq!(dry.status, StatusCode::BAD_REQUEST, "{key:?}");
        assert_eq!(dry.text, wet.text);
    }
    let body = notification(&["a@example.com"]);
    for query in ["dryRun=yes", "dryRun=", "dryRun=true&dryRun=true", "dryrun=true"] {
        let answer = api.send(post(&format!("/notify?{query}"), &body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn health_is_told_and_does_not_count() {
    let api = TestApi::start();
    let refused = "connection refused".to_owned();
    for _ in 0..4 {
        let event = HealthEvent::Unreachable(Cause::ConnectionRefused, refused.clone());
        api.observe("main", &event);
    }
    let found = explained(&api, &notification(&["a@example.com"])).await;
    assert_eq!(found["provider"], "main");
    let default = &found["candidates"][3];
    assert_eq!(default["decision"], "taken");
    assert_eq!(default["healthy"], false);
    assert!(default["circuitOpenSince"].is_string(), "{default}");
    assert_eq!(default["lastError"], "connection refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_explain_takes_the_flags_of_notify_and_sends_nothing() {
    let server = SmtpServer::start(Script::plain()).await;
    let app = Home::new(&[Manifest::plain("main", server.port())]).start().await;
    let shell = Shell::at(app.client.url());
    let draft = ["--to", "ada@example.com", "--subject", "s", "--text", "t"];
    let ran = shell.run(&[&["explain"], &draft[..]].concat()).await.ended(0);
    assert!(ran.out.contains("202: it would be taken in"), "{ran:?}");
    assert!(ran.out.contains("main, by default") && ran.out.contains("0/1000"), "{ran:?}");
    assert!(ran.out.contains("no escalation was asked for"), "{ran:?}");
    let found = shell.run(&[&["explain", "-o", "json"], &draft[..]].concat()).await.json();
    assert_eq!(found["provider"], "main");
    let unknown = [&["explain", "--mail-provider", "nobody"], &draft[..]].concat();
    let ran = shell.run(&unknown).await.ended(1);
    assert!(ran.err.contains("  /mailProvider: does not exist\n"), "{ran:?}");
    shell.run(&["explain", "--to", "ada@example.com", "--subject", "s"]).await.ended(2);
    assert_eq!(app.client.get("/jobs").await["items"], json!([]));
    assert!(server.accepted().is_empty());
}
