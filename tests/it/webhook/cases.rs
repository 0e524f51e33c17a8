//! Specs of a MailProvider, good and bad, and what is said of each: by the verdict of the webhook
//! alone, and by a real API server with the CRD and the webhook, where the schema speaks first.

use serde_json::{Value, json};

pub struct Case {
    pub title: &'static str,
    pub spec: Value,
    pub expected: Expected,
}

/// Each with a part of the text.
#[derive(Clone, Copy)]
pub enum Expected {
    Allowed,
    Warned(&'static str),
    /// Both refuse it; the API server never asks the webhook.
    RefusedBySchema(&'static str),
    /// No schema can say it.
    RefusedByWebhook(&'static str),
}

pub fn cases() -> Vec<Case> {
    use Expected::{Allowed, RefusedBySchema, RefusedByWebhook, Warned};
    let host = "/smtp/host";
    let bad_host = RefusedByWebhook("spec.smtp.host: Invalid value: ");
    let sender = "/sender/address";
    let bad_sender = RefusedBySchema("spec.sender.address: Invalid value: ");
    let bad_name = RefusedByWebhook("spec.sender.name: Invalid value: ");
    let case = |title, changes: &[(&str, Value)], expected| {
        let spec = changed(changes);
        Case { title, spec, expected }
    };
    vec![
        case("as it should be", &[], Allowed),
        case(
            "the highest numbers",
            &[("/smtp/port", json!(65535)), ("/retry", highest())],
            Allowed,
        ),
        case("an IPv4 address", &[(host, json!("192.168.1.100"))], Allowed),
        case("a host of one label", &[(host, json!("mailhog"))], Allowed),
        case("a name of 100 characters", &[("/sender/name", json!("ü".repeat(100)))], Allowed),
        case(
            "a relay without a password",
            &[("/smtp/username", Value::Null), ("/smtp/passwordRef", Value::Null)],
            Warned("No SMTP authentication configured"),
        ),
        case("plaintext", &[("/smtp/disableTLS", json!(true))], Warned("spec.smtp.disableTLS: ")),
        case(
            "any certificate",
            &[("/smtp/insecureSkipVerify", json!(true))],
            Warned("spec.smtp.insecureSkipVerify: "),
        ),
        case(
            "an authority that is no PEM",
            &[("/smtp/certificateAuthority", json!("fake"))],
            Warned("spec.smtp.certificateAuthority: not a PEM certificate"),
        ),
        case(
            "a username without a password",
            &[("/smtp/passwordRef", Value::Null)],
            RefusedBySchema(
                "spec.smtp.passwordRef: Required value: passwordRef must be specified when \
                 username is provided",
            ),
        ),
        case(
            "a password without a username",
            &[("/smtp/username", Value::Null)],
            RefusedBySchema(
                "spec.smtp.username: Required value: username must be specified when passwordRef \
                 is provided",
            ),
        ),
        case(
            "a reference without a name",
            &[("/smtp/passwordRef/name", json!(""))],
            RefusedByWebhook("spec.smtp.passwordRef.name: Required value"),
        ),
        case(
            "a reference without a key",
            &[("/smtp/passwordRef/key", json!(""))],
            RefusedByWebhook("spec.smtp.passwordRef.key: Required value"),
        ),
        case(
            "a reference to another path of the API",
            &[("/smtp/passwordRef/name", json!("../other/secret"))],
            RefusedByWebhook("spec.smtp.passwordRef.name: Invalid value: "),
        ),
        case(
            "a reference to the Secret of another namespace",
            &[("/smtp/passwordRef/namespace", json!("kube-system"))],
            RefusedByWebhook("spec.smtp.passwordRef.namespace: Forbidden: "),
        ),
        case("access tokens", &[with_oauth2(&[]), no_password()], Allowed),
        case(
            "access tokens for a public client",
            &[
                with_oauth2(&[
                    ("clientSecretRef", Value::Null),
                    ("refreshTokenRef", json!({"name": "s"})),
                ]),
                no_password(),
            ],
            Allowed,
        ),
        case(
            "a token server on this machine",
            &[with_oauth2(&[("tokenURL", json!("http://127.0.0.1:8080/token"))]), no_password()],
            Allowed,
        ),
        case(
            "a password for Office 365",
            &[(host, json!("smtp.office365.com"))],
            Warned("spec.smtp.passwordRef: at the end of December 2026 Microsoft switches "),
        ),
        case(
            "access tokens and a password",
            &[with_oauth2(&[])],
            RefusedBySchema(
                "spec.smtp.oauth2: Forbidden: oauth2 and passwordRef exclude each other",
            ),
        ),
        case(
            "access tokens without a username",
            &[with_oauth2(&[]), no_password(), ("/smtp/username", json!(""))],
            RefusedBySchema(
                "spec.smtp.username: Required value: username must be specified when oauth2",
            ),
        ),
        case(
            "access tokens without TLS",
            &[with_oauth2(&[]), no_password(), ("/smtp/disableTLS", json!(true))],
            RefusedBySchema(
                "spec.smtp.disableTLS: Forbidden: with oauth2 TLS must not be disabled",
            ),
        ),
        case(
            "access tokens for nothing",
            &[with_oauth2(&[("clientSecretRef", Value::Null)]), no_password()],
            RefusedBySchema(
                "spec.smtp.oauth2.clientSecretRef: Required value: clientSecretRef must be \
                 specified when refreshTokenRef is not",
            ),
        ),
        case(
            "a token server in plaintext",
            &[with_oauth2(&[("tokenURL", json!("http://login.example.com/"))]), no_password()],
            RefusedBySchema(
                "tokenURL must begin with https://, or with http:// and a loopback host",
            ),
        ),
        case(
            "a token server whose name only looks like a loopback one",
            &[with_oauth2(&[("tokenURL", json!("http://127.0.0.1.example.com"))]), no_password()],
            RefusedBySchema(
                "tokenURL must begin with https://, or with http:// and a loopback host",
            ),
        ),
        case(
            "a password in the URL of a token server",
            &[with_oauth2(&[("tokenURL", json!("https://u:p@example.com/"))]), no_password()],
            RefusedByWebhook("spec.smtp.oauth2.tokenURL: Invalid value: must not have a user or"),
        ),
        case(
            "no token server",
            &[with_oauth2(&[("tokenURL", Value::Null)]), no_password()],
            RefusedBySchema("spec.smtp.oauth2.tokenURL: Required value"),
        ),
        case(
            "an empty client ID",
            &[with_oauth2(&[("clientID", json!(""))]), no_password()],
            RefusedBySchema("spec.smtp.oauth2.clientID"),
        ),
        case(
            "a scope of several lines",
            &[with_oauth2(&[("scope", json!("a\nb"))]), no_password()],
            RefusedByWebhook("spec.smtp.oauth2.scope: Invalid value: "),
        ),
        case(
            "a client secret without a key",
            &[with_oauth2(&[("clientSecretRef", json!({"name": "s", "key": ""}))]), no_password()],
            RefusedByWebhook("spec.smtp.oauth2.clientSecretRef.key: Required value"),
        ),
        case(
            "a refresh token of another namespace",
            &[
                with_oauth2(&[(
                    "refreshTokenRef",
                    json!({"name": "s", "namespace": "kube-system"}),
                )]),
                no_password(),
            ],
            RefusedByWebhook("spec.smtp.oauth2.refreshTokenRef.namespace: Forbidden: "),
        ),
        case(
            "a misspelt field of access tokens",
            &[with_oauth2(&[("tokenUrl", json!("https://example.com"))]), no_password()],
            RefusedBySchema("unknown field \"spec.smtp.oauth2.tokenUrl\""),
        ),
        case(
            "no sender",
            &[("/sender", Value::Null)],
            RefusedBySchema("spec.sender: Required value"),
        ),
        case(
            "a port in quotes",
            &[("/smtp/port", json!("587"))],
            RefusedBySchema("spec.smtp.port in body must be of type integer: \"string\""),
        ),
        case(
            "a port that is too high",
            &[("/smtp/port", json!(65536))],
            RefusedBySchema("spec.smtp.port: Invalid value: 65536: "),
        ),
        case("no host", &[(host, json!(""))], RefusedBySchema("spec.smtp.host")),
        case("a password in the host", &[(host, json!("user:pass@smtp.example.com"))], bad_host),
        case("a space in the host", &[(host, json!("smtp example.com"))], bad_host),
        case("a command in the host", &[(host, json!("smtp.example.com\r\nRSET"))], bad_host),
        case("a host that is an underscore", &[(host, json!("_"))], bad_host),
        case("a host with an empty label", &[(host, json!("smtp..example.com"))], bad_host),
        case("an address with a zone", &[(host, json!("fe80::1%eth0"))], bad_host),
        case("any host", &[(host, json!("*.example.com"))], bad_host),
        case("an address without a domain", &[(sender, json!("noreply@"))], bad_sender),
        case("an address and a name", &[(sender, json!("Bob <noreply@example.com>"))], bad_sender),
        case(
            "a newline behind the address",
            &[(sender, json!("noreply@example.com\n"))],
            bad_sender,
        ),
        case("an empty label in the domain", &[(sender, json!("a@.example.com"))], bad_sender),
        case("two addresses", &[(sender, json!("a@example.com,b@example.com"))], bad_sender),
        case(
            "a label that begins with a hyphen",
            &[(sender, json!("a@-example.com"))],
            RefusedByWebhook("spec.sender.address: Invalid value: "),
        ),
        case("a short address", &[(sender, json!("a@"))], RefusedBySchema("spec.sender.address")),
        case("NUL in the name", &[("/sender/name", json!("a\0b"))], bad_name),
        case("an escape sequence in the name", &[("/sender/name", json!("\u{1b}[2J"))], bad_name),
        case(
            "a backoff that is too short",
            &[("/retry", json!({"initialBackoffMs": 9}))],
            RefusedBySchema("spec.retry.initialBackoffMs: Invalid value: 9: "),
        ),
        case(
            "a backoff with a unit",
            &[("/retry", json!({"initialBackoffMs": "100ms"}))],
            RefusedBySchema("spec.retry.initialBackoffMs in body must be of type integer"),
        ),
        case(
            "a queue that is too small",
            &[("/retry", json!({"queueSize": 9}))],
            RefusedBySchema("spec.retry.queueSize: Invalid value: 9: "),
        ),
        case(
            "an authority that is too long",
            &[("/smtp/certificateAuthority", json!("A".repeat(70_000)))],
            RefusedByWebhook("spec.smtp.certificateAuthority: Invalid value: 70000 bytes"),
        ),
        case(
            "a field that there is not",
            &[("/smtp/tls", json!(true))],
            RefusedBySchema("unknown field \"spec.smtp.tls\""),
        ),
        case(
            "a misspelt field",
            &[("/retries", json!({"count": 5}))],
            RefusedBySchema("unknown field \"spec.retries\""),
        ),
    ]
}

/// Access tokens by a client with a secret, with some fields replaced; null leaves one out.
fn with_oauth2(changes: &[(&str, Value)]) -> (&'static str, Value) {
    let mut oauth2 = json!({
        "tokenURL": "https://login.example.com/token",
        "clientID": "client",
        "clientSecretRef": {"name": "smtp-secret"},
    });
    for (field, value) in changes {
        oauth2[*field] = value.clone();
    }
    if let Some(fields) = oauth2.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    ("/smtp/oauth2", oauth2)
}

fn no_password() -> (&'static str, Value) {
    ("/smtp/passwordRef", Value::Null)
}

fn highest() -> Value {
    json!({"count": 10, "initialBackoffMs": 60000, "queueSize": 10000})
}

/// A good spec with some fields replaced; null removes one.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut spec = json!({
        "displayName": "Production SMTP",
        "smtp": {
            "host": "smtp.example.com",
            "port": 587,
            "username": "breakglass@example.com",
            "passwordRef": {"name": "smtp-secret", "key": "password"},
        },
        "sender": {"address": "noreply@example.com", "name": "Breakglass Notifications"},
    });
    for (path, value) in changes {
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let parent = spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        match value {
            Value::Null => parent.remove(field),
            value => parent.insert(field.to_owned(), value.clone()),
        };
    }
    spec
}
