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
use crate::core::health::Health;
use crate::core::provider::{Password, Provider, Security};
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
    conditions: Vec<Condition>,
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
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Condition {
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
            last_error: last_error(health),
            last_health_check: health.last_passed.map(Stamp),
            // A disabled provider is not checked.
            next_check: (!provider.disabled).then_some(Stamp(health.next_check)),
            conditions: conditions(provider, health, catalog),
        }
    }
}

fn conditions(provider: &Provider, health: &Health, catalog: &Catalog) -> Vec<Condition> {
    let mut found = vec![ready(provider, health, catalog)];
    found.extend(healthy(provider, health));
    found.extend(password_loaded(provider));
    found
}

/// Whether mail can go out by it. What an operator has to mend comes before what may pass.
fn ready(provider: &Provider, health: &Health, catalog: &Catalog) -> Condition {
    let ready =
        |status, reason, message: String| Condition { r#type: "Ready", status, reason, message };
    if provider.disabled {
        return ready("False", "Disabled", "the provider is disabled".into());
    }
    if let Some(missing) = password_missing(provider) {
        return ready("False", "PasswordLoadFailed", missing);
    }
    if health.healthy == Some(false) {
        let message = last_error(health).unwrap_or_default();
        return ready("False", "HealthCheckFailed", message);
    }
    match catalog.default_provider() {
        Some(default) if provider.default && default.name != provider.name => {
            let message = format!("{} is the default and takes precedence", default.name);
            ready("True", "DuplicateDefault", message)
        }
        _ => ready("True", "Configured", "the provider is configured".into()),
    }
}

/// Absent before the first check and while disabled: then nothing is known.
fn healthy(provider: &Provider, health: &Health) -> Option<Condition> {
    let passed = health.healthy.filter(|_| !provider.disabled)?;
    let (status, reason, message) = if passed {
        ("True", "HealthCheckPassed", "the last check or delivery got through".to_owned())
    } else {
        ("False", "Unhealthy", last_error(health).unwrap_or_default())
    };
    Some(Condition { r#type: "Healthy", status, reason, message })
}

/// Absent without credentials.
fn password_loaded(provider: &Provider) -> Option<Condition> {
    let credentials = provider.smtp.credentials.as_ref()?;
    let (status, reason, message) = match &credentials.password {
        Password::Loaded(_) => ("True", "SecretLoaded", "the password is loaded".to_owned()),
        Password::SecretNotFound(_) => {
            ("False", "SecretNotFound", password_missing(provider).unwrap_or_default())
        }
        Password::KeyNotFound(..) => {
            ("False", "KeyNotFound", password_missing(provider).unwrap_or_default())
        }
    };
    Some(Condition { r#type: "PasswordLoaded", status, reason, message })
}

fn password_missing(provider: &Provider) -> Option<String> {
    match &provider.smtp.credentials.as_ref()?.password {
        Password::Loaded(_) => None,
        Password::SecretNotFound(name) => Some(format!("there is no Secret {name}")),
        Password::KeyNotFound(name, key) => {
            Some(format!("the Secret {name} has no key {key}, or it is empty"))
        }
    }
}

fn last_error(health: &Health) -> Option<String> {
    health.last_failure.as_ref().map(|(_, error)| error.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notification::Address;
    use crate::core::provider::{Credentials, ProviderName, Sender, Smtp};

    fn provider(name: &str) -> Provider {
        let name = ProviderName::new(name).expect("a name");
        let sender = Sender { address: Address::parse("s@example.com").expect("ok"), name: None };
        Provider::new(name, Smtp::new("smtp.example.com", 587, Security::StartTls), sender)
    }

    fn reasons(provider: &Provider, health: &Health, catalog: &Catalog) -> Vec<String> {
        let all = conditions(provider, health, catalog);
        all.iter().map(|c| format!("{}={} {}", c.r#type, c.status, c.reason)).collect()
    }

    #[test]
    fn conditions_say_what_an_operator_has_to_mend() {
        let unknown = Health::default();
        let none = Catalog::default();
        assert_eq!(reasons(&provider("a"), &unknown, &none), ["Ready=True Configured"]);

        let passed = Health { healthy: Some(true), ..Health::default() };
        let shown = reasons(&provider("a"), &passed, &none);
        assert_eq!(shown, ["Ready=True Configured", "Healthy=True HealthCheckPassed"]);

        let failed = Health { healthy: Some(false), ..Health::default() };
        let shown = reasons(&provider("a"), &failed, &none);
        assert_eq!(shown, ["Ready=False HealthCheckFailed", "Healthy=False Unhealthy"]);

        let disabled = Provider { disabled: true, ..provider("a") };
        assert_eq!(reasons(&disabled, &failed, &none), ["Ready=False Disabled"]);

        let mut locked_out = provider("a");
        let password = Password::KeyNotFound("default/smtp".into(), "password".into());
        locked_out.smtp.credentials = Some(Credentials { username: "u".into(), password });
        let shown = reasons(&locked_out, &unknown, &none);
        assert_eq!(shown, ["Ready=False PasswordLoadFailed", "PasswordLoaded=False KeyNotFound"]);
    }

    #[test]
    fn the_second_default_is_told_which_one_is_first() {
        let default = |name| Provider { default: true, ..provider(name) };
        let providers =
            ["a", "b"].map(|name| (default(name).name.clone(), Arc::new(default(name))));
        let catalog = Catalog { providers: providers.into(), ..Catalog::default() };
        let health = Health::default();
        assert_eq!(reasons(&default("a"), &health, &catalog), ["Ready=True Configured"]);
        assert_eq!(reasons(&default("b"), &health, &catalog), ["Ready=True DuplicateDefault"]);
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
