//! What a manifest says of the login: the rules that a schema cannot say, the values, the warnings.
//!
//! No error and no warning shows a secret, nor a URL, in which one may have been put by mistake.

use super::convert::{SecretNamespaces, namespace_name, object_name};
use super::crd::{
    ClientSecretReference, OAuth2Config, RefreshTokenReference, SecretKeyReference, SmtpConfig,
};
use super::field::{FieldError, quoted};
use super::host;
use crate::core::provider::{Credentials, Grant, Login, OAuth2, Password};

/// One key of one Secret, whichever field names it.
#[derive(Clone, Copy)]
struct Reference<'a> {
    path: &'static str,
    name: &'a str,
    key: &'a str,
    namespace: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn password(of: &'a SecretKeyReference) -> Self {
        Self::new("spec.smtp.passwordRef", &of.name, &of.key, of.namespace.as_deref())
    }

    fn client_secret(of: &'a ClientSecretReference) -> Self {
        let path = "spec.smtp.oauth2.clientSecretRef";
        Self::new(path, &of.name, &of.key, of.namespace.as_deref())
    }

    fn refresh_token(of: &'a RefreshTokenReference) -> Self {
        let path = "spec.smtp.oauth2.refreshTokenRef";
        Self::new(path, &of.name, &of.key, of.namespace.as_deref())
    }

    /// An empty namespace is none, as everywhere in Kubernetes.
    fn new(path: &'static str, name: &'a str, key: &'a str, namespace: Option<&'a str>) -> Self {
        Self { path, name, key, namespace: namespace.filter(|namespace| !namespace.is_empty()) }
    }

    fn rules(self, namespaces: SecretNamespaces<'_>, errors: &mut Vec<FieldError>) {
        errors.extend(object_name(&format!("{}.name", self.path), self.name).err());
        if self.key.is_empty() {
            let detail = "the key in the Secret must not be empty";
            errors.push(FieldError::required(&format!("{}.key", self.path), detail));
        }
        let Some(namespace) = self.namespace else { return };
        let path = format!("{}.namespace", self.path);
        if let Err(error) = namespace_name(&path, namespace) {
            errors.push(error);
        } else if !namespaces.allows(namespace) {
            let detail = format!(
                "Secrets are read from namespace {} and from those listed in --secret-namespaces \
                 only",
                namespaces.own
            );
            errors.push(FieldError::forbidden(&path, &detail));
        }
    }
}

/// What is wrong with it.
pub(super) fn rules(
    smtp: &SmtpConfig,
    namespaces: SecretNamespaces<'_>,
    errors: &mut Vec<FieldError>,
) {
    let username = smtp.username.as_deref().unwrap_or_default();
    if username.chars().any(char::is_control) {
        let detail = "must not contain control characters";
        errors.push(FieldError::invalid("spec.smtp.username", quoted(username), detail));
    }
    if let Some(reference) = &smtp.password_ref {
        Reference::password(reference).rules(namespaces, errors);
    }
    let Some(oauth2) = &smtp.oauth2 else { return };
    if let Err(rule) = token_url(&oauth2.token_url) {
        errors.push(FieldError::invalid_hidden("spec.smtp.oauth2.tokenURL", rule));
    }
    let is_printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    for (path, text) in [
        ("spec.smtp.oauth2.clientID", Some(&oauth2.client_id)),
        ("spec.smtp.oauth2.scope", oauth2.scope.as_ref()),
    ] {
        if let Some(text) = text.filter(|text| !is_printable(text)) {
            let detail = "must be printable ASCII (RFC 6749 A)";
            errors.push(FieldError::invalid(path, quoted(text), detail));
        }
    }
    if let Some(reference) = &oauth2.client_secret_ref {
        Reference::client_secret(reference).rules(namespaces, errors);
    }
    if let Some(reference) = &oauth2.refresh_token_ref {
        Reference::refresh_token(reference).rules(namespaces, errors);
    }
}

/// Checks a token endpoint (RFC 6749 3.2). What is posted there is a secret, so it is encrypted or
/// stays on this machine; a secret in the URL itself would be shown.
fn token_url(url: &str) -> Result<(), &'static str> {
    let (is_encrypted, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("must begin with https://"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "-._~:/?@!$&'()*+,;=%".contains(c);
    if !path.chars().all(is_of_path) {
        return Err("must be a URL without a fragment, anything else in it percent-encoded");
    }
    if authority.contains('@') {
        return Err("must not have a user or a password in it");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port),
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.parse::<u16>().is_ok_and(|number| number > 0)
                && port.bytes().all(|digit| digit.is_ascii_digit())
        });
    if !host::is_host(host) || host.contains(':') != authority.starts_with('[') || !is_port {
        return Err("must have a DNS name or an IP address, and perhaps a port, behind https://");
    }
    let is_local =
        || host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if is_encrypted || is_local() {
        Ok(())
    } else {
        Err("must begin with https:// unless its host is a loopback one: secrets are posted there")
    }
}

