//! What a manifest means: the rules that a schema cannot say, and the values of the domain.
//!
//! No error and no warning ever shows a password.

use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::crd::{
    BreakglassEscalationSpec, ClusterConfigSpec, LimitsConfig, MailProviderSpec, SmtpConfig,
};
use super::field::{FieldError, quoted};
use super::host;
use super::login;
use super::schema::{self, UnknownFields};
use crate::core::login::Purpose;
use crate::core::notification::Address;
use crate::core::provider::{
    CertificateAuthority, Credentials, Limits, Password, Provider, ProviderName, RetryPolicy,
    Security, Sender, Smtp, is_dns_subdomain,
};
use crate::core::route::{Cluster, Escalation};

/// More than any bundle of certificates that is meant to be trusted for one server.
const CERTIFICATE_AUTHORITY_BYTES_MAX: usize = 64 * 1024;

/// Which Secrets a MailProvider may name.
///
/// Whoever may write a MailProvider could otherwise send any Secret to a host of his own.
#[derive(Clone, Copy, Debug)]
pub struct SecretNamespaces<'a> {
    /// The namespace of this process: where a reference without a namespace leads.
    pub own: &'a str,
    /// Those listed in `--secret-namespaces`.
    pub allowed: &'a [String],
}

impl SecretNamespaces<'_> {
    pub(super) fn allows(&self, namespace: &str) -> bool {
        namespace == self.own || self.allowed.iter().any(|allowed| allowed == namespace)
    }
}

/// A provider, and what the author of its manifest should know.
#[derive(Clone, Debug)]
pub struct Converted {
    /// What the manifest means.
    pub provider: Provider,
    /// One line each, starting with the path of the field.
    pub warnings: Vec<String>,
}

/// The provider that a manifest means. `password` looks up namespace, name and key; it is asked
/// only for what the rules allow.
///
/// # Errors
/// Everything that breaks the schema, its CEL rules, or a rule that these cannot say.
pub fn mail_provider(
    name: &str,
    spec: &Value,
    unknown: UnknownFields,
    namespaces: SecretNamespaces<'_>,
    password: &dyn Fn(&str, &str, &str) -> Password,
) -> Result<Converted, Vec<FieldError>> {
    let read = schema::read::<MailProviderSpec>(spec, "spec", unknown);
    let mut errors = read.errors;
    let Some(spec) = read.value else { return Err(errors) };
    // A limit of the schema may be a rule of the conversion too: one of them is enough.
    let more = validate(name, &spec, namespaces);
    let more = more.into_iter().filter(|more| errors.iter().all(|error| error.path != more.path));
    errors.extend(more.collect::<Vec<_>>());
    if !errors.is_empty() {
        return Err(errors);
    }
    let provider = provider(name, &spec, namespaces, password).ok_or(errors)?;
    let mut warnings = warnings(&spec);
    warnings.extend(secret_warnings(&provider));
    Ok(Converted { provider, warnings })
}

fn secret_warnings(provider: &Provider) -> Vec<String> {
    let secrets = provider.smtp.credentials.iter().flat_map(Credentials::secrets);
    let warning = |(purpose, secret): (Purpose, &Password)| {
        Some(format!("spec.smtp.{}: {}", purpose.field, secret.missing()?))
    };
    secrets.filter_map(warning).collect()
}

/// All rules of a MailProvider that its schema cannot say.
fn validate(
    name: &str,
    spec: &MailProviderSpec,
    namespaces: SecretNamespaces<'_>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(object_name("metadata.name", name).err());
    smtp_rules(&spec.smtp, namespaces, &mut errors);
    if let Err(rule) = sender_address(&spec.sender.address) {
        let shown = quoted(&spec.sender.address);
        let detail = format!("the address {rule}");
        errors.push(FieldError::invalid("spec.sender.address", shown, &detail));
    }
    if let Some(name) = &spec.sender.name {
        const PATH: &str = "spec.sender.name";
        if name.chars().any(char::is_control) {
            let detail = "must not contain control characters";
            errors.push(FieldError::invalid(PATH, quoted(name), detail));
        }
        if name.chars().count() > 100 {
            let detail = "must be at most 100 characters";
            errors.push(FieldError::invalid(PATH, quoted(name), detail));
        }
    }
    errors
}

fn smtp_rules(smtp: &SmtpConfig, namespaces: SecretNamespaces<'_>, errors: &mut Vec<FieldError>) {
    if smtp.host.is_empty() {
        errors.push(FieldError::required("spec.smtp.host", "SMTP host is required"));
    } else if !host::is_host(&smtp.host) {
        let shown = quoted(&host::shown(&smtp.host));
        let detail = "must be a DNS name or an IP address, without port, user or zone";
        errors.push(FieldError::invalid("spec.smtp.host", shown, detail));
    }
    login::rules(smtp, namespaces, errors);
    let authority_bytes = smtp.certificate_authority.as_ref().map_or(0, String::len);
    if authority_bytes > CERTIFICATE_AUTHORITY_BYTES_MAX {
        errors.push(FieldError::invalid(
            "spec.smtp.certificateAuthority",
            format!("{authority_bytes} bytes"),
            "must be at most 64 KiB",
        ));
    }
}

