//! What is said of each MailProvider: its status, and events when its health changes.
//!
//! Written only when something changed, and only by the leader. Nothing that is written leads to
//! a check or a send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::told;
use super::crd::{API_VERSION, MailProvider, MailProviderStatus};
use super::events::Events;
use super::seen::{Seen, SeenProvider};
use crate::core::conditions::{Condition, ConditionType, conditions};
use crate::core::health::Health;
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::registry::{LastSend, Registry};

/// Who the fields of a status belong to.
const FIELD_MANAGER: &str = "breakglass-mailer";
/// Several changes at once are one write.
const QUIET: Duration = Duration::from_millis(100);
/// How often a provider is written at most, however often it is edited.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// How often sends alone are worth a write, for each provider.
const SENDS_INTERVAL: Duration = Duration::from_secs(10);
/// How long after a failed write the next one is tried.
const RETRY_WAIT: Duration = Duration::from_secs(5);
/// How long a write may take.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// Keeps the status of every MailProvider true, for as long as this process leads, until `stop`.
pub async fn tell(
    client: Client,
    registry: Arc<Registry>,
    mut seen: watch::Receiver<Option<Arc<Seen>>>,
    mut leads: watch::Receiver<Option<Time>>,
    stop: CancellationToken,
) {
    let resource = ApiResource::erase::<MailProvider>(&());
    let mut teller = Teller {
        api: Api::all_with(client.clone(), &resource),
        events: Events::new(client),
        registry: registry.clone(),
        written: BTreeMap::new(),
        is_failing: false,
    };
    let mut changes = registry.changes();
    loop {
        let latest = seen.borrow_and_update().clone();
        changes.borrow_and_update();
        let leading_since = *leads.borrow_and_update();
        let again = match (latest, leading_since) {
            (Some(latest), Some(since)) => teller.tell_all(&latest, since, &leads).await,
            _ => None,
        };
        let again = again.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = seen.changed() => if changed.is_err() { return },
            _ = changes.changed() => {}
            changed = leads.changed() => if changed.is_err() { return },
            () = sleep_until(again) => {}
        }
        sleep(QUIET).await;
    }
}

struct Teller {
    api: Api<DynamicObject>,
    events: Events,
    registry: Arc<Registry>,
    /// What was written last to which object, and when.
    written: BTreeMap<String, Written>,
    is_failing: bool,
}

struct Written {
    uid: String,
    status: MailProviderStatus,
    at: Instant,
}

impl Teller {
    /// Writes what changed; when to look again without being woken.
    async fn tell_all(
        &mut self,
        seen: &Seen,
        leading_since: Time,
        leads: &watch::Receiver<Option<Time>>,
    ) -> Option<Instant> {
        self.written.retain(|name, _| seen.providers.contains_key(name));
        let mut again: Option<Instant> = None;
        for (name, provider) in &seen.providers {
            if leads.borrow().is_none() {
                return None;
            }
            let Some(wanted) = self.wanted(name, provider, seen, leading_since) else { continue };
            if let Some(at) = self.put_off(name, provider, &wanted) {
                again = Some(again.map_or(at, |earlier| earlier.min(at)));
                continue;
            }
            if wanted == provider.status {
                continue;
            }
            if !self.write(name, &wanted).await {
                again = Some(Instant::now() + RETRY_WAIT);
                continue;
            }
            self.events.tell(name, provider, &wanted).await;
            let written = Written { uid: provider.uid.clone(), status: wanted, at: Instant::now() };
            self.written.insert(name.clone(), written);
        }
        again
    }

    /// What the status should say; nothing before anything is known.
    fn wanted(
        &self,
        name: &str,
        provider: &SeenProvider,
        seen: &Seen,
        leading_since: Time,
    ) -> Option<MailProviderStatus> {
        let now = Timestamp::now();
        if !provider.errors.is_empty() {
            return Some(invalid(provider, now));
        }
        let name = ProviderName::new(name)?;
        let valid = seen.catalog.providers.get(&name)?;
        let health = self.registry.health(&name);
        let is_known = match health.healthy {
            None => health.held.is_some(),
            // One that follows looks only after those that it cannot reach; health checks see to it
            // that one that begins to lead looks at all of them.
            Some(true) => leading_since <= health.learned_at,
            Some(false) => true,
        };
        if !is_known && !valid.disabled {
            return None;
        }
        let found = conditions(valid, &health, &seen.catalog, self.registry.now());
        Some(status(provider, &found, &health, self.registry.last_send(&name), now))
    }

