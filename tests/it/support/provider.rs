//! The manifests of a test: JSON documents, which are YAML.

use serde_json::{Value, json};

/// One `MailProvider` of the providers file. The first of a file is the default.
#[derive(Clone)]
pub struct Provider {
    name: String,
    smtp: Value,
    retry: Value,
    limits: Option<Value>,
    /// The `stringData` of its Secret.
    secret: Option<Value>,
    sender: Value,
    is_disabled: bool,
}

impl Provider {
    /// Speaks to `127.0.0.1:port` without TLS, tries once, and takes all that the tests post.
    pub fn plain(name: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            smtp: json!({"host": "127.0.0.1", "port": port, "disableTLS": true}),
            retry: json!({"count": 0, "initialBackoffMs": 10, "queueSize": 10000}),
            limits: None,
            secret: None,
            sender: json!({"address": "noreply@example.com"}),
            is_disabled: false,
        }
    }

    /// Speaks TLS to `host:port` (from the first byte on port 465) and trusts `ca`, a PEM.
    pub fn tls(name: impl Into<String>, host: &str, port: u16, ca: &str) -> Self {
        let smtp = json!({"host": host, "port": port, "certificateAuthority": ca});
        Self { smtp, ..Self::plain(name, port) }
    }

    /// Logs in.
    pub fn login(mut self, username: &str, password: &str) -> Self {
        self.smtp["username"] = username.into();
        self.smtp["passwordRef"] = json!({"name": self.name});
        self.secret(Some(json!({"password": password})))
    }

    /// Logs in with access tokens from `token_url`, as a client with a secret.
    pub fn oauth2(mut self, token_url: &str, username: &str, client_secret: &str) -> Self {
        self.smtp["username"] = username.into();
        self.smtp["oauth2"] = json!({
            "tokenURL": token_url, "clientID": "client-7", "scope": "mail.send openid",
            "clientSecretRef": {"name": self.name},
        });
        self.secret(Some(json!({"clientSecret": client_secret})))
    }

    /// The same with a refresh token.
    pub fn refresh(mut self, refresh_token: &str) -> Self {
        self.smtp["oauth2"]["refreshTokenRef"] = json!({"name": self.name});
        if let Some(secret) = &mut self.secret {
            secret["refreshToken"] = refresh_token.into();
        }
        self
    }

    /// The same with another Secret, given as its `stringData`, or without one.
    pub fn secret(mut self, string_data: Option<Value>) -> Self {
        self.secret = string_data;
        self
    }

    /// Speaks to another host.
    pub fn host(mut self, host: &str) -> Self {
        self.smtp["host"] = host.into();
        self
    }

    /// Retries `count` times, the first time after `backoff_ms`.
    pub fn retry(mut self, count: u32, backoff_ms: u32) -> Self {
        self.retry["count"] = count.into();
        self.retry["initialBackoffMs"] = backoff_ms.into();
        self
    }

    /// Takes so many jobs.
    pub fn queue_size(mut self, jobs_count: usize) -> Self {
        self.retry["queueSize"] = jobs_count.into();
        self
    }

    /// Keeps these limits.
    pub fn limits(mut self, limits: Value) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sends from this address.
    pub fn sender(mut self, address: &str) -> Self {
        self.sender["address"] = address.into();
        self
    }

    /// Sends under a display name.
    pub fn sender_name(mut self, name: &str) -> Self {
        self.sender["name"] = name.into();
        self
    }

    /// Takes no part.
    pub fn disabled(mut self) -> Self {
        self.is_disabled = true;
        self
    }

    /// Its manifests.
    pub fn manifests(&self, is_default: bool) -> String {
        let mut spec = json!({
            "default": is_default, "disabled": self.is_disabled,
            "smtp": self.smtp, "sender": self.sender, "retry": self.retry,
        });
        if let Some(limits) = &self.limits {
            spec["limits"] = limits.clone();
        }
        let provider = object("MailProvider", &json!({"name": self.name}), &spec);
        let secret = self.secret.as_ref().map_or_else(String::new, |string_data| {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name},
                "type": "Opaque", "stringData": string_data,
            });
            format!("---\n{secret}\n")
        });
        provider + &secret
    }
}

/// The manifests of all of them; the first is the default.
pub fn manifests(providers: &[Provider]) -> String {
    providers.iter().enumerate().map(|(n, provider)| provider.manifests(n == 0)).collect()
}

/// A `BreakglassEscalation`, named `name` or `namespace/name`.
pub fn escalation(name: &str, spec: &Value) -> String {
    object("BreakglassEscalation", &metadata(name), spec)
}

/// A `ClusterConfig` that chooses a provider.
pub fn cluster(name: &str, provider: &str) -> String {
    object("ClusterConfig", &metadata(name), &json!({"mailProvider": provider}))
}

fn metadata(name: &str) -> Value {
    match name.split_once('/') {
        Some((namespace, name)) => json!({"namespace": namespace, "name": name}),
        None => json!({"name": name}),
    }
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> String {
    let version = "breakglass.t-caas.telekom.com/v1alpha1";
    let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
    format!("---\n{object}\n")
}
