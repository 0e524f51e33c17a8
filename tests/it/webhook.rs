//! The admission webhook, asked by a real API server.

mod cases;
mod certificates;

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::need;
use crate::support::wait::eventually;
use cases::{Case, Expected, cases};

const PATH: &str = "/validate-breakglass-t-caas-telekom-com-v1alpha1-mailprovider";
const NAME: &str = "mailprovider.validation.breakglass.t-caas.telekom.com";
const HOUR: Duration = Duration::from_hours(1);

/// A certificate for localhost, and the authority that it is from.
struct Certificate {
    authority: String,
    chain: String,
    key: String,
}

fn certificate(days_left: u32) -> Certificate {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("an authority");
    // The Service of the tests is named localhost, in the namespace default.
    let names = ["localhost", "localhost.default.svc"].map(str::to_owned);
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + days_left * 24 * HOUR).into();
    let key = KeyPair::generate().expect("a key");
    let signed = params.signed_by(&key, &authority).expect("a certificate");
    Certificate { authority: authority.pem(), chain: signed.pem(), key: key.serialize_pem() }
}

impl Certificate {
    fn write(&self, folder: &Path) {
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect(name);
        write("tls.key", &self.key);
        write("tls.crt", &self.chain);
    }
}

fn webhook_of(app: &App) -> String {
    app.process.address_of("listening for admission reviews").expect("the address in the log")
}

/// Has the API server ask `app`. Without an authority the `caBundle` stays as it is.
fn configure(kube: &Kube, app: &App, authority: Option<&str>) {
    let address = webhook_of(app);
    let port = address.rsplit_once(':').expect("a port").1;
    let mut client = json!({"url": format!("https://localhost:{port}{PATH}")});
    if let Some(authority) = authority {
        client["caBundle"] = STANDARD.encode(authority).into();
    }
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "breakglass-mailer"},
        "webhooks": [{
            "name": NAME,
            "clientConfig": client,
            "rules": [{
                "apiGroups": ["breakglass.t-caas.telekom.com"],
                "apiVersions": ["v1alpha1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["mailproviders"],
            }],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
        }],
    });
    kube.apply(&configuration.to_string()).expect("applied");
}

fn provider(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
        "kind": "MailProvider",
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn relay(host: &str, is_default: bool) -> Value {
    json!({
        "default": is_default,
        "disabled": true,
        "smtp": {"host": host, "port": 25},
        "sender": {"address": "a@example.com"},
    })
}

/// What kubectl said to `spec`, which is not stored: nothing when there was not even a warning.
fn complaint(kube: &Kube, spec: &Value) -> Option<String> {
    let manifest = provider("tried", spec).to_string();
    kube.dry_run(&manifest).err()
}

/// Waits until the API server asks the webhook and believes the answer.
async fn is_asked(kube: &Kube) {
    eventually("the webhook refuses", async || {
        let said = complaint(kube, &relay("no host", false))?;
        said.contains(&format!("admission webhook \"{NAME}\" denied the request: ")).then_some(())
    })
    .await;
}

/// An API server with the definition, and our server on it with a mounted certificate.
async fn start_mounted() -> Option<(Kube, Home, App, Certificate)> {
    if !need("kube") {
        return None;
    }
    let kube = Kube::start().await;
    kube.install_crds(&["mailproviders"]).await;
    let home = Home::new(&[]).on_kubernetes(&kube.kubeconfig());
    let (folder, mounted) = (home.path("certificate"), certificate(30));
    std::fs::create_dir(&folder).expect("a folder");
    mounted.write(&folder);
    let home = home.args(&["--webhook-cert-dir", folder.to_str().expect("UTF-8")]);
    let app = home.start().await;
    configure(&kube, &app, Some(&mounted.authority));
    is_asked(&kube).await;
    Some((kube, home, app, mounted))
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_and_webhook_together_let_only_good_specs_in_and_warn_of_the_doubtful() {
    let Some((kube, _home, app, _)) = start_mounted().await else { return };
    // Someone who never shakes hands holds up nobody.
    let _silent = TcpStream::connect(webhook_of(&app)).expect("connected");
    let denied = format!("admission webhook \"{NAME}\" denied the request: ");
    for Case { title, spec, expected } in cases() {
        let said = complaint(&kube, &spec);
        let is_denied = said.as_ref().is_some_and(|said| said.contains(&denied));
        let contains = |text| said.as_ref().is_some_and(|said| said.contains(text));
        let is_right = match expected {
            Expected::Allowed => said.is_none(),
            Expected::Warned(text) => contains("Warning: ") && contains(text) && !is_denied,
            Expected::RefusedBySchema(text) => contains(text) && !is_denied,
            Expected::RefusedByWebhook(text) => contains(text) && is_denied,
        };
        assert!(is_right, "{title}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_default_is_let_in_and_it_may_be_applied_again() {
    let Some((kube, _home, _app, _)) = start_mounted().await else { return };
    let both = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [provider("first", &relay("a", true)), provider("second", &relay("b", true))],
    });
    let refused = kube.apply(&both.to_string()).expect_err("the second one is refused");
    assert!(
        refused.contains(&format!(
            "Error from server: error when creating \"STDIN\": admission webhook \"{NAME}\" denied \
             the request: spec.default: Forbidden: only one MailProvider can be marked as \
             default, and first is: "
        )),
        "{refused}"
    );
    assert!(kube.get("mailprovider", "first").is_some());
    assert!(kube.get("mailprovider", "second").is_none());
    for again in [relay("a", true), relay("c", true)] {
        kube.apply(&provider("first", &again).to_string()).expect("applied again");
    }
    kube.apply(&provider("second", &relay("b", false)).to_string()).expect("no default");
    kube.apply(&provider("second", &relay("b", true)).to_string()).expect_err("made a default");
    kube.apply(&provider("first", &relay("a", false)).to_string()).expect("no default any more");
    kube.apply(&provider("second", &relay("b", true)).to_string()).expect("the only one");
    kube.kubectl(&["delete", "mailproviders", "--all"]).expect("deleted");
}
