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

use super::client::told;
use super::events::Events;
use super::lease::LEASE;

/// In front of the name of the pod, in an annotation of the Lease: the store that it has.
const STORE: &str = "store.breakglass.t-caas.telekom.com";
/// The same: the store that it had before, until an operator has seen it and takes it out.
const BEFORE: &str = "before.store.breakglass.t-caas.telekom.com";
/// Kubernetes' bound for what stands behind the prefix of an annotation.
const POD_NAME_CHARS_MAX: usize = 63;
/// How long after a failure it is tried again: the Lease comes with the first leader.
const RETRY_WAIT: Duration = Duration::from_secs(2);

/// The pod of this process.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity, where that is known: `kubectl describe` finds events by it.
    pub uid: Option<String>,
}

/// Remembers that this pod has this store; calls `changed` when it had another one before.
pub async fn remember(
    client: Client,
    pod: Pod,
    store: String,
    changed: impl Fn() + Send,
    stop: CancellationToken,
) {
    if POD_NAME_CHARS_MAX < pod.name.len() {
        tracing::warn!(pod = pod.name, "its name is too long to remember which store it has");
        return;
    }
    let mut last_error = None;
    let before = loop {
        match compare(&client, &pod, &store).await {
            Ok(before) => break before,
            Err(error) => {
                let text = told(&error);
                let is_expected = matches!(&error, kube::Error::Api(answer) if answer.code == 404);
                if !is_expected && last_error.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "cannot compare the store with that of before");
                }
                last_error = Some(text);
            }
        }
        tokio::select! {
            () = sleep(RETRY_WAIT) => {}
            () = stop.cancelled() => return,
        }
    };
    let Some(before) = before else { return };
    let pod_name = &pod.name;
    tracing::error!(
        pod = pod_name,
        store,
        before,
        "this pod had another store: mail that was queued there is not here"
    );
    changed();
    let note = format!(
        "the volume holds the store {store}, and before it was {before}: mail that was queued \
         there is not here"
    );
    Events::new(client).store_changed(&pod, note).await;
}

/// The store that the pod had before, when it is not this one. It is remembered until an operator
/// takes the annotation out.
async fn compare(client: &Client, pod: &Pod, store: &str) -> Result<Option<String>, kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &pod.namespace);
    let (store_key, before_key) =
        (format!("{STORE}/{}", pod.name), format!("{BEFORE}/{}", pod.name));
    let lease = leases.get(LEASE).await?;
    let had = lease.annotations().get(&store_key).filter(|had| *had != store).cloned();
    let before = had.clone().or_else(|| lease.annotations().get(&before_key).cloned());
    // The old one is back.
    let before = before.filter(|before| before != store);
    let annotations = json!({store_key: store, before_key: before});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    leases.patch(LEASE, &PatchParams::default(), &patch).await?;
    Ok(before)
}
