//! What there is to say about a provider, in the form of Kubernetes' conditions.
//!
//! Pure: the same provider, health and catalog have the same conditions, word for word, so whoever
//! writes them down need not write when nothing changed. A condition is as old as the last change
//! of its status; whoever keeps conditions can tell, and dates them.

use super::health::Health;
use super::provider::{CertificateAuthority, Credentials, Password, Provider};
use super::route::Catalog;
use super::time::Time;

/// One condition. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub condition_type: ConditionType,
    /// Its status: `True` or `False`.
    pub is_true: bool,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: one sentence.
    pub message: String,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// Whether mail can go out by it.
    Ready,
    /// What the last check or delivery showed. Absent before the first and while disabled: then
    /// nothing is known.
    Healthy,
    /// Whether its `passwordRef`, or each reference of its `oauth2`, leads to a secret. Absent without
    /// either.
    PasswordLoaded,
}

impl ConditionType {
    /// The `type` of the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Healthy => "Healthy",
            Self::PasswordLoaded => "PasswordLoaded",
        }
    }
}

/// The closed set of reasons that a valid provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Ready.
    Configured,
    /// Ready, but another provider is the default.
    DuplicateDefault,
    /// Not ready: `disabled`.
    Disabled,
    /// Not ready: there is no password to log in with.
    PasswordLoadFailed,
    /// Not ready: `certificateAuthority` cannot be read.
    InvalidCertificateAuthority,
    /// Not ready: the last check or delivery did not get through.
    HealthCheckFailed,
    /// Healthy.
    HealthCheckPassed,
    /// Not healthy.
    Unhealthy,
    /// The password is loaded.
    SecretLoaded,
    /// It is not: there is no such Secret.
    SecretNotFound,
    /// It is not: the Secret has no such key, or an empty one.
    KeyNotFound,
}

impl Reason {
    /// The `reason` of the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "Configured",
            Self::DuplicateDefault => "DuplicateDefault",
            Self::Disabled => "Disabled",
            Self::PasswordLoadFailed => "PasswordLoadFailed",
            Self::InvalidCertificateAuthority => "InvalidCertificateAuthority",
            Self::HealthCheckFailed => "HealthCheckFailed",
            Self::HealthCheckPassed => "HealthCheckPassed",
            Self::Unhealthy => "Unhealthy",
            Self::SecretLoaded => "SecretLoaded",
            Self::SecretNotFound => "SecretNotFound",
            Self::KeyNotFound => "KeyNotFound",
        }
    }
}

/// The conditions of a provider of `catalog`: `Ready` first.
#[must_use]
pub fn conditions(
    provider: &Provider,
    health: &Health,
    catalog: &Catalog,
    now: Time,
) -> Vec<Condition> {
    let (ready, reason, message) = ready(provider, health, catalog, now);
    let mut found =
        vec![Condition { condition_type: ConditionType::Ready, is_true: ready, reason, message }];
    found.extend(healthy(provider, health));
    found.extend(password_loaded(provider));
    found
}

/// What an operator has to mend comes before what may pass by itself.
fn ready(
    provider: &Provider,
    health: &Health,
    catalog: &Catalog,
    now: Time,
) -> (bool, Reason, String) {
    if provider.disabled {
        return (false, Reason::Disabled, "the provider is disabled".to_owned());
    }
    let credentials = provider.smtp.credentials.as_ref();
    if let Some(missing) = credentials.and_then(Credentials::missing) {
        return (false, Reason::PasswordLoadFailed, missing);
    }
    if provider.smtp.certificate_authority == Some(CertificateAuthority::Unreadable) {
        let message = CertificateAuthority::UNREADABLE.to_owned();
        return (false, Reason::InvalidCertificateAuthority, message);
    }
    if health.healthy == Some(false) {
        return (false, Reason::HealthCheckFailed, last_error(health));
    }
    match catalog.default_provider() {
        Some(default) if provider.default && default.name != provider.name => {
            let message = format!("{} is the default and takes precedence", default.name);
            (true, Reason::DuplicateDefault, message)
        }
        // Nothing to mend, and no reason to restart anything.
        _ if let Some(hold) = health.held(now) => {
            let message = format!("the server's quota is used up, mail waits: {}", hold.message);
            (true, Reason::Configured, message)
        }
        _ => (true, Reason::Configured, "the provider is configured".to_owned()),
    }
}

