//! An API server that is away, ill or cut off, when a server starts and while it runs.
//!
//! Each fault meets a server of its own, through a proxy of its own, on one API server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{is, provider, to_ada};
use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::kube_proxy::{Act, Asked, KubeProxy, Then};
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::smtp::Certificate;
use crate::support::wait::{LIMIT, eventually, within};

/// What is wrong.
enum Fault {
    /// Nobody listens.
    Refused,
    /// No packet arrives any more, and no connection that there was comes back.
    Silent,
    /// The certificate is from someone else.
    Untrusted,
    /// Everything that is asked meets this.
    Everything(Act),
    /// The lists are good, and each watch meets this.
    Watches(Act),
    /// What is asked of a kind that belongs to another controller meets this.
    Foreign(Act),
}

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];
const LATER: &[(&str, &str)] = &[("content-type", "application/json"), ("retry-after", "3600")];

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "code": code, "message": "no"})
}

fn says(code: u16) -> Act {
    let headers = if code == 429 { LATER } else { HEADERS };
    Act::Say(code, headers, status(code).to_string(), Then::End)
}

fn sends(body: impl Into<String>, then: Then) -> Act {
    Act::Say(200, HEADERS, body.into(), then)
}

fn faults() -> Vec<(&'static str, Fault)> {
    use Fault::{Everything, Foreign, Refused, Silent, Untrusted, Watches};
    let gone = json!({"type": "ERROR", "object": status(410)});
    let half = r#"{"type": "MODIFIED", "object": {"kind": "MailProv"#;
    vec![
        ("refused", Refused),
        ("silent", Silent),
        ("untrusted", Untrusted),
        ("hangs", Everything(Act::Hang)),
        ("too-many", Everything(says(429))),
        ("failing", Everything(says(500))),
        ("unavailable", Everything(says(503))),
        ("garbage", Everything(sends("<html>please log in</html>", Then::End))),
        ("endless", Everything(sends("x".repeat(1 << 16), Then::Repeat))),
        ("slow", Everything(Act::PassAfter(Duration::from_secs(1)))),
        ("ends", Watches(sends("", Then::End))),
        ("breaks", Watches(sends(half, Then::Break))),
        ("half", Watches(sends(half, Then::Stay))),
        ("endless-line", Watches(sends("x".repeat(1 << 16), Then::Repeat))),
        ("expired", Watches(sends(format!("{gone}\n"), Then::Stay))),
        ("gone", Watches(says(410))),
        ("foreign", Foreign(says(500))),
    ]
}

impl Fault {
    async fn begin(&self, proxy: &mut KubeProxy) {
        match self {
            Self::Refused => proxy.refuse().await,
            Self::Silent => {
                proxy.follow(|_| Act::Hang);
                return proxy.silence();
            }
            Self::Untrusted => proxy.show(Certificate::UnknownCa),
            Self::Everything(act) => {
                let act = act.clone();
                proxy.follow(move |_| act.clone());
            }
            Self::Watches(act) => {
                let act = act.clone();
                proxy.follow(move |asked| if asked.is_watch() { act.clone() } else { Act::Pass });
            }
            Self::Foreign(act) => {
                let act = act.clone();
                let is_foreign = |asked: &Asked| asked.line.contains("/breakglassescalations");
                proxy.follow(move |asked| if is_foreign(asked) { act.clone() } else { Act::Pass });
            }
        }
        // What was begun before would go on.
        proxy.cut();
    }

    /// What is under way goes on as it was.
    async fn end(&self, proxy: &mut KubeProxy) {
        if matches!(self, Self::Refused) {
            proxy.listen();
        }
        proxy.show(Certificate::Good);
        proxy.follow(|_| Act::Pass);
    }

