//! The admission webhook of `serve --kubernetes`: its socket, its certificate and its verdict.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{App, bind};
use crate::config;
use crate::http::{server, webhook};
use crate::k8s::watch::Source;
use crate::k8s::{admission, managed, mounted};

/// A socket that nobody answers on yet.
pub(super) struct Webhook {
    listener: TcpListener,
    tls: TlsAcceptor,
    /// Where the certificate comes from that `tls` shows.
    certificate: watch::Sender<Option<Arc<CertifiedKey>>>,
}

impl Webhook {
    /// Opens the socket, and reads the certificate if it is mounted.
    pub(super) async fn open(flags: &config::Webhook) -> anyhow::Result<Self> {
        let listener = bind(flags.webhook_listen, "--webhook-listen").await?;
        let mounted = flags.webhook_cert_dir.as_deref().map(mounted::read).transpose();
        let mounted = mounted.map_err(|error| anyhow!(error))?;
        let (certificate, shown) = watch::channel(mounted.map(Arc::new));
        let tls = webhook::acceptor(shown).context("TLS is not available")?;
        Ok(Self { listener, tls, certificate })
    }

    /// Starts to answer, and to keep the certificate up to date.
    pub(super) fn start(self, app: &App, flags: &config::Webhook, source: Source) {
        let (certificate, stop) = (self.certificate, app.stop.clone());
        match &flags.webhook_cert_dir {
            Some(folder) => {
                app.tasks.spawn(mounted::follow(folder.clone(), certificate, stop));
            }
            None => {
                let webhook = managed::Webhook {
                    client: source.client.clone(),
                    namespace: source.namespace.clone(),
                    service: flags.webhook_service.clone(),
                    configuration: flags.webhook_configuration.clone(),
                };
                app.tasks.spawn(managed::keep(webhook, certificate, stop));
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
        let (limits, closing) = (webhook::LIMITS, app.closing.clone());
        app.tasks.spawn(server::serve_tls(self.listener, self.tls, router, limits, closing));
    }
}