fn healthy(provider: &Provider, health: &Health) -> Option<Condition> {
    let is_true = health.healthy.filter(|_| !provider.disabled)?;
    let (reason, message) = if is_true {
        (Reason::HealthCheckPassed, "the last check or delivery got through".to_owned())
    } else {
        (Reason::Unhealthy, last_error(health))
    };
    Some(Condition { condition_type: ConditionType::Healthy, is_true, reason, message })
}

fn password_loaded(provider: &Provider) -> Option<Condition> {
    let secrets = provider.smtp.credentials.as_ref()?.secrets();
    let missing = secrets.iter().find(|(_, secret)| secret.loaded().is_none());
    let (purpose, secret) = missing.or(secrets.last())?;
    let reason = match secret {
        Password::Loaded(_) => Reason::SecretLoaded,
        Password::SecretNotFound(_) | Password::SecretUnreadable(_) => Reason::SecretNotFound,
        Password::KeyNotFound(..) => Reason::KeyNotFound,
    };
    Some(Condition {
        condition_type: ConditionType::PasswordLoaded,
        is_true: reason == Reason::SecretLoaded,
        reason,
        message: secret.missing().unwrap_or_else(|| format!("the {} is loaded", purpose.name)),
    })
}

fn last_error(health: &Health) -> String {
    health.last_error().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::health::{HealthEvent, HealthIntervals};
    use crate::core::notification::Address;
    use crate::core::outcome::Cause;
    use crate::core::provider::{Grant, Login, OAuth2, ProviderName, Security, Sender, Smtp};
    use crate::core::quota::Quota;

    fn provider(name: &str) -> Provider {
        let name = ProviderName::new(name).expect("a name");
        let sender = Sender { address: Address::parse("s@example.com").expect("ok"), name: None };
        Provider::new(name, Smtp::new("smtp.example.com", 587, Security::StartTls), sender)
    }

    fn with_password(password: Password) -> Provider {
        let mut provider = provider("a");
        provider.smtp.credentials = Some(Credentials::with_password("u", password));
        provider
    }

    fn failed() -> Health {
        let last_failure = Some((Cause::ConnectionRefused, "connection refused".into()));
        Health { healthy: Some(false), last_failure, ..Health::default() }
    }

    fn shown(provider: &Provider, health: &Health, catalog: &Catalog) -> Vec<String> {
        let all = conditions(provider, health, catalog, Time(0));
        all.iter()
            .map(|c| format!("{}={} {}", c.condition_type.as_str(), c.is_true, c.reason.as_str()))
            .collect()
    }

    #[test]
    fn conditions_say_what_an_operator_has_to_mend() {
        let unknown = Health::default();
        let passed = Health { healthy: Some(true), ..Health::default() };
        let no_secret = with_password(Password::SecretNotFound("default/smtp".into()));
        let no_key = with_password(Password::KeyNotFound("default/smtp".into(), "key".into()));
        let mut bad_authority = with_password(Password::Loaded("hunter2".into()));
        bad_authority.smtp.certificate_authority = Some(CertificateAuthority::Unreadable);
        let disabled = |provider: &Provider| Provider { disabled: true, ..provider.clone() };

        let table: [(Provider, &Health, &[&str]); 8] = [
            (provider("a"), &unknown, &["Ready=true Configured"]),
            (provider("a"), &passed, &["Ready=true Configured", "Healthy=true HealthCheckPassed"]),
            (
                provider("a"),
                &failed(),
                &["Ready=false HealthCheckFailed", "Healthy=false Unhealthy"],
            ),
            (disabled(&provider("a")), &failed(), &["Ready=false Disabled"]),
            (
                disabled(&no_secret),
                &unknown,
                &["Ready=false Disabled", "PasswordLoaded=false SecretNotFound"],
            ),
            (
                no_secret,
                &unknown,
                &["Ready=false PasswordLoadFailed", "PasswordLoaded=false SecretNotFound"],
            ),
            (
                no_key,
                &failed(),
                &[
                    "Ready=false PasswordLoadFailed",
                    "Healthy=false Unhealthy",
                    "PasswordLoaded=false KeyNotFound",
                ],
            ),
            (
                bad_authority,
                &failed(),
                &[
                    "Ready=false InvalidCertificateAuthority",
                    "Healthy=false Unhealthy",
                    "PasswordLoaded=true SecretLoaded",
                ],
            ),
        ];
        for (provider, health, expected) in table {
            assert_eq!(shown(&provider, health, &Catalog::default()), expected);
        }
    }

    #[test]
    fn a_secret_of_oauth2_is_told_of_as_a_password_is() {
        let told = |refresh_token, client_secret| {
            let login = Login::OAuth2(OAuth2 {
                token_url: "https://login.example.com/token".into(),
                client_id: "client".into(),
                scope: None,
                grant: Grant::RefreshToken { refresh_token, client_secret },
            });
            let mut provider = provider("a");
            provider.smtp.credentials = Some(Credentials { username: "u".into(), login });
            let all = conditions(&provider, &Health::default(), &Catalog::default(), Time(0));
            let shown = |c: &Condition| format!("{} {}", c.reason.as_str(), c.message);
            [shown(&all[0]), shown(&all[1])]
        };
        let loaded = || Password::Loaded("hunter2".into());
        let no_key = || Password::KeyNotFound("default/smtp".into(), "key".into());
        let words = "the Secret default/smtp has no value for the key key";
        for (refresh_token, client_secret) in [(no_key(), None), (loaded(), Some(no_key()))] {
            let wanted = [format!("PasswordLoadFailed {words}"), format!("KeyNotFound {words}")];
            assert_eq!(told(refresh_token, client_secret), wanted);
        }
        let wanted = "SecretLoaded the refresh token is loaded";
        assert_eq!(told(loaded(), Some(loaded()))[1], wanted);
    }

    #[test]
    fn the_second_default_is_told_which_one_is_first() {
        let default = |name| Provider { default: true, ..provider(name) };
        let providers =
            ["a", "b"].map(|name| (default(name).name.clone(), Arc::new(default(name))));
        let catalog = Catalog { providers: providers.into(), ..Catalog::default() };
        let health = Health::default();
        assert_eq!(shown(&default("a"), &health, &catalog), ["Ready=true Configured"]);
        assert_eq!(shown(&default("b"), &health, &catalog), ["Ready=true DuplicateDefault"]);
        let message = &conditions(&default("b"), &health, &catalog, Time(0))[0].message;
        assert_eq!(message, "a is the default and takes precedence");
    }

    #[test]
    fn a_quota_that_is_used_up_is_told_and_is_nothing_to_mend() {
        let held = HealthEvent::Held(Quota::Day, "the server refused the sender: 550 5.4.5".into());
        let health = Health { healthy: Some(true), ..Health::default() };
        let health = health.after(&held, 0, HealthIntervals::default(), Time(0));
        let catalog = Catalog::default();
        let expected = ["Ready=true Configured", "Healthy=true HealthCheckPassed"];
        assert_eq!(shown(&provider("a"), &health, &catalog), expected);
        let message = |hours: u64| {
            let now = Time(hours * 3_600_000);
            conditions(&provider("a"), &health, &catalog, now)[0].message.clone()
        };
        let told =
            "the server's quota is used up, mail waits: the server refused the sender: 550 5.4.5";
        assert_eq!(message(0), told);
        assert_eq!(message(2), "the provider is configured", "its time is over");
    }

    #[test]
    fn a_message_names_the_cause_and_no_password() {
        let catalog = Catalog::default();
        let message = |provider: &Provider, health: &Health| {
            conditions(provider, health, &catalog, Time(0))[0].message.clone()
        };
        assert_eq!(message(&provider("a"), &failed()), "connection refused");
        let no_key = with_password(Password::KeyNotFound("default/smtp".into(), "key".into()));
        let shown = "the Secret default/smtp has no value for the key key";
        assert_eq!(message(&no_key, &failed()), shown);
        let loaded = with_password(Password::Loaded("hunter2".into()));
        assert!(
            !format!("{:?}", conditions(&loaded, &failed(), &catalog, Time(0))).contains("hunter2")
        );
    }
}
