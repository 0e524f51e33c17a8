//! What RBAC of the chart lets the server and its callers do.

use serde_json::json;

use super::{NAMESPACE, admit, cluster, flags, render};
use crate::support::app::Home;
use crate::support::kube::Kube;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::eventually;

const ACCOUNT: &str = "system:serviceaccount:breakglass-system:breakglass-mailer";

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_of_the_chart_everything_works_and_more_is_forbidden() {
    if !need("kube") || !need("helm") {
        return;
    }
    let kube = cluster().await;
    let values = ["auth.mode=none", "webhook.enabled=false", "secretNamespaces={mail}"];
    let rendered = render(&values).expect("it renders");
    let args = flags(&admit(&kube, &rendered));
    kube.apply(&rendered).expect("applied");
    let home = Home::new(&[])
        .on_kubernetes(&kube.kubeconfig_for(NAMESPACE, "breakglass-mailer"))
        .env("POD_NAME", "breakglass-mailer-0")
        .env("POD_NAMESPACE", NAMESPACE)
        .args(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let app = home.start().await;

    let sink = Sink::start();
    for (name, namespace) in [("own", NAMESPACE), ("other", "mail")] {
        let key = "--from-literal=password=hunter2";
        kube.kubectl(&["create", "secret", "generic", "smtp", key, "-n", namespace]).expect("made");
        let provider = json!({
            "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
            "kind": "MailProvider",
            "metadata": {"name": name},
            "spec": {
                "default": name == "own",
                "smtp": {
                    "host": "127.0.0.1", "port": sink.port, "disableTLS": true, "username": "u",
                    "passwordRef": {"name": "smtp", "namespace": namespace},
                },
                "sender": {"address": "noreply@example.com"},
            },
        });
        kube.apply(&provider.to_string()).expect("applied");
        eventually(&format!("the Secret of {name} is read, and that is told"), async || {
            (kube.condition(name, "PasswordLoaded") == "True SecretLoaded").then_some(())
        })
        .await;
    }
    eventually("it leads", async || {
        let lease = kube.kubectl(&["get", "lease", "-n", NAMESPACE, "-o", "yaml"]).ok()?;
        lease.contains("holderIdentity: breakglass-mailer-0").then_some(())
    })
    .await;
    eventually("there are events", async || {
        let events = kube.kubectl(&["get", "events", "-n", "default", "-o", "name"]).ok()?;
        (2 <= events.lines().count()).then_some(())
    })
    .await;
    let log = app.process.log();
    for word in ["forbidden", "cannot watch", "cannot write", "cannot read"] {
        assert!(!log.contains(word), "{word}:\n{log}");
    }

    for (may, verb, resource, namespace) in [
        (true, "list", "mailproviders", "default"),
        (true, "list", "secrets", "mail"),
        (false, "list", "secrets", "default"),
        (false, "list", "secrets", "kube-system"),
        (false, "create", "secrets", NAMESPACE),
        (false, "update", "mailproviders", "default"),
        (false, "delete", "mailproviders", "default"),
        (false, "create", "mailproviders", "default"),
        (false, "create", "pods", NAMESPACE),
        (false, "create", "tokenreviews", "default"),
        (false, "patch", "validatingwebhookconfigurations", "default"),
    ] {
        assert_eq!(
            can(&kube, ACCOUNT, &[verb, resource, "-n", namespace]),
            may,
            "{verb} {resource}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_the_role_of_clients_may_send_and_nothing_else() {
    if !need("kube") || !need("helm") {
        return;
    }
    let kube = cluster().await;
    kube.apply(&render(&[]).expect("it renders")).expect("applied");
    for role in ["client", "operator"] {
        let bound = format!("--clusterrole=breakglass-mailer-{role}");
        let account = format!("--serviceaccount=mail:{role}");
        kube.kubectl(&["create", "clusterrolebinding", role, &bound, &account]).expect("bound");
    }
    for (verb, subresource, client, operator) in [
        ("create", "notify", true, true),
        ("get", "queue", false, true),
        ("get", "deadletters", false, true),
        ("update", "deadletters", false, true),
        ("delete", "deadletters", false, true),
        ("patch", "status", false, false),
    ] {
        let asked = [verb, "mailproviders", "--subresource", subresource];
        let may = |name: &str| can(&kube, &format!("system:serviceaccount:mail:{name}"), &asked);
        assert_eq!((may("client"), may("operator")), (client, operator), "{verb} {subresource}");
    }
}

/// Whether RBAC lets `user` do it.
fn can(kube: &Kube, user: &str, what: &[&str]) -> bool {
    kube.kubectl(&[&["auth", "can-i", "--quiet", "--as", user], what].concat()).is_ok()
}