/// The login that it means, with what `lookup` finds for namespace, name and key.
pub(super) fn credentials(
    smtp: &SmtpConfig,
    namespaces: SecretNamespaces<'_>,
    lookup: &dyn Fn(&str, &str, &str) -> Password,
) -> Option<Credentials> {
    let secret = |reference: Reference<'_>| {
        let namespace = reference.namespace.unwrap_or(namespaces.own);
        lookup(namespace, reference.name, reference.key)
    };
    let username = smtp.username.clone()?;
    let login = match (&smtp.oauth2, &smtp.password_ref) {
        (Some(oauth2), _) => Login::OAuth2(oauth2_of(oauth2, &secret)?),
        (None, Some(reference)) => Login::Password(secret(Reference::password(reference))),
        (None, None) => return None,
    };
    Some(Credentials { username, login })
}

/// Nothing when it has neither of the two references, which the schema has told.
fn oauth2_of(config: &OAuth2Config, secret: &dyn Fn(Reference<'_>) -> Password) -> Option<OAuth2> {
    let client_secret = config.client_secret_ref.as_ref();
    let client_secret = client_secret.map(|of| secret(Reference::client_secret(of)));
    let grant = match &config.refresh_token_ref {
        Some(reference) => {
            let refresh_token = secret(Reference::refresh_token(reference));
            Grant::RefreshToken { refresh_token, client_secret }
        }
        None => Grant::ClientCredentials { client_secret: client_secret? },
    };
    Some(OAuth2 {
        token_url: config.token_url.clone(),
        client_id: config.client_id.clone(),
        scope: config.scope.clone().filter(|scope| !scope.trim().is_empty()),
        grant,
    })
}

/// What becomes of a password at this host, where that is known.
///
/// Exchange Online: <https://techcommunity.microsoft.com/blog/exchange/-/4114750> and message MC786329
/// as of 27 January 2026. An administrator can switch passwords on again until a day that is to be
/// told in the second half of 2027.
pub(super) fn warning(smtp: &SmtpConfig) -> Option<&'static str> {
    smtp.password_ref.as_ref()?;
    let host = smtp.host.to_ascii_lowercase();
    if host.ends_with(".office365.com") {
        return Some(
            "spec.smtp.passwordRef: at the end of December 2026 Microsoft switches passwords for \
             SMTP off in existing tenants, until an administrator switches them on again; use \
             spec.smtp.oauth2",
        );
    }
    (host == "smtp-mail.outlook.com").then_some(
        "spec.smtp.passwordRef: Microsoft switched passwords off for Outlook.com in September \
         2024; use spec.smtp.oauth2",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_endpoint_is_encrypted_or_on_this_machine_and_has_no_secret_in_it() {
        for good in [
            "https://login.microsoftonline.com/11111111-2222/oauth2/v2.0/token",
            "https://oauth2.googleapis.com/token",
            "https://login.example.com?p=policy",
            "https://[2001:db8::1]:8443/token",
            "https://10.0.0.1/token",
            "http://localhost/token",
            "http://127.0.0.1:8080/token",
            "http://127.1.2.3:8080",
            "http://[::1]:8080/token",
        ] {
            assert_eq!(token_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://",
            "https:///token",
            "login.example.com/token",
            "HTTPS//login.example.com",
            "ftp://login.example.com/token",
            "http://login.example.com/token",
            "http://localhost.example.com/token",
            "http://127.0.0.1.example.com/token",
            "http://10.0.0.1/token",
            "https://user:secret@login.example.com/token",
            "https://login.example.com@localhost/token",
            "http://localhost:80@login.example.com/token",
            "http://localhost\\@login.example.com/token",
            "https://login.example.com/token#secret",
            "https://login.example.com#secret",
            "https://login.example.com/a token",
            "https://login.example.com/{tenant}/token",
            "https://login.example.com/a\\b",
            "https://login.example.com/[a]",
            "https://login.example.com/töken",
            "https://login.example.com:0/token",
            "https://login.example.com:65536/token",
            "https://login.example.com:+1/token",
            "https://login.example.com:/token",
            "https://2001:db8::1/token",
            "https://[login.example.com]/token",
            "https://[::1/token",
            "https://{tenant}/token",
        ] {
            assert!(token_url(bad).is_err(), "{bad}");
        }
    }
}
