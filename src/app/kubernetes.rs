//! `serve --kubernetes`: the providers come from the API server, and their status goes there.

use std::sync::Arc;

use anyhow::Context;
use futures_util::FutureExt;
use tokio::sync::watch;
use uuid::Uuid;

use super::webhook::Webhook;
use super::{App, Mode};
use crate::config::{Serve, own_namespace};
use crate::http::{Auth, Authorizer};
use crate::k8s::authorize::Reviewer;
use crate::k8s::client::Client;
use crate::k8s::volume::{self, Pod};
use crate::k8s::{client, lease, status, watch as resources};

/// What has to be there before the store is opened.
pub(super) struct Kubernetes {
    client: Client,
    webhook: Webhook,
}

impl Kubernetes {
    /// A client for the API server of this pod, or of the current kubeconfig, and the socket of
    /// the webhook. Nothing is asked yet.
    pub(super) async fn open(serve: &Serve) -> anyhow::Result<Self> {
        let client = client::client()
            .await
            .context("--kubernetes needs a service account or a kubeconfig")?;
        Ok(Self { client, webhook: Webhook::open(&serve.webhook).await? })
    }

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
        let Self { client, webhook } = self;
        let namespace = own_namespace(serve.namespace.clone());
        let (registry, stop) = (&app.registry, &app.stop);
        let (leading, leads) = watch::channel(None);
        let (seeing, seen) = watch::channel(None);
        let (listing, listed) = watch::channel(false);
        let source = resources::Source {
            client: client.clone(),
            namespace: namespace.clone(),
            secret_namespaces: serve.secret_namespaces.clone(),
        };
        webhook.start(app, &serve.webhook, source.clone());
        app.tasks.spawn(resources::watch(source, registry.clone(), seeing, stop.clone()));
        let pod = variable("POD_NAME");
        let identity =
            pod.clone().unwrap_or_else(|| format!("breakglass-mailer-{}", Uuid::now_v7()));
        let clock = app.clock;
        let now = move || clock.now();
        let electing =
            lease::elect(client.clone(), namespace.clone(), identity, leading, now, stop.clone());
        app.tasks.spawn(electing);
        if let Some(pod) = pod {
            let pod = Pod { namespace, name: pod, uid: variable("POD_UID") };
            let metrics = app.metrics.clone();
            let changed = move || metrics.store_changed();
            let store = app.store_name.clone();
            app.tasks.spawn(volume::remember(client.clone(), pod, store, changed, stop.clone()));
        }
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
}

/// What the downward API tells of the pod.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
