//! `serve --kubernetes`: the providers come from the API server, their status goes there, and its
//! admission webhook is here.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{App, Mode, bind};
use crate::config::{Serve, own_namespace};
use crate::http::{Auth, Authorizer, server, webhook};
use crate::k8s::authorize::Reviewer;
use crate::k8s::client::Client;
use crate::k8s::managed::Webhook;
use crate::k8s::{admission, lease, managed, mounted, status, watch as resources};

/// What has to be there before the store is opened.
pub(super) struct Kubernetes {
    client: Client,
    /// Where the webhook listens.
    listener: TcpListener,
    certificate: Certificate,
}

/// The certificate to serve the webhook with; its owner keeps it up to date.
struct Certificate {
    keeping: watch::Sender<Option<Arc<rustls::sign::CertifiedKey>>>,
    tls: TlsAcceptor,
}

/// A client for the API server of this pod, or of the current kubeconfig, and the socket of the
/// webhook. Nothing is asked yet.
pub(super) async fn open(serve: &Serve) -> anyhow::Result<Kubernetes> {
    let client = crate::k8s::client::client()
        .await
        .context("--kubernetes needs a service account or a kubeconfig")?;
    let listener = bind(serve.webhook.webhook_listen, "--webhook-listen").await?;
    let folder = serve.webhook.webhook_cert_dir.as_deref();
    let read = folder.map(mounted::read).transpose().map_err(|error| anyhow!(error))?;
    let (keeping, certificate) = watch::channel(read.map(Arc::new));
    let tls = webhook::acceptor(certificate).context("TLS is not available")?;
    Ok(Kubernetes { client, listener, certificate: Certificate { keeping, tls } })
}

impl Kubernetes {
    /// Lets the API server say who may call.
    pub(super) fn authorizer(&self, serve: &Serve) -> Authorizer {
        let reviewer = Arc::new(Reviewer::new(self.client.clone(), serve.audience.clone()));
        Arc::new(move |token, act| {
            let reviewer = reviewer.clone();
            async move { reviewer.authorize(&token, act).await }.boxed()
        })
    }

    /// Starts to watch, to lead, to tell and to judge.
    pub(super) fn start(self, app: &App, serve: &Serve, auth: Auth) -> Mode {
        let namespace = own_namespace(serve.namespace.clone());
        let client = self.client.clone();
        let (registry, stop) = (&app.registry, &app.stop);
        let (leading, leads) = watch::channel(false);
        let (seeing, seen) = watch::channel(None);
        let (listing, listed) = watch::channel(false);
        let source = resources::Source {
            client: client.clone(),
            namespace: namespace.clone(),
            secret_namespaces: serve.secret_namespaces.clone(),
        };
        self.judge(app, serve, source.clone());
        app.tasks.spawn(resources::watch(source, registry.clone(), seeing, stop.clone()));
        let electing = lease::elect(client.clone(), namespace, identity(), leading, stop.clone());
        app.tasks.spawn(electing);
        let telling =
            status::tell(client, registry.clone(), seen.clone(), leads.clone(), stop.clone());
        app.tasks.spawn(telling);
        let mut seen = seen;
        app.tasks.spawn(async move {
            if seen.wait_for(Option::is_some).await.is_ok() {
                listing.send_replace(true);
            }
        });
        Mode { leads, listed, ..Mode::new(auth) }
    }

    /// Serves the webhook, and keeps its certificate up to date.
    fn judge(self, app: &App, serve: &Serve, source: resources::Source) {
        let Certificate { keeping, tls } = self.certificate;
        match &serve.webhook.webhook_cert_dir {
            Some(folder) => {
                app.tasks.spawn(mounted::follow(folder.clone(), keeping, app.stop.clone()));
            }
            None => {
                let webhook = Webhook {
                    client: source.client.clone(),
                    namespace: source.namespace.clone(),
                    service: serve.webhook.webhook_service.clone(),
                    configuration: serve.webhook.webhook_configuration.clone(),
                };
                app.tasks.spawn(managed::keep(webhook, keeping, app.stop.clone()));
            }
        }
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "listening for admission reviews");
        }
        let source = Arc::new(source);
        let router = webhook::router(admission::PATH, move |review| {
            let source = source.clone();
            async move { admission::answer(&source, review).await }
        });
        let closing = app.closing.clone();
        let serving = server::serve_tls(self.listener, tls, router, webhook::LIMITS, closing);
        app.tasks.spawn(serving);
    }
}

/// The name of the pod, else one of our own.
fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    pod.unwrap_or_else(|| format!("breakglass-mailer-{}", uuid::Uuid::now_v7()))
}
