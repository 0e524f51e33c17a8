//! `GET /providers`: the providers as this process sees them. Never a password.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::openapi::strings;
use super::params::Params;
use super::problem::Problem;
use super::view::Stamp;
use crate::core::conditions::{Condition, conditions};
use crate::core::health::Health;
use crate::core::provider::{Provider, Security};
use crate::core::route::Catalog;
use crate::core::time::Time;
use crate::registry::LastSend;

/// All providers, as this process sees them.
#[derive(JsonSchema, Serialize)]
pub(super) struct Providers {
    /// By name.
    items: Vec<ProviderView>,
}

/// The settings and the health of a provider. Never a password.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Provider")]
struct ProviderView {
    /// Its `metadata.name`.
    #[schemars(with = "strings::Name")]
    name: String,
    /// For people.
    display_name: Option<String>,
    /// Whether it carries what nothing else was chosen for.
    default: bool,
    /// Whether it carries nothing.
    disabled: bool,
    /// Of its SMTP server.
    host: String,
    /// Of its SMTP server.
    port: u16,
    /// How connections are protected: by TLS from the first byte, by STARTTLS always or where it
    /// is offered, or not at all.
    #[schemars(with = "strings::Protection")]
    security: &'static str,
    /// Whether any certificate is taken.
    insecure_skip_verify: bool,
    /// From whom its mail comes.
    sender: SenderView,
    /// How it retries, and how much it holds.
    retry: RetryView,
    /// What its server takes from us.
    limits: LimitsView,
    /// How many messages went out within the last 24 hours; null without `messagesPerDay`, and
    /// for a moment after a start.
    day_messages: Option<u64>,
    /// Until when it takes no mail, at least: its server's quota or its own day's limit is used up.
    /// Meanwhile jobs go on to another of their chain, or wait.
    held_until: Option<Stamp>,
    /// Why.
    held_reason: Option<String>,
    /// What the last check or delivery showed; null before the first.
    healthy: Option<bool>,
    /// Since when its server is known to be unreachable and is only probed.
    circuit_open_since: Option<Stamp>,
    /// Why the last check or delivery that failed did so.
    last_error: Option<String>,
    /// When it was last found healthy.
    last_health_check: Option<Stamp>,
    /// When it is looked at next; null while it is disabled.
    next_check: Option<Stamp>,
    /// When mail was last tried.
    last_send_attempt: Option<Stamp>,
    /// Why that failed, when it did.
    last_send_error: Option<String>,
    /// `Ready` first, then `Healthy` and `PasswordLoaded` where they are known.
    conditions: Vec<ConditionView>,
}

/// The sender of a provider's mail.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Sender")]
struct SenderView {
    /// In `From`.
    #[schemars(with = "strings::Mailbox")]
    address: String,
    /// Beside it, for people.
    name: Option<String>,
}

/// The retry settings of a provider.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Retry")]
struct RetryView {
    /// How many attempts follow the first.
    count: u16,
    /// How long the first of them waits.
    initial_backoff_ms: u64,
    /// How many jobs its queue holds.
    queue_size: usize,
}

/// The limits of a provider; null where it has none.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Limits")]
struct LimitsView {
    /// Within any 60 seconds.
    messages_per_minute: Option<u32>,
    /// Within any 24 hours.
    messages_per_day: Option<u32>,
    /// At once, those of health checks included; null for `--max-connections`.
    max_connections: Option<u16>,
}

/// One condition, in the form of Kubernetes' conditions.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Condition")]
struct ConditionView {
    /// What it is about.
    r#type: &'static str,
    /// `True` or `False`.
    status: &'static str,
    /// One word, for programs.
    reason: &'static str,
    /// One sentence, for people.
    message: String,
}

/// All providers of the catalog, by name.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<Providers>, Problem> {
    Params::of(&uri, &[])?;
    let catalog = api.registry.catalog();
    let view = |provider: &Arc<Provider>| {
        let name = &provider.name;
        let last_send = api.registry.last_send(name);
        let (held, day_messages) = (api.registry.held(name), api.registry.day_count(name));
        let view = ProviderView::of(
            provider,
            &api.registry.health(name),
            last_send,
            &catalog,
            api.registry.now(),
        );
        ProviderView {
            day_messages,
            held_until: held.as_ref().map(|held| Stamp(held.until)),
            held_reason: held.map(|held| held.why),
            ..view
        }
    };
    Ok(Json(Providers { items: catalog.providers.values().map(view).collect() }))
}

impl ProviderView {
    fn of(
        provider: &Provider,
        health: &Health,
        last_send: Option<LastSend>,
        catalog: &Catalog,
        now: Time,
    ) -> Self {
        let backoff_ms = provider.retry.initial_backoff.as_millis();
        Self {
            name: provider.name.to_string(),
            display_name: provider.display_name.clone(),
            default: provider.default,
            disabled: provider.disabled,
            host: provider.smtp.host.clone(),
            port: provider.smtp.port,
            security: security(provider.smtp.security),
            insecure_skip_verify: provider.smtp.insecure_skip_verify,
            sender: SenderView {
                address: provider.sender.address.to_string(),
                name: provider.sender.name.clone(),
            },
            retry: RetryView {
                count: provider.retry.count,
                initial_backoff_ms: u64::try_from(backoff_ms).unwrap_or(u64::MAX),
                queue_size: provider.retry.queue_size,
            },
            limits: LimitsView {
                messages_per_minute: provider.limits.messages_per_minute,
                messages_per_day: provider.limits.messages_per_day,
                max_connections: provider.limits.max_connections,
            },
            day_messages: None,
            held_until: None,
            held_reason: None,
            healthy: health.healthy,
            circuit_open_since: health.open.map(|open| Stamp(open.since)),
            last_error: health.last_error().map(str::to_owned),
            last_health_check: health.last_passed.map(Stamp),
            // A disabled provider is not checked.
            next_check: (!provider.disabled).then_some(Stamp(health.next_check)),
            last_send_attempt: last_send.as_ref().map(|send| Stamp(send.at)),
            last_send_error: last_send.and_then(|send| send.error),
            conditions: conditions(provider, health, catalog, now)
                .into_iter()
                .map(ConditionView::from)
                .collect(),
        }
    }
}

/// The name of a kind of security in the API.
pub(super) fn security(security: Security) -> &'static str {
    match security {
        Security::Implicit => "implicit",
        Security::StartTls => "startTls",
        Security::Opportunistic => "opportunistic",
        Security::Plaintext => "plaintext",
    }
}

impl From<Condition> for ConditionView {
    fn from(condition: Condition) -> Self {
        Self {
            r#type: condition.condition_type.as_str(),
            status: if condition.is_true { "True" } else { "False" },
            reason: condition.reason.as_str(),
            message: condition.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notification::Address;
    use crate::core::provider::{Credentials, Password, ProviderName, Sender, Smtp};

    fn provider(name: &str) -> Provider {
        let name = ProviderName::new(name).expect("a name");
        let sender = Sender { address: Address::parse("s@example.com").expect("ok"), name: None };
        Provider::new(name, Smtp::new("smtp.example.com", 587, Security::StartTls), sender)
    }

    #[test]
    fn a_password_is_never_shown() {
        let mut secret = provider("a");
        let password = Password::Loaded("hunter2".into());
        secret.smtp.credentials = Some(Credentials::with_password("u", password));
        let view =
            ProviderView::of(&secret, &Health::default(), None, &Catalog::default(), Time(0));
        let shown = serde_json::to_string(&view).expect("JSON");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
