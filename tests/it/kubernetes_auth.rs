//! `--auth kubernetes`: who may do what is what a real API server says.

use hyper::Method;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use crate::support::app::{App, Home};
use crate::support::client::Answer;
use crate::support::kube::Kube;
use crate::support::need;

const AUDIENCE: &str = "breakglass-mailer";
const NOWHERE: &str = "/deadletters/01a205c3-2dd0-7680-b861-77841a510462";

/// A ServiceAccount for each name, which may do what these rules say.
fn accounts(kube: &Kube, rules: &[(&str, &[(&str, &str)])]) {
    for (account, allowed) in rules {
        let rules: Vec<Value> = allowed
            .iter()
            .map(|(verb, subresource)| {
                json!({
                    "apiGroups": ["breakglass.t-caas.telekom.com"],
                    "resources": [format!("mailproviders/{subresource}")],
                    "verbs": [verb],
                })
            })
            .collect();
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount",
             "metadata": {"name": account, "namespace": "default"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
             "metadata": {"name": account}, "rules": rules},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
             "metadata": {"name": account},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                         "name": account},
             "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}]},
        ]});
        kube.apply(&objects.to_string()).expect("applied");
    }
}

async fn call(app: &App, method: &Method, path: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    // No recipients: a caller who may post is told what is wrong with it, and nothing is accepted.
    let body = (*method == Method::POST && path == "/notify").then(|| json!({"subject": "s"}));
    app.client.call(method.clone(), path, &headers, body.as_ref()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_may_do_what_rbac_says_and_a_denial_names_what_is_missing() {
    if !need("kube") {
        return;
    }
    let mut kube = Kube::start().await;
    kube.install_crds(&["mailproviders"]).await;
    accounts(
        &kube,
        &[
            ("sender", &[("create", "notify")]),
            ("viewer", &[("get", "queue"), ("get", "deadletters")]),
            (
                "operator",
                &[("delete", "queue"), ("update", "deadletters"), ("delete", "deadletters")],
            ),
            ("nobody", &[]),
        ],
    );
    let home = Home::new(&[]).on_kubernetes(&kube.kubeconfig()).args(&[
        "--auth",
        "kubernetes",
        "--log-level",
        "trace",
    ]);
    let app = home.start().await;
    let token = |account: &str| kube.token("default", account, &[AUDIENCE]);
    let (sender, viewer, operator) = (token("sender"), token("viewer"), token("operator"));

    let retry = format!("{NOWHERE}/retry");
    let notification = NOWHERE.replace("deadletters", "notifications");
    let calls = [
        (Method::POST, "/notify", &sender, "create mailproviders/notify"),
        (Method::GET, "/queue", &viewer, "get mailproviders/queue"),
        (Method::GET, "/jobs", &viewer, "get mailproviders/queue"),
        (Method::GET, "/providers", &viewer, "get mailproviders/queue"),
        (Method::GET, &notification, &viewer, "get mailproviders/queue"),
        (Method::GET, "/deadletters", &viewer, "get mailproviders/deadletters"),
        (Method::HEAD, NOWHERE, &viewer, "get mailproviders/deadletters"),
        (Method::DELETE, &notification, &operator, "delete mailproviders/queue"),
        (Method::POST, "/deadletters/retry", &operator, "update mailproviders/deadletters"),
        (Method::POST, &retry, &operator, "update mailproviders/deadletters"),
        (Method::DELETE, NOWHERE, &operator, "delete mailproviders/deadletters"),
    ];
    let nobody = token("nobody");
    for (method, path, allowed, missing) in calls {
        let answer = call(&app, &method, path, allowed).await;
        assert!(![401, 403, 503].contains(&answer.status), "{method} {path}: {}", answer.body);
        for denied in [&sender, &viewer, &operator, &nobody].iter().filter(|t| ***t != *allowed) {
            let answer = call(&app, &method, path, denied).await;
            assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
            if method != Method::HEAD {
                let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
                assert!(detail.contains(&format!("may not {missing}")), "{detail}");
                assert!(detail.starts_with("system:serviceaccount:default:"), "{detail}");
            }
        }
    }

    let other_audience = kube.token("default", "sender", &[]);
    for wrong in [other_audience.as_str(), "garbage", &format!("{sender}x")] {
        assert_eq!(call(&app, &Method::POST, "/notify", wrong).await.status, 401);
    }
    let fresh = token("sender");
    kube.stop_api();
    let answer = call(&app, &Method::POST, "/notify", &fresh).await;
    assert_eq!(
        (answer.status, &answer.headers["retry-after"]),
        (503, &HeaderValue::from_static("5"))
    );
    assert_eq!(answer.json()["type"], "/problems/authentication-unavailable");
    assert_eq!(app.client.status("/livez").await, Some(200));
    for token in [&sender, &viewer, &operator, &nobody, &fresh] {
        assert!(!app.process.log().contains(token.as_str()), "a token is in the log");
    }
}
