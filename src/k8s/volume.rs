//! Notices a pod that has another volume than before.
//!
//! A store has a name for its whole life. Which pod had which store is remembered beside the
//! Lease, so that an empty or a wrong volume is not taken for the old one in silence.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::lease::LEASE;

/// In front of the name of the pod, in an annotation of the Lease.
const ANNOTATION: &str = "store.breakglass.t-caas.telekom.com";
/// Kubernetes' bound for what stands behind the prefix of an annotation.
const POD_NAME_CHARS_MAX: usize = 63;
/// How long after a failure it is tried again: the Lease comes with the first leader.
const RETRY_WAIT: Duration = Duration::from_secs(2);

/// A pod and its store.
pub struct Volume {
    /// The namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The name of the store that was found on its volume.
    pub store: String,
}

/// Remembers which store this pod has; calls `changed` when it was another one.
pub async fn remember(
    client: Client,
    volume: Volume,
    changed: impl Fn() + Send,
    stop: CancellationToken,
) {
    if POD_NAME_CHARS_MAX < volume.pod.len() {
        tracing::warn!(pod = volume.pod, "its name is too long to remember which store it has");
        return;
    }
    let mut last_error = None;
    while let Err(error) = compare(&client, &volume, &changed).await {
        let text = error.to_string();
        let is_expected = matches!(&error, kube::Error::Api(answer) if answer.code == 404);
        if !is_expected && last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "cannot compare the store with the one of before");
        }
        last_error = Some(text);
        tokio::select! {
            () = sleep(RETRY_WAIT) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn compare(
    client: &Client,
    volume: &Volume,
    changed: &(impl Fn() + Send),
) -> Result<(), kube::Error> {
    let Volume { namespace, pod, store } = volume;
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let key = format!("{ANNOTATION}/{pod}");
    let before = leases.get(LEASE).await?.annotations().get(&key).cloned();
    if before.as_ref() == Some(store) {
        return Ok(());
    }
    if let Some(before) = before {
        tracing::error!(
            pod,
            store,
            before,
            "this pod had another store: what that one holds is not here"
        );
        changed();
        let note = format!(
            "the volume holds the store {store}, and before it was {before}: mail that was queued \
             there is not here"
        );
        Events::new(client.clone()).store_changed(namespace, pod, note).await;
    }
    let patch = Patch::Merge(json!({"metadata": {"annotations": {key: store}}}));
    leases.patch(LEASE, &PatchParams::default(), &patch).await.map(drop)
}
