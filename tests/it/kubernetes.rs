//! `serve --kubernetes` against a real API server.

mod faults;
mod providers;
mod secrets;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::eventually;

const ALL: [&str; 3] = ["mailproviders", "breakglassescalations", "clusterconfigs"];

/// A MailProvider that points at a port of this machine.
fn provider(name: &str, port: u16, more: &Value) -> String {
    let mut spec = json!({
        "smtp": {"host": "127.0.0.1", "port": port},
        "sender": {"address": "noreply@example.com"},
        "retry": {"count": 0},
    });
    merge(&mut spec, more);
    json!({
        "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
        "kind": "MailProvider",
        "metadata": {"name": name},
        "spec": spec,
    })
    .to_string()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// An API server with the definitions, and our server on it.
async fn start(names: &[&str]) -> Option<(Kube, Home, App)> {
    if !need("kube") {
        return None;
    }
    let kube = Kube::start().await;
    kube.install_crds(names).await;
    let home = Home::new(&[]).on_kubernetes(&kube.kubeconfig());
    let app = home.start().await;
    Some((kube, home, app))
}

async fn is(kube: &Kube, provider: &str, condition: &str, wanted: &str) {
    eventually(&format!("{condition} of {provider} is {wanted}"), async || {
        (kube.condition(provider, condition) == wanted).then_some(())
    })
    .await;
}

fn to_ada() -> Value {
    json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_used_checked_and_told_of_and_each_change_counts_without_a_restart() {
    let Some((kube, _home, app)) = start(&ALL).await else { return };
    let sink = Sink::start();
    assert_eq!(app.client.notify(&to_ada(), None).await.expect("an answer").status, 503);

    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "True Configured").await;
    is(&kube, "relay", "Healthy", "True HealthCheckPassed").await;
    let shown = kube.kubectl(&["get", "mailproviders"]).expect("a table");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = shown.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "HOST", "PORT", "DEFAULT", "READY", "AGE"]);
    let port = sink.port.to_string();
    assert_eq!(lines[1][..5], ["relay", "127.0.0.1", &port, "true", "True"].map(str::to_owned));

    let accepted = app.notify(&to_ada()).await;
    app.jobs_are(&accepted, &["delivered"]).await;
    let sent = eventually("the send is told of", async || {
        let status = kube.get("mailprovider", "relay")?["status"].clone();
        status["lastSendAttempt"].is_string().then_some(status)
    })
    .await;
    assert_eq!(sent["observedGeneration"], 1);
    assert!(sent["lastHealthCheck"].is_string() && sent["lastSendError"].is_null(), "{sent}");

    kube.patch("mailprovider", "relay", r#"{"spec":{"disabled":true}}"#);
    is(&kube, "relay", "Ready", "False Disabled").await;
    assert_eq!(kube.get("mailprovider", "relay").expect("it")["status"]["observedGeneration"], 2);
    assert_eq!(kube.condition("relay", "Healthy"), "", "nothing is known of a disabled one");
    assert_eq!(app.client.notify(&to_ada(), None).await.expect("an answer").status, 503);

    kube.kubectl(&["delete", "mailprovider", "relay"]).expect("deleted");
    eventually("it is gone", async || {
        app.client.get("/providers").await["items"].as_array()?.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_let_in_and_cannot_be_used_is_told_of_and_holds_up_no_other() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let sink = Sink::start();
    let bad_host = json!({"smtp": {"host": "two words"}, "default": true});
    kube.apply(&provider("invalid", sink.port, &bad_host)).expect("the schema allows it");
    let bad_authority = json!({"smtp": {"certificateAuthority": "no PEM"}});
    kube.apply(&provider("unreadable", sink.port, &bad_authority)).expect("applied");
    let foreign = json!({"smtp": {
        "username": "u",
        "passwordRef": {"name": "s", "namespace": "kube-system"},
    }});
    kube.apply(&provider("foreign", sink.port, &foreign)).expect("applied");
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");

    is(&kube, "relay", "Ready", "True Configured").await;
    is(&kube, "invalid", "Ready", "False ValidationFailed").await;
    is(&kube, "foreign", "Ready", "False ValidationFailed").await;
    is(&kube, "unreadable", "Ready", "False InvalidCertificateAuthority").await;
    let message =
        kube.get("mailprovider", "invalid").expect("it")["status"]["conditions"][0]["message"]
            .clone();
    let said = message.as_str().expect("a message");
    assert!(said.starts_with("spec.smtp.host: Invalid value: \"two words\": "), "{said}");
    let accepted = app.notify(&to_ada()).await;
    app.jobs_are(&accepted, &["delivered"]).await;

    let repaired = json!({"smtp": {"host": "127.0.0.1"}});
    kube.apply(&provider("invalid", sink.port, &repaired)).expect("applied");
    is(&kube, "invalid", "Ready", "True Configured").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_of_a_later_version_changes_nothing_for_this_one() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let sink = Sink::start();
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "True Configured").await;

    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/retry/properties/";
    let later = json!([{
        "op": "add",
        "path": format!("{at}later"),
        "value": {"type": "integer", "default": 7},
    }]);
    let definition = "mailproviders.breakglass.t-caas.telekom.com";
    kube.kubectl(&["patch", "crd", definition, "--type=json", "-p", &later.to_string()])
        .expect("patched");
    eventually("the default is filled in", async || {
        kube.kubectl(&["label", "mailprovider", "relay", "a=b", "--overwrite"]).ok()?;
        (kube.get("mailprovider", "relay")?["spec"]["retry"]["later"] == 7).then_some(())
    })
    .await;
    kube.patch("mailprovider", "relay", r#"{"spec":{"displayName":"shown"}}"#);
    app.provider_is("relay", |shown| shown["displayName"] == "shown").await;
    assert_eq!(kube.condition("relay", "Ready"), "True Configured");
    let accepted = app.notify(&to_ada()).await;
    app.jobs_are(&accepted, &["delivered"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escalation_chooses_as_soon_as_it_is_there_and_its_kind_may_come_later() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let (urgent, standard) = (Sink::start(), Sink::start());
    kube.apply(&provider("urgent", urgent.port, &json!({}))).expect("applied");
    kube.apply(&provider("standard", standard.port, &json!({"default": true}))).expect("applied");
    is(&kube, "standard", "Ready", "True Configured").await;
    is(&kube, "urgent", "Ready", "True Configured").await;

    kube.install_crds(&ALL[1..]).await;
    kube.apply(
        &json!({
            "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
            "kind": "BreakglassEscalation",
            "metadata": {"name": "production-escalation"},
            "spec": {
                "mailProvider": "urgent",
                "notificationMails": ["oncall@example.com", "no address"],
                "approvers": {"groups": ["a field of another controller"]},
            },
        })
        .to_string(),
    )
    .expect("applied");
    let post = json!({"subject": "s", "text": "t", "escalation": "production-escalation"});
    let accepted = eventually("the escalation is known", async || {
        let answer = app.client.notify(&post, None).await.expect("an answer");
        (answer.status == 202).then(|| answer.json())
    })
    .await;
    assert_eq!(accepted["chain"], json!(["urgent", "standard"]), "{accepted}");
    assert_eq!(accepted["jobs"][0]["recipient"], "oncall@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_on_with_what_is_known_while_the_api_server_is_away() {
    let Some((mut kube, home, app)) = start(&ALL).await else { return };
    let (sink, other) = (Sink::start(), Sink::start());
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "True Configured").await;

    kube.apply(&provider("kept", sink.port, &json!({}))).expect("applied");
    is(&kube, "kept", "Ready", "True Configured").await;

    kube.stop_api();
    let accepted = app.notify(&to_ada()).await;
    app.jobs_are(&accepted, &["delivered"]).await;
    eventually("it leads no longer", async || {
        app.process.log().contains("\"leads\":false").then_some(())
    })
    .await;

    // A second one that starts now knows nothing, and says so until the API server is back.
    let second = Home::new(&[]).on_kubernetes(&kube.kubeconfig()).spawn();
    eventually("the second one listens", async || second.log().contains("listening").then_some(()))
        .await;
    assert!(!second.log().contains("taken over"), "{}", second.log());
    kube.start_api().await;
    let change = json!({"smtp": {"port": other.port}, "default": true});
    kube.apply(&provider("relay", sink.port, &change)).expect("applied");
    let second = second.ready().await.expect("it becomes ready");
    for app in [&app, &second] {
        app.provider_is("relay", |shown| shown["port"] == other.port).await;
    }
    // Nothing of its server changed, so that nothing but the new lead leads to a check.
    kube.patch("mailprovider", "kept", r#"{"spec": {"displayName": "edited"}}"#);
    for name in ["relay", "kept"] {
        eventually(&format!("the status of {name} is of the edit"), async || {
            let found = kube.get("mailprovider", name)?;
            let is_told = found["status"]["observedGeneration"] == found["metadata"]["generation"];
            is_told.then_some(())
        })
        .await;
        is(&kube, name, "Ready", "True Configured").await;
    }
    drop(home);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_and_another_takes_over_when_it_dies() {
    let Some((kube, _home, mut first)) = start(&["mailproviders"]).await else { return };
    let holder = || {
        let lease = kube.get("lease", "breakglass-mailer")?;
        Some(lease["spec"]["holderIdentity"].as_str()?.to_owned()).filter(|name| !name.is_empty())
    };
    let leader = eventually("the first leads", async || holder()).await;
    let second = Home::new(&[]).on_kubernetes(&kube.kubeconfig()).env("POD_NAME", "mailer-1");
    let second = second.start().await;
    assert_eq!(holder().as_ref(), Some(&leader), "who leads goes on to lead");

    first.process.kill9();
    eventually("the second leads", async || holder().filter(|name| name == "mailer-1")).await;
    let sink = Sink::start();
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "True Configured").await;
    kube.kubectl(&["delete", "lease", "breakglass-mailer"]).expect("deleted");
    eventually("it is made again", async || holder().filter(|name| name == "mailer-1")).await;
    second.stop().await;
    eventually("the Lease is given back", async || holder().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_survives_its_pod_and_another_goes_on_with_its_volume() {
    let Some((kube, home, mut app)) = start(&["mailproviders"]).await else { return };
    let sink = Sink::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    kube.apply(&provider("relay", port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "False HealthCheckFailed").await;
    let ids = [app.notify(&to_ada()).await, app.notify(&to_ada()).await];
    app.process.kill9();

    let app = home.env("POD_NAME", "breakglass-mailer-7").start().await;
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    for id in ids {
        app.jobs_are(&id, &["delivered"]).await;
    }
    assert_eq!(sink.letters().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_only_when_something_changed_and_keeps_its_times() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let sink = Sink::start();
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    is(&kube, "relay", "Ready", "True Configured").await;
    let before = kube.get("mailprovider", "relay").expect("it");
    // Another provider's change, of which this one's status says nothing.
    kube.apply(&provider("other", sink.port, &json!({}))).expect("applied");
    is(&kube, "other", "Ready", "True Configured").await;
    let after = kube.get("mailprovider", "relay").expect("it");
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);

    let labels = [("provider", "relay"), ("result", "success")];
    let checks_count = Scrape::of(&app.client).await.count("health_check_total", &labels);
    assert_eq!(checks_count, 1, "a status that is written checks nothing");
    let events = kube.kubectl(&["get", "events", "-o", "name"]).expect("events");
    assert_eq!(events.lines().count(), 2, "one for each that became healthy: {events}");
    tokio::time::timeout(Duration::from_secs(60), app.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_comes_back_with_another_volume_says_so() {
    if !need("kube") {
        return;
    }
    let kube = Kube::start().await;
    kube.install_crds(&["mailproviders"]).await;
    let pod = |home: Home| home.on_kubernetes(&kube.kubeconfig()).env("POD_NAME", "mailer-0");
    let changed = async |app: &App| Scrape::of(&app.client).await.count("store_changed", &[]);
    let remembered = || {
        let lease = kube.get("lease", "breakglass-mailer")?;
        let stores = &lease["metadata"]["annotations"];
        Some(stores["store.breakglass.t-caas.telekom.com/mailer-0"].as_str()?.to_owned())
    };

    let home = pod(Home::new(&[]));
    let app = home.start().await;
    let store = eventually("its store is remembered", async || remembered()).await;
    app.stop().await;
    let app = home.start().await;
    assert_eq!(changed(&app).await, 0);
    app.stop().await;

    let home = pod(Home::new(&[]));
    for _ in 0..2 {
        let app = home.start().await;
        eventually("the change is told", async || (changed(&app).await == 1).then_some(())).await;
        assert!(app.process.log().contains("this pod had another store"));
        app.stop().await;
    }
    assert_ne!(remembered().as_ref(), Some(&store), "the new one is remembered");
    let events = kube.kubectl(&["get", "events", "-o", "wide"]).expect("events");
    assert!(events.contains("StoreChanged") && events.contains(&store), "{events}");

    let seen = "before.store.breakglass.t-caas.telekom.com/mailer-0-";
    kube.kubectl(&["annotate", "lease", "breakglass-mailer", seen]).expect("taken out");
    let app = home.start().await;
    eventually("it leads", async || app.process.log().contains("the leader changed").then_some(()))
        .await;
    assert_eq!(changed(&app).await, 0, "an operator has seen it");
}
