//! `GET /providers`: the providers as this process sees them. Never a password.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use super::Api;
use super::params::Params;
use super::problem::Problem;
use super::view::Stamp;
use crate::core::conditions::{Condition, conditions};
use crate::core::health::Health;
use crate::core::provider::{Provider, Security};
use crate::core::route::Catalog;

/// The answer.
#[derive(Serialize)]
pub(super) struct Providers {
    items: Vec<ProviderView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderView {
    name: String,
    display_name: Option<String>,
    default: bool,
    disabled: bool,
    host: String,
    port: u16,
    security: &'static str,
    insecure_skip_verify: bool,
    sender: SenderView,
    retry: RetryView,
    healthy: Option<bool>,
    circuit_open_since: Option<Stamp>,
    last_error: Option<String>,
    last_health_check: Option<Stamp>,
    next_check: Option<Stamp>,
    conditions: Vec<ConditionView>,
}

#[derive(Serialize)]
struct SenderView {
    address: String,
    name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetryView {
    count: u16,
    initial_backoff_ms: u64,
    queue_size: usize,
}

/// One condition, in the form of Kubernetes' conditions.
#[derive(Serialize)]
struct ConditionView {
    r#type: &'static str,
    status: &'static str,
    reason: &'static str,
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
        ProviderView::of(provider, &api.registry.health(&provider.name), &catalog)
    };
    Ok(Json(Providers { items: catalog.providers.values().map(view).collect() }))
}

impl ProviderView {
    fn of(provider: &Provider, health: &Health, catalog: &Catalog) -> Self {
        let backoff_ms = provider.retry.initial_backoff.as_millis();
        Self {
            name: provider.name.to_string(),
            display_name: provider.display_name.clone(),
            default: provider.default,
            disabled: provider.disabled,
            host: provider.smtp.host.clone(),
            port: provider.smtp.port,
            security: match provider.smtp.security {
                Security::Implicit => "implicit",
                Security::StartTls => "startTls",
                Security::Opportunistic => "opportunistic",
                Security::Plaintext => "plaintext",
            },
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
            healthy: health.healthy,
            circuit_open_since: health.open.map(|open| Stamp(open.since)),
            last_error: health.last_error().map(str::to_owned),
            last_health_check: health.last_passed.map(Stamp),
            // A disabled provider is not checked.
            next_check: (!provider.disabled).then_some(Stamp(health.next_check)),
            conditions: conditions(provider, health, catalog)
                .into_iter()
                .map(ConditionView::from)
                .collect(),
        }
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
        secret.smtp.credentials = Some(Credentials { username: "u".into(), password });
        let view = ProviderView::of(&secret, &Health::default(), &Catalog::default());
        let shown = serde_json::to_string(&view).expect("JSON");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
