//! Which of several replicas leads: the one that holds the Lease.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The name of the Lease, in the namespace of this process.
pub const LEASE: &str = "breakglass-mailer";
/// After this time without a renewal another replica takes over.
const LEASE_SECONDS: u64 = 15;
/// How long before its end the holder renews it.
const RENEW_SECONDS: u64 = 5;
/// How long after a failure the Lease is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(5);
/// How long giving the Lease back may take at the end.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(2);

/// Keeps `leads` true while this process, named `identity`, holds the Lease; gives it back at
/// `stop`.
pub async fn elect(
    client: Client,
    namespace: String,
    identity: String,
    leads: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut is_failing = false;
    while !stop.is_cancelled() {
        let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(&namespace)
            .with_identity(&identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(RENEW_SECONDS)
            .build();
        let built = tokio::select! {
            built = manager => built,
            () = stop.cancelled() => return,
        };
        match built {
            Ok(manager) => {
                is_failing = false;
                let (mut held, task) = manager.watch().await;
                loop {
                    tokio::select! {
                        changed = held.changed() => if changed.is_err() { break },
                        () = stop.cancelled() => break,
                    }
                    let held = *held.borrow_and_update();
                    if leads.send_replace(held) != held {
                        tracing::info!(identity, leads = held, "the leader changed");
                    }
                }
                leads.send_replace(false);
                // The manager gives the Lease back once nobody listens.
                drop(held);
                let _ = timeout(RELEASE_TIME_MAX, task).await;
            }
            Err(error) if !std::mem::replace(&mut is_failing, true) => {
                tracing::warn!(%error, "cannot read the Lease; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = sleep(RETRY_WAIT) => {}
            () = stop.cancelled() => {}
        }
    }
}
