//! Events for `kubectl describe`, of a MailProvider and of a pod: only when something changed.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;

use super::crd::{API_VERSION, MailProviderStatus};
use super::seen::SeenProvider;
use super::volume::Pod;
use crate::core::conditions::{ConditionType, Reason};

/// How long writing one may take: an event is worth no waiting.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// Writes events.
pub(super) struct Events(Client);

impl Events {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Tells how `now` differs from what was said of the provider before.
    pub(super) async fn tell(&self, name: &str, before: &SeenProvider, now: &MailProviderStatus) {
        let about = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some("MailProvider".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(before.uid.clone()),
            ..ObjectReference::default()
        };
        for event in changes(before, now) {
            self.publish(&event, &about).await;
        }
    }

    /// Tells that a pod has another store than before.
    pub(super) async fn store_changed(&self, pod: &Pod, note: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: pod.uid.clone(),
            ..ObjectReference::default()
        };
        let event = event(EventType::Warning, "StoreChanged", "Start", note);
        self.publish(&event, &about).await;
    }

    async fn publish(&self, event: &Event, about: &ObjectReference) {
        let reporter = Reporter { controller: "breakglass-mailer".into(), instance: None };
        // A recorder that is kept counts up the first event of a reason, with the words of then.
        let recorder = Recorder::new(self.0.clone(), reporter);
        match timeout(WRITE_TIME_MAX, recorder.publish(event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(reason = event.reason, %error, "cannot write an event");
            }
            Err(_) => tracing::debug!(reason = event.reason, "writing an event took too long"),
        }
    }
}

fn changes(before: &SeenProvider, now: &MailProviderStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let healthy = |status: &MailProviderStatus| {
        let kind = ConditionType::Healthy.as_str();
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    if let Some(healthy_now) = healthy(now)
        && healthy(&before.status).is_none_or(|old| old.status != healthy_now.status)
    {
        let (type_, reason) = match healthy_now.status.as_str() {
            "True" => (EventType::Normal, Reason::HealthCheckPassed.as_str()),
            _ => (EventType::Warning, Reason::HealthCheckFailed.as_str()),
        };
        events.push(event(type_, reason, "HealthCheck", healthy_now.message));
    }
    if before.is_insecure && before.status.observed_generation != before.generation {
        let note = "disableTLS or insecureSkipVerify: others on the way may read or take the mail";
        events.push(event(EventType::Warning, "InsecureSMTP", "Validate", note.to_owned()));
    }
    events
}

fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    let (reason, action) = (reason.to_owned(), action.to_owned());
    Event { type_, reason, note: Some(note), action, secondary: None }
}