    /// Whether no call gets its answer.
    fn is_total(&self) -> bool {
        !matches!(self, Self::Watches(_) | Self::Foreign(_) | Self::Everything(Act::PassAfter(_)))
    }
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Whether it leads, by its own log.
fn leads(log: &str) -> bool {
    let told = log.lines().rfind(|line| line.contains("the leader changed"));
    told.is_some_and(|line| line.contains("\"leads\":true"))
}

/// The most memory that it had until now.
fn memory_mib_max(app: &App) -> usize {
    let path = format!("/proc/{}/status", app.process.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") >> 10
}

/// Nothing is asked in a hurry: five watches and the Lease, each of which may come at once and
/// then once in a second.
fn is_patient(name: &str, asked: &[Asked], since: Instant) {
    let (seconds, met) = (since.elapsed().as_secs() as usize, asked.iter());
    let count = met.filter(|asked| since <= asked.at).count();
    assert!(count <= 60 + 20 * seconds, "{name}: {count} calls in {seconds} s: {:?}", asked.last());
}

/// Starts a server that meets the fault at once.
async fn start(name: &str, fault: &Fault, home: &Home, proxy: &mut KubeProxy) -> App {
    fault.begin(proxy).await;
    let begin = Instant::now();
    let process = home.spawn();
    eventually("it listens", async || process.log().contains("listening").then_some(())).await;
    if fault.is_total() {
        let why = format!("{name}: it has met the fault");
        let met = async || {
            let is_met = !proxy.asked().is_empty() || process.log().contains("cannot watch");
            is_met.then_some(())
        };
        eventually(&why, met).await;
        assert!(!process.log().contains("are taken over"), "{name}: {}", process.log());
        fault.end(proxy).await;
    }
    // Within the limit, and without having exited.
    let app = process.ready().await.expect("it becomes ready");
    is_patient(name, &proxy.asked(), begin);
    if !fault.is_total() {
        fault.end(proxy).await;
    }
    app
}

/// One server's life. The others wait for each other twice: once the fault of each has begun,
/// there is an edit.
async fn outlives(kube: &Kube, name: &str, fault: Fault, all: &Barrier) {
    let mut proxy = KubeProxy::start(kube.upstream()).await;
    let home = Home::new(&[]);
    let kubeconfig = proxy.kubeconfig(&home.path("."));
    let home = home.on_kubernetes(&kubeconfig).args(&["--namespace", name]);
    let app = start(name, &fault, &home, &mut proxy).await;
    app.provider_is("relay", |shown| shown["healthy"] == true).await;
    let what = format!("{name}: it leads");
    eventually(&what, async || leads(&app.process.log()).then_some(())).await;

    fault.begin(&mut proxy).await;
    let begin = Instant::now();
    if all.wait().await.is_leader() {
        kube.patch("mailprovider", "relay", r#"{"spec": {"displayName": "edited"}}"#);
    }
    all.wait().await;
    let id = app.notify(&to_ada()).await;
    app.jobs_are(&id, &["delivered"]).await;
    let renewals_count = || {
        let asked = proxy.asked().into_iter().filter(|asked| begin <= asked.at);
        asked
            .filter(|asked| asked.line.starts_with("PATCH") && asked.line.contains("/leases/"))
            .count()
    };
    if fault.is_total() {
        let what = format!("{name}: it leads no longer");
        eventually(&what, async || (!leads(&app.process.log())).then_some(())).await;
    } else {
        let what = format!("{name}: it goes on to lead");
        eventually(&what, async || (4 <= renewals_count()).then_some(())).await;
        assert!(leads(&app.process.log()), "{name}");
    }
    is_patient(name, &proxy.asked(), begin);
    let id = app.notify(&to_ada()).await;
    app.jobs_are(&id, &["delivered"]).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(app.client.status(path).await, Some(200), "{name}: {path}");
    }

    fault.end(&mut proxy).await;
    let what = format!("{name}: all is right again");
    within(LIMIT, &what, async || {
        let shown = app.client.get("/providers").await;
        let is_edited = shown["items"][0]["displayName"] == "edited";
        (is_edited && leads(&app.process.log())).then_some(())
    })
    .await;
    is_patient(name, &proxy.asked(), begin);
    assert!(memory_mib_max(&app) < 256, "{name}: {} MiB", memory_mib_max(&app));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_on_while_the_api_server_is_ill_and_all_is_right_within_a_minute_after() {
    if !need("kube") {
        return;
    }
    let kube = Kube::start().await;
    kube.install_crds(&super::ALL).await;
    let sink = Sink::start();
    kube.apply(&provider("relay", sink.port, &json!({"default": true}))).expect("applied");
    let faults = faults();
    let namespaces: Vec<_> = faults.iter().map(|(name, _)| namespace(name)).collect();
    let namespaces = json!({"apiVersion": "v1", "kind": "List", "items": namespaces});
    kube.apply(&namespaces.to_string()).expect("applied");
    let all = Barrier::new(faults.len());
    let count = faults.len();
    join_all(faults.into_iter().map(|(name, fault)| outlives(&kube, name, fault, &all))).await;
    assert_eq!(sink.letters().len(), 2 * count);
    is(&kube, "relay", "Ready", "True Configured").await;
}
