//! What RBAC of the chart lets the server and its callers do.

use hyper::Method;
use serde_json::{Value, json};

use super::{NAMESPACE, admit, cluster, deploy, flags, render, render_release};
use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::eventually;

/// The server as the StatefulSet of these manifests starts it, with the rights of its account.
async fn start(kube: &Kube, manifests: &str) -> (Home, App) {
    let objects = admit(kube, manifests);
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("the server");
    let name = set["metadata"]["name"].as_str().expect("a name");
    kube.apply(manifests).expect("applied");
    // Nothing carries the API server's question to a Service here, so it must not ask.
    let never = json!({"webhooks": [{
        "name": "mailprovider.validation.breakglass.t-caas.telekom.com",
        "matchConditions": [{"name": "never", "expression": "false"}],
    }]});
    let webhook = ["patch", "validatingwebhookconfiguration", name, "-p"];
    kube.kubectl(&[&webhook[..], &[&never.to_string()]].concat()).expect("patched");
    let args = flags(set);
    let mut home = Home::new(&[])
        .on_kubernetes(&kube.kubeconfig_for(NAMESPACE, name))
        .args(&args.iter().map(String::as_str).collect::<Vec<_>>());
    for (variable, field, value) in [
        ("POD_NAME", "metadata.name", format!("{name}-0").as_str()),
        ("POD_NAMESPACE", "metadata.namespace", NAMESPACE),
        ("POD_UID", "metadata.uid", "01981d2c-7d3f-7a10-8b11-3f6a2e5c9d04"),
    ] {
        assert_eq!(field_told_as(variable, set), field, "{variable}");
        home = home.env(variable, value);
    }
    let app = home.start().await;
    (home, app)
}

/// The field of the pod that a StatefulSet puts into this environment variable.
fn field_told_as<'a>(variable: &str, set: &'a Value) -> &'a Value {
    let variables = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    let mut variables = variables.expect("variables").iter();
    let found = variables.find(|found| found["name"] == variable).expect(variable);
    &found["valueFrom"]["fieldRef"]["fieldPath"]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dev_overlay_sets_up_takes_the_first_mail_of_its_notifier_and_no_others() {
    if !need("kube") {
        return;
    }
    let kube = cluster().await;
    let overlay = deploy("kustomize/overlays/dev");
    let overlay = kube.kubectl(&["kustomize", overlay.to_str().expect("UTF-8")]).expect("rendered");
    let (_home, app) = start(&kube, &overlay).await;
    let sink = Sink::start();
    let here = json!({"spec": {"smtp": {"host": "127.0.0.1", "port": sink.port}}}).to_string();
    kube.kubectl(&["patch", "mailprovider", "mailpit", "--type=merge", "-p", &here]).expect("ok");
    eventually("the provider is ready", async || {
        (kube.condition("mailpit", "Ready") == "True Configured").then_some(())
    })
    .await;

    let post = async |account: &str| {
        let token = kube.token(NAMESPACE, account, &["breakglass-mailer"]);
        let authorization = format!("Bearer {token}");
        let mail = json!({"recipients": ["oncall@example.com"], "subject": "s", "text": "t"});
        let headers = [("authorization", authorization.as_str())];
        app.client.call(Method::POST, "/notify", &headers, Some(&mail)).await.expect("an answer")
    };
    let accepted = post("notifier").await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(post("breakglass-mailer").await.status, 403, "its own account is no caller");
    eventually("the mail is delivered", async || (sink.letters().len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_of_the_chart_everything_works_and_more_is_forbidden() {
    everything_works_and_more_is_forbidden("breakglass-mailer", "breakglass-mailer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_another_name_has_the_same_rights() {
    everything_works_and_more_is_forbidden("prod", "prod-breakglass-mailer").await;
}

async fn everything_works_and_more_is_forbidden(release: &str, server: &str) {
    if !need("kube") || !need("helm") {
        return;
    }
    let kube = cluster().await;
    let values = ["auth.mode=none", "secretNamespaces={mail}"];
    let rendered = render_release(release, &values).expect("it renders");
    let (_home, app) = start(&kube, &rendered).await;

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
    let holder = format!("holderIdentity: {server}-0");
    for (what, args, wanted) in [
        ("it leads", vec!["get", "lease", "-n", NAMESPACE, "-o", "yaml"], holder.as_str()),
        ("it tells", vec!["get", "events", "-n", "default"], "mailprovider/other"),
        (
            "the API server trusts its webhook",
            vec!["get", "validatingwebhookconfiguration", "-o", "yaml"],
            "caBundle: ",
        ),
    ] {
        eventually(what, async || kube.kubectl(&args).ok()?.contains(wanted).then_some(())).await;
    }
    let log = app.process.log();
    for word in ["forbidden", "cannot watch", "cannot write", "cannot read"] {
        assert!(!log.contains(word), "{word}:\n{log}");
    }

    let user = format!("system:serviceaccount:{NAMESPACE}:{server}");
    let certificate = format!("secrets/{server}-webhook-cert");
    for (may, verb, resource, namespace) in [
        (true, "list", "mailproviders", "default"),
        (true, "list", "secrets", "mail"),
        (false, "list", "secrets", "default"),
        (false, "list", "secrets", "kube-system"),
        (false, "create", "secrets", NAMESPACE),
        (true, "update", &certificate, NAMESPACE),
        (false, "update", "secrets", NAMESPACE),
        (false, "update", "mailproviders", "default"),
        (false, "delete", "mailproviders", "default"),
        (false, "create", "mailproviders", "default"),
        (false, "create", "pods", NAMESPACE),
        (false, "create", "tokenreviews", "default"),
        (false, "patch", "validatingwebhookconfigurations", "default"),
    ] {
        assert_eq!(can(&kube, &user, &[verb, resource, "-n", namespace]), may, "{verb} {resource}");
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