    /// Until when a write waits: one may have been just now, sends alone are told every 10 seconds,
    /// and what was written has to come back by the watch first.
    fn put_off(
        &self,
        name: &str,
        provider: &SeenProvider,
        wanted: &MailProviderStatus,
    ) -> Option<Instant> {
        let last = self.written.get(name).filter(|last| last.uid == provider.uid)?;
        let is_told = without_sends(wanted) == without_sends(&last.status);
        let until = last.at + if is_told { SENDS_INTERVAL } else { WRITE_INTERVAL };
        (*wanted != provider.status && Instant::now() < until).then_some(until)
    }

    async fn write(&mut self, name: &str, status: &MailProviderStatus) -> bool {
        let patch = Patch::Apply(json!({
            "apiVersion": API_VERSION,
            "kind": "MailProvider",
            "metadata": {"name": name},
            "status": status,
        }));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let writing = self.api.patch_status(name, &params, &patch);
        let error = match tokio::time::timeout(WRITE_TIME_MAX, writing).await {
            Ok(Ok(_)) => {
                self.is_failing = false;
                return true;
            }
            // It was deleted meanwhile.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => return true,
            Ok(Err(error)) => told(&error),
            Err(_) => format!("no answer within {WRITE_TIME_MAX:?}"),
        };
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(mailprovider = name, error, "cannot write status; trying again");
        }
        false
    }
}

fn without_sends(status: &MailProviderStatus) -> MailProviderStatus {
    MailProviderStatus { last_send_attempt: None, last_send_error: None, ..status.clone() }
}

/// The status of a MailProvider that is valid.
fn status(
    provider: &SeenProvider,
    found: &[Condition],
    health: &Health,
    last_send: Option<LastSend>,
    now: Timestamp,
) -> MailProviderStatus {
    let condition = |found: &Condition| {
        let (kind, reason) = (found.condition_type.as_str(), found.reason.as_str());
        dated(provider, kind, found.is_true, reason, &found.message, now)
    };
    let old = &provider.status;
    let (sent, error) = last_send.map_or((None, None), |last| (stamp(last.at), last.error));
    MailProviderStatus {
        observed_generation: provider.generation,
        conditions: found.iter().map(condition).collect(),
        last_health_check: later(health.last_passed.and_then(stamp), &old.last_health_check),
        last_send_attempt: later(sent, &old.last_send_attempt),
        last_send_error: error.or(old.last_send_error.clone()),
    }
}

/// The status of one that is not, and is not used.
fn invalid(provider: &SeenProvider, now: Timestamp) -> MailProviderStatus {
    let errors: Vec<_> = provider.errors.iter().map(ToString::to_string).collect();
    let kind = ConditionType::Ready.as_str();
    let ready = dated(provider, kind, false, "ValidationFailed", &errors.join("; "), now);
    MailProviderStatus {
        observed_generation: provider.generation,
        conditions: vec![ready],
        ..provider.status.clone()
    }
}

/// A condition, as old as the last change of its status.
fn dated(
    provider: &SeenProvider,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> meta::Condition {
    let status = if is_true { "True" } else { "False" };
    let old = provider.status.conditions.iter().find(|old| old.type_ == kind);
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    meta::Condition {
        last_transition_time: since.unwrap_or_else(|| whole_second(now)),
        message: message.to_owned(),
        observed_generation: provider.generation,
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: kind.to_owned(),
    }
}

fn stamp(time: Time) -> Option<meta::Time> {
    let milliseconds = i64::try_from(time.0).ok()?;
    Timestamp::from_millisecond(milliseconds).ok().map(whole_second)
}

/// The later of two times: another leader may have told of a later one.
fn later(ours: Option<meta::Time>, told: &Option<meta::Time>) -> Option<meta::Time> {
    let told = told.clone();
    match (ours, told) {
        (Some(ours), Some(told)) => Some(if ours.0 < told.0 { told } else { ours }),
        (ours, told) => ours.or(told),
    }
}

/// Times in Kubernetes have no fraction; one with a fraction would differ from what comes back.
fn whole_second(time: Timestamp) -> meta::Time {
    meta::Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
