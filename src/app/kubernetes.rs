//! `serve --kubernetes`: the providers come from the API server, and their status goes there.

use std::sync::Arc;

use anyhow::Context;
use futures_util::FutureExt;
use tokio::sync::watch;

use super::{App, Mode};
use crate::config::{Serve, own_namespace};
use crate::http::{Auth, Authorizer};
use crate::k8s::authorize::Reviewer;
use crate::k8s::client::Client;
use crate::k8s::{lease, status, watch as resources};

/// A client for the API server of this pod, or of the current kubeconfig. Nothing is asked yet.
pub(super) async fn client() -> anyhow::Result<Client> {
    crate::k8s::client::client()
        .await
        .context("--kubernetes needs a service account or a kubeconfig")
}

/// Starts to watch, to lead and to tell.
pub(super) fn start(app: &App, client: Client, serve: &Serve, auth: Auth) -> Mode {
    let namespace = own_namespace(serve.namespace.clone());
    let (registry, stop) = (&app.registry, &app.stop);
    let (leading, leads) = watch::channel(false);
    let (seeing, seen) = watch::channel(None);
    let (listing, listed) = watch::channel(false);
    let source = resources::Source {
        client: client.clone(),
        namespace: namespace.clone(),
        secret_namespaces: serve.secret_namespaces.clone(),
    };
    app.tasks.spawn(resources::watch(source, registry.clone(), seeing, stop.clone()));
    let identity = identity();
    app.tasks.spawn(lease::elect(client.clone(), namespace, identity, leading, stop.clone()));
    let telling = status::tell(client, registry.clone(), seen.clone(), leads.clone(), stop.clone());
    app.tasks.spawn(telling);
    let mut seen = seen;
    app.tasks.spawn(async move {
        if seen.wait_for(Option::is_some).await.is_ok() {
            listing.send_replace(true);
        }
    });
    Mode { leads, listed, ..Mode::new(auth) }
}

/// Lets the API server say who may call.
pub(super) fn authorizer(client: Client, serve: &Serve) -> Authorizer {
    let reviewer = Arc::new(Reviewer::new(client, serve.audience.clone()));
    Arc::new(move |token, act| {
        let reviewer = reviewer.clone();
        async move { reviewer.authorize(&token, act).await }.boxed()
    })
}

/// The name of the pod, else one of our own.
fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    pod.unwrap_or_else(|| format!("breakglass-mailer-{}", uuid::Uuid::now_v7()))
}
