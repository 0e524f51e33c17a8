//! MailProviders that go, come back and are edited without pause while mail waits for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{is, provider, start};
use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::kube_proxy::KubeProxy;
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::smtp::{Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

const JOBS_COUNT: usize = 100;

fn hundred() -> Value {
    let to: Vec<_> = (0..JOBS_COUNT).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "s", "text": "t", "mailProvider": "main"})
}

/// Sets `main` up in front of a server that puts everything off, and queues a hundred jobs there.
async fn queue_hundred(kube: &Kube, app: &App, busy: &SmtpServer) -> String {
    let patient = json!({"retry": {"count": 10, "initialBackoffMs": 1000}, "disabled": false});
    kube.apply(&provider("main", busy.port(), &patient)).expect("applied");
    app.provider_is("main", |shown| shown["port"] == busy.port() && shown["healthy"] == true).await;
    let id = app.notify(&hundred()).await;
    app.queue_has("main", "scheduled", JOBS_COUNT).await;
    id
}

async fn is_gone(app: &App) {
    eventually("the provider is gone", async || {
        let all = app.client.get("/providers").await;
        let mut all = all["items"].as_array().expect("items").iter();
        all.all(|shown| shown["name"] != "main").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_outlive_their_provider_and_a_storm_of_edits() {
    if !need("kube") {
        return;
    }
    let mut kube = Kube::start().await;
    kube.install_crds(&["mailproviders"]).await;
    let proxy = KubeProxy::start(kube.upstream()).await;
    let home = Home::new(&[]);
    let kubeconfig = proxy.kubeconfig(&home.path("."));
    let home = home.on_kubernetes(&kubeconfig);
    let mut app = home.start().await;
    let sink = Sink::start();
    let busy = SmtpServer::start(Script::reply_to_rcpt(451, "4.3.0 not now")).await;
    let good = provider("main", sink.port, &json!({"disabled": false}));

    let id = queue_hundred(&kube, &app, &busy).await;
    kube.patch("mailprovider", "main", r#"{"spec": {"disabled": true}}"#);
    is(&kube, "main", "Ready", "False Disabled").await;
    assert_eq!(app.client.get("/queue").await["depth"], JOBS_COUNT, "they wait");
    kube.apply(&good).expect("applied");
    app.jobs_are(&id, &["delivered"]).await;

    let id = queue_hundred(&kube, &app, &busy).await;
    kube.kubectl(&["delete", "mailprovider", "main"]).expect("deleted");
    is_gone(&app).await;
    // They outlive a start that knows of no provider at all, too.
    app.process.kill9();
    kube.stop_api();
    let process = home.spawn();
    eventually("it listens", async || process.log().contains("listening").then_some(())).await;
    kube.start_api().await;
    app = process.ready().await.expect("it becomes ready");
    assert_eq!(app.client.get("/queue").await["depth"], JOBS_COUNT, "they wait");
    kube.apply(&good).expect("applied");
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 2 * JOBS_COUNT);

    let spare = Sink::start();
    kube.apply(&provider("spare", spare.port, &json!({"default": true}))).expect("applied");
    app.provider_is("spare", |shown| shown["healthy"] == true).await;
    let id = queue_hundred(&kube, &app, &busy).await;
    kube.kubectl(&["delete", "mailprovider", "main"]).expect("deleted");
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(spare.letters().len(), JOBS_COUNT, "they follow their chain");

    kube.apply(&good).expect("applied");
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    survives_a_storm(&kube, &app, &proxy, [&sink, &Sink::start()]).await;
}

/// Two hundred edits of `main`, as fast as 50 in a second, half of them from one server to the
/// other; and a hundred posts meanwhile.
async fn survives_a_storm(kube: &Kube, app: &App, proxy: &KubeProxy, sinks: [&Sink; 2]) {
    let letters_count = || sinks.map(|sink| sink.letters().len()).iter().sum::<usize>();
    let (letters_before, begin) = (letters_count(), Instant::now());
    let checks = async || {
        let scrape = Scrape::of(&app.client).await;
        let ended =
            |result| scrape.find("health_check_total", &[("provider", "main"), ("result", result)]);
        ["success", "failure"].map(|result| ended(result).unwrap_or_default()).iter().sum::<f64>()
    };
    let checks_before = checks().await;
    let upstream = kube.upstream();
    let editing = async {
        let mut ticks = interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0..200 {
            ticks.tick().await;
            let smtp = json!({"port": sinks[n / 2 % 2].port});
            let spec = json!({"displayName": format!("edit {n}"), "smtp": smtp});
            upstream.patch("main", &json!({"spec": spec})).await;
        }
    };
    let posting = async {
        let mut ids = Vec::new();
        for _ in 0..JOBS_COUNT {
            let mut post = hundred();
            post["recipients"] = json!(["ada@example.com"]);
            ids.push(app.notify(&post).await);
        }
        ids
    };
    let ((), ids) = tokio::join!(editing, posting);
    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
    app.provider_is("main", |shown| shown["displayName"] == "edit 199").await;
    eventually("the status is of the last edit", async || {
        let found = kube.get("mailprovider", "main")?;
        let is_told = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        (is_told && kube.condition("main", "Ready") == "True Configured").then_some(())
    })
    .await;
    let seconds = begin.elapsed().as_secs() as usize;
    assert_eq!(letters_count() - letters_before, JOBS_COUNT, "none is lost and none is sent twice");
    let all = sinks.iter().flat_map(|sink| sink.letters());
    let distinct: BTreeSet<_> = all.map(|letter| letter.message_id).collect();
    assert_eq!(distinct.len(), letters_count());
    let checks_count = (checks().await - checks_before) as usize;
    assert!(checks_count <= 3 + seconds / 2, "{checks_count} checks in {seconds} s");
    let asked = proxy.asked().into_iter().filter(|asked| begin <= asked.at);
    let writes_count = asked.filter(|asked| asked.line.contains("/main/status")).count();
    assert!(writes_count <= 3 + seconds, "{writes_count} status writes in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_held_by_the_schema_and_a_hold_is_told_without_making_the_provider_unready() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let quota = say("550 5.4.5 Daily user sending limit exceeded");
    let server = SmtpServer::start(Script::plain().on(Verb::Mail, quota)).await;
    for (limits, refusal) in [
        (json!({"messagesPerMinute": 0}), "should be greater than or equal to 1"),
        (json!({"messagesPerDay": 10_000_001}), "should be less than or equal to 10000000"),
        (json!({"maxConnections": 1001}), "should be less than or equal to 1000"),
        (json!({"messagesPerHour": 1}), "unknown field \"spec.limits.messagesPerHour\""),
    ] {
        let bad = provider("main", server.port(), &json!({"limits": limits}));
        let error = kube.dry_run(&bad).expect_err("it breaks a limit");
        assert!(error.contains(refusal), "{error}");
    }
    let limits = json!({"messagesPerMinute": 30, "messagesPerDay": 500, "maxConnections": 1});
    let spec = json!({"default": true, "limits": limits});
    kube.apply(&provider("main", server.port(), &spec)).expect("applied");
    is(&kube, "main", "Healthy", "True HealthCheckPassed").await;
    let shown = app.provider_is("main", |_| true).await;
    assert_eq!(shown["limits"], limits);
    let told = kube.kubectl(&["explain", "mailprovider.spec.limits.messagesPerDay"]);
    assert!(told.expect("explained").contains("within any 24 hours"));

    app.notify(&json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"})).await;
    let path = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].message}"#;
    eventually("the hold is told", async || {
        let message = kube.kubectl(&["get", "mailprovider", "main", path]).expect("there");
        message.starts_with("the server's quota is used up, mail waits").then_some(())
    })
    .await;
    is(&kube, "main", "Ready", "True Configured").await;
    is(&kube, "main", "Healthy", "True HealthCheckPassed").await;
}
