//! Which of several replicas leads: the one that holds the Lease.
//!
//! As in client-go: the holder renews, the others watch whether it does, by their own clocks and
//! never by what time the holder says it is. Each write names the version that it is based on, so
//! of two that try at once one succeeds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::told;
use crate::core::time::Time;

/// The name of the Lease, in the namespace of this process.
pub const LEASE: &str = "breakglass-mailer";
/// After this time without a renewal another replica takes over.
const LEASE_TIME: Duration = Duration::from_secs(15);
/// A holder that could not renew it for this long has stopped leading before another begins.
const LEAD_TIME: Duration = Duration::from_secs(10);
/// Between two looks at it, and two renewals.
const INTERVAL: Duration = Duration::from_secs(3);
/// For one look and one write.
const STEP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long giving it back may take at the end.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(2);

const CONFLICT: u16 = 409;

/// Tells in `leads` since when, by `now`, this process, named `identity`, holds the Lease; gives it
/// back at `stop`.
pub async fn elect(
    client: Client,
    namespace: String,
    identity: String,
    leads: watch::Sender<Option<Time>>,
    now: impl Fn() -> Time,
    stop: CancellationToken,
) {
    let api = Api::namespaced(client, &namespace);
    let mut candidate = Candidate { api, identity, other: None };
    let mut renewed_at = None;
    let mut is_failing = false;
    loop {
        let begin = Instant::now();
        match timeout(STEP_TIME_MAX, candidate.step()).await {
            Ok(Ok(learned)) => {
                is_failing = false;
                renewed_at = match learned {
                    Some(is_held) => is_held.then_some(begin),
                    None => renewed_at,
                };
            }
            failed => {
                let error = failed.map_or("no answer in time".to_owned(), |answer| {
                    answer.err().as_ref().map(told).unwrap_or_default()
                });
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(error, "cannot read or renew the Lease; trying again");
                }
            }
        }
        let is_leading = renewed_at.is_some_and(|at: Instant| at.elapsed() < LEAD_TIME);
        let change = |since: &mut Option<Time>| {
            let was_leading = since.is_some();
            *since = is_leading.then(|| since.unwrap_or_else(&now));
            was_leading != is_leading
        };
        if leads.send_if_modified(change) {
            tracing::info!(identity = candidate.identity, leads = is_leading, "the leader changed");
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = stop.cancelled() => break,
        }
    }
    if leads.send_replace(None).is_some() {
        let _ = timeout(RELEASE_TIME_MAX, candidate.release()).await;
    }
}

struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The version of a Lease that somebody else holds, and since when it has not changed.
    other: Option<(String, Instant)>,
}

impl Candidate {
    /// Takes or renews the Lease when it may be taken; whether it is held then. Nothing is learned
    /// when somebody else wrote just now.
    async fn step(&mut self) -> Result<Option<bool>, kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            return Ok(self.create().await?.then_some(true));
        };
        let version = lease.metadata.resource_version.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let now = MicroTime(Timestamp::now());
        if holder.as_ref() == Some(&self.identity) {
            let is_written = self.write(&version, json!({"renewTime": now})).await?;
            return Ok(is_written.then_some(true));
        }
        if holder.is_some() {
            let since = match &self.other {
                Some((seen, since)) if *seen == version => *since,
                _ => Instant::now(),
            };
            self.other = Some((version.clone(), since));
            if since.elapsed() < LEASE_TIME {
                return Ok(Some(false));
            }
        }
        let taken = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_TIME.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": spec.lease_transitions.unwrap_or_default().saturating_add(1),
        });
        Ok(self.write(&version, taken).await?.then_some(true))
    }

    async fn create(&self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_TIME.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        let created = self.api.create(&PostParams::default(), &lease).await;
        unless_conflict(created.map(drop))
    }

    /// Writes unless somebody wrote since `version`; whether it was written.
    async fn write(&self, version: &str, spec: Value) -> Result<bool, kube::Error> {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let params = PatchParams::default();
        unless_conflict(self.api.patch(LEASE, &params, &Patch::Merge(patch)).await.map(drop))
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else { return Ok(()) };
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        if holder.as_ref() == Some(&self.identity) {
            let version = lease.metadata.resource_version.unwrap_or_default();
            self.write(&version, json!({"holderIdentity": null})).await?;
        }
        Ok(())
    }
}

/// Whether a write was done; not when another one came before it.
fn unless_conflict(written: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == CONFLICT => Ok(false),
        Err(error) => Err(error),
    }
}
