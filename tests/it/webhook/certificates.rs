//! The certificate that the webhook shows: mounted by others, or kept by the replicas themselves.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::{certificate, configure, is_asked, start_mounted, webhook_of};
use crate::support::app::{App, Home};
use crate::support::kube::Kube;
use crate::support::need;
use crate::support::wait::eventually;

/// Named after the Service.
const SECRET: &str = "localhost-cert";

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_certificate_is_read_again_when_it_changes_and_a_broken_one_is_not_taken() {
    let Some((kube, home, app, first)) = start_mounted().await else { return };
    std::fs::write(home.path("certificate/tls.crt"), "broken").expect("written");
    eventually("it is named", async || {
        app.process.log().contains("tls.crt holds no PEM certificate").then_some(())
    })
    .await;
    assert_eq!(served(&app, &first.authority).await, Some(only(&first.chain)));

    let second = certificate(30);
    second.write(&home.path("certificate"));
    let new = eventually("the new one is shown", async || served(&app, &second.authority).await);
    assert_eq!(new.await, only(&second.chain));
    configure(&kube, &app, Some(&second.authority));
    is_asked(&kube).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_certificate_that_is_broken_from_the_start_is_told_at_once() {
    let home = Home::new(&[]);
    let kubeconfig = home.path("kubeconfig");
    let cluster = json!({"server": "https://127.0.0.1:1"});
    let config = json!({
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    });
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let folder = home.path("certificate");
    let home = home
        .on_kubernetes(&kubeconfig)
        .args(&["--webhook-cert-dir", folder.to_str().expect("UTF-8")]);
    let refusal = home.try_start().await.err().expect("it does not start");
    assert!(refusal.log.contains("certificate/tls.crt: No such file"), "{}", refusal.log);
}

/// What the Secret and the configuration hold.
fn kept(kube: &Kube) -> Option<(String, String)> {
    let secret = kube.get("secret", SECRET)?;
    let configuration = kube.get("validatingwebhookconfiguration", "breakglass-mailer")?;
    let trusted = &configuration["webhooks"][0]["clientConfig"]["caBundle"];
    let text = |value: &Value| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let authorities = text(&secret["data"]["ca.crt"])?;
    let is_trusted = text(trusted)? == authorities;
    is_trusted.then_some((text(&secret["data"]["tls.crt"])?, authorities))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_their_own_is_made_once_trusted_and_renewed_by_the_replicas() {
    if !need("kube") {
        return;
    }
    let kube = Kube::start().await;
    kube.install_crds(&["mailproviders"]).await;
    let home = |pod: &str| {
        Home::new(&[])
            .on_kubernetes(&kube.kubeconfig())
            .env("POD_NAME", pod)
            .args(&["--webhook-service", "localhost"])
    };
    let homes = [home("mailer-0"), home("mailer-1")];
    let replicas = [homes[0].start().await, homes[1].start().await];
    eventually("its absence is told", async || {
        let told = "there is no ValidatingWebhookConfiguration breakglass-mailer: apply it";
        replicas[0].process.log().contains(told).then_some(())
    })
    .await;

    configure(&kube, &replicas[0], None);
    is_asked(&kube).await;
    let (first, authorities) = eventually("the Secret is trusted", async || kept(&kube)).await;
    for replica in &replicas {
        eventually("each shows it", async || served(replica, &authorities).await).await;
        assert_eq!(served(replica, &authorities).await, Some(only(&first)));
    }

    let ending = certificate(100);
    let part = |text: &str| STANDARD.encode(text);
    let data = json!({"data": {
        "tls.crt": part(&ending.chain),
        "tls.key": part(&ending.key),
        "ca.crt": part(&ending.authority),
    }});
    kube.kubectl(&["patch", "secret", SECRET, "-p", &data.to_string()]).expect("patched");
    let what = "it is renewed, and the one before it still trusted";
    let (renewed, authorities) = eventually(what, async || {
        let (renewed, authorities) = kept(&kube)?;
        let is_new = renewed != first && renewed != ending.chain;
        (is_new && authorities.contains(ending.authority.trim())).then_some((renewed, authorities))
    })
    .await;
    for replica in &replicas {
        eventually("each shows the new one", async || {
            (served(replica, &authorities).await? == only(&renewed)).then_some(())
        })
        .await;
    }
    is_asked(&kube).await;

    kube.kubectl(&["delete", "secret", SECRET]).expect("deleted");
    kube.kubectl(&["delete", "validatingwebhookconfiguration", "--all"]).expect("deleted");
    configure(&kube, &replicas[1], None);
    eventually("both are made again", async || kept(&kube)).await;
    is_asked(&kube).await;
    for replica in replicas {
        replica.stop().await;
    }
}

/// The certificate that `app` shows, in base64, if it is for localhost and from one of `authorities`.
async fn served(app: &App, authorities: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::pem_slice_iter(authorities.as_bytes());
    roots.add_parsable_certificates(pem.map(|one| one.expect("PEM")));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(webhook_of(app)).await.expect("connected");
    let name = "localhost".try_into().expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
    Some(STANDARD.encode(shown))
}

/// The certificate of a PEM text, as [`served`] tells it.
fn only(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect()
}