/// Checks the name of an object: a DNS subdomain (RFC 1123).
///
/// # Errors
/// When it is empty or not such a name.
pub fn object_name(path: &str, name: &str) -> Result<(), FieldError> {
    if name.is_empty() {
        return Err(FieldError::required(path, "a name is required"));
    }
    if is_dns_subdomain(name) {
        return Ok(());
    }
    let detail = "must be a lowercase RFC 1123 subdomain of at most 253 characters: \
                  letters, digits, '-' and '.', with a letter or digit at either end";
    Err(FieldError::invalid(path, quoted(name), detail))
}

/// Checks the name of a namespace: one DNS label (RFC 1123).
///
/// # Errors
/// When it is not such a name.
pub fn namespace_name(path: &str, namespace: &str) -> Result<(), FieldError> {
    if is_dns_subdomain(namespace) && !namespace.contains('.') {
        return Ok(());
    }
    let detail = "must be a lowercase RFC 1123 label of at most 63 characters";
    Err(FieldError::invalid(path, quoted(namespace), detail))
}

/// A sender is known to the whole world or to this machine.
fn sender_address(text: &str) -> Result<Address, &'static str> {
    let address = Address::parse(text)?;
    if address.domain().contains('.') || address.domain() == "localhost" {
        Ok(address)
    } else {
        Err("must have a domain of two labels or more, or localhost")
    }
}

/// What is allowed but most likely not meant, or not meant for long.
fn warnings(spec: &MailProviderSpec) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(text.to_owned());
    let smtp = &spec.smtp;
    if smtp.insecure_skip_verify {
        warn("spec.smtp.insecureSkipVerify: any certificate is taken; use it for testing only");
    }
    if smtp.disable_tls {
        warn("spec.smtp.disableTLS: mail and password are sent in plaintext; never in production");
    }
    if let Some(text) = login::warning(smtp) {
        warn(text);
    }
    if smtp.username.as_ref().is_none_or(String::is_empty) && smtp.password_ref.is_none() {
        warn("spec.smtp: No SMTP authentication configured");
    }
    if certificate_authority(smtp) == Some(CertificateAuthority::Unreadable) {
        warn(
            "spec.smtp.certificateAuthority: not a PEM certificate; \
             nothing is sent through this provider until it is",
        );
    }
    warnings
}

/// Readable when it holds certificates, at least one and all of them whole. Empty is none, as
/// everywhere in Kubernetes.
fn certificate_authority(smtp: &SmtpConfig) -> Option<CertificateAuthority> {
    let pem = smtp.certificate_authority.as_ref().filter(|pem| !pem.is_empty())?;
    let mut roots = RootCertStore::empty();
    let all_read = CertificateDer::pem_slice_iter(pem.as_bytes())
        .all(|certificate| certificate.is_ok_and(|der| roots.add(der).is_ok()));
    if all_read && !roots.is_empty() {
        Some(CertificateAuthority::Pem(pem.clone()))
    } else {
        Some(CertificateAuthority::Unreadable)
    }
}

/// Nothing when a name or an address is none, which [`validate`] has told.
fn provider(
    name: &str,
    spec: &MailProviderSpec,
    namespaces: SecretNamespaces<'_>,
    password: &dyn Fn(&str, &str, &str) -> Password,
) -> Option<Provider> {
    let name = ProviderName::new(name)?;
    let address = sender_address(&spec.sender.address).ok()?;
    let smtp = &spec.smtp;
    let credentials = login::credentials(smtp, namespaces, password);
    let not_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Some(Provider {
        name,
        display_name: not_empty(&spec.display_name),
        default: spec.default,
        disabled: spec.disabled,
        created: None,
        smtp: Smtp {
            host: smtp.host.clone(),
            port: smtp.port,
            security: Security::of(smtp.port, credentials.is_some(), smtp.disable_tls),
            insecure_skip_verify: smtp.insecure_skip_verify,
            certificate_authority: certificate_authority(smtp),
            credentials,
        },
        sender: Sender { address, name: not_empty(&spec.sender.name) },
        retry: RetryPolicy {
            count: spec.retry.count,
            initial_backoff: Duration::from_millis(spec.retry.initial_backoff_ms.into()),
            queue_size: spec.retry.queue_size.into(),
        },
        limits: spec.limits.as_ref().map(limits).unwrap_or_default(),
    })
}

fn limits(limits: &LimitsConfig) -> Limits {
    Limits {
        messages_per_minute: limits.messages_per_minute,
        messages_per_day: limits.messages_per_day,
        max_connections: limits.max_connections,
    }
}

/// The escalation that a manifest means, without those of its `notificationMails` that are no
/// addresses, and one error for each of them.
#[must_use]
pub fn escalation(spec: &BreakglassEscalationSpec) -> (Escalation, Vec<FieldError>) {
    let mut errors = Vec::new();
    let mut notification_mails = Vec::new();
    for (index, text) in spec.notification_mails.iter().enumerate() {
        match Address::parse(text) {
            Ok(address) => notification_mails.push(address),
            Err(rule) => {
                let path = format!("spec.notificationMails[{index}]");
                let detail = format!("the address {rule}");
                errors.push(FieldError::invalid(&path, quoted(text), &detail));
            }
        }
    }
    let mail_provider = spec.mail_provider.clone().filter(|name| !name.is_empty());
    (Escalation { mail_provider, notification_mails }, errors)
}

/// The cluster that a manifest means.
#[must_use]
pub fn cluster(spec: &ClusterConfigSpec) -> Cluster {
    Cluster { mail_provider: spec.mail_provider.clone().filter(|name| !name.is_empty()) }
}

#[cfg(test)]
mod tests;
