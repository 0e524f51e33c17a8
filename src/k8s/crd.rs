//! The manifests as types. The reference's limits and defaults are attributes of the fields, so
//! that the schema made from a type says the same as the reference.
//!
//! A field that is not listed here is ignored when a manifest is read into these types; whether it
//! is refused is for the reader to say ([`UnknownFields`](super::schema::UnknownFields)).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group and version of the custom resources.
pub const API_VERSION: &str = "breakglass.t-caas.telekom.com/v1alpha1";

/// One SMTP server that mail can leave through, and who the mail is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "breakglass.t-caas.telekom.com",
    version = "v1alpha1",
    kind = "MailProvider",
    plural = "mailproviders",
    shortname = "mp",
    doc = "One SMTP server that breakglass mail can leave through, and who the mail is from.",
    status = "MailProviderStatus",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.smtp.host"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.smtp.port"),
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::duplicated_attributes, reason = "each printer column has a type of its own")]
pub struct MailProviderSpec {
    /// Human-readable name for this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Mark as default provider (only one should be true).
    #[serde(default)]
    pub default: bool,
    /// Temporarily disable provider without deleting.
    #[serde(default)]
    pub disabled: bool,
    /// SMTP server configuration.
    pub smtp: SmtpConfig,
    /// Email sender information.
    pub sender: SenderConfig,
    /// Retry and queue configuration.
    #[serde(default)]
    pub retry: RetryConfig,
    /// What the server takes from us. Mail beyond it waits, or goes on to the next provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsConfig>,
}

/// SMTP server configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.username) || size(self.username) == 0 || has(self.passwordRef) || has(self.oauth2)")
        .message("passwordRef must be specified when username is provided")
        .reason(Reason::FieldValueRequired)
        .field_path(".passwordRef"),
    validation = Rule::new("!has(self.passwordRef) || has(self.username) && size(self.username) > 0")
        .message("username must be specified when passwordRef is provided")
        .reason(Reason::FieldValueRequired)
        .field_path(".username"),
    validation = Rule::new("!has(self.oauth2) || has(self.username) && size(self.username) > 0")
        .message("username must be specified when oauth2 is provided: it names the mailbox")
        .reason(Reason::FieldValueRequired)
        .field_path(".username"),
    validation = Rule::new("!has(self.oauth2) || !has(self.passwordRef)")
        .message("oauth2 and passwordRef exclude each other")
        .reason(Reason::FieldValueForbidden)
        .field_path(".oauth2"),
    validation = Rule::new("!has(self.oauth2) || !has(self.disableTLS) || !self.disableTLS")
        .message("with oauth2 TLS must not be disabled: whoever reads an access token can use it")
        .reason(Reason::FieldValueForbidden)
        .field_path(".disableTLS"),
)]
#[serde(rename_all = "camelCase")]
pub struct SmtpConfig {
    /// SMTP server hostname or IP address.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// SMTP port, common: 587, 465, 25.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// SMTP authentication username. Needs passwordRef or oauth2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Reference to secret containing password. Needs username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<SecretKeyReference>,
    /// Access tokens in place of a password (AUTH XOAUTH2). Needs username, the mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2Config>,
    /// Skip TLS cert verification (testing only!).
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// PEM-encoded CA certificate for TLS, trusted instead of the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// Disable TLS/STARTTLS entirely (for dev servers like MailHog).
    #[serde(default, rename = "disableTLS")]
    pub disable_tls: bool,
}

/// One key of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the secret.
    pub name: String,
    /// Key in the secret.
    #[serde(default = "password_key")]
    pub key: String,
    /// Namespace of the secret; the mailer's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn password_key() -> String {
    "password".to_owned()
}

/// Where access tokens come from: by client credentials, or by a refresh token where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.clientSecretRef) || has(self.refreshTokenRef)")
        .message("clientSecretRef must be specified when refreshTokenRef is not")
        .reason(Reason::FieldValueRequired)
        .field_path(".clientSecretRef"),
    validation = Rule::new(r"self.tokenURL.matches('^(https://[^/]|http://(localhost|127(\\.[0-9]{1,3}){3}|\\[::1\\])([:/?]|$))')")
        .message("tokenURL must begin with https://, or with http:// and a loopback host")
        .reason(Reason::FieldValueInvalid)
        .field_path(".tokenURL"),
)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2Config {
    /// Token endpoint of the authorization server: https, or http to a loopback host.
    #[serde(rename = "tokenURL")]
    #[schemars(length(min = 1, max = 2048))]
    pub token_url: String,
    /// Client (application) ID.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 512))]
    pub client_id: String,
    /// What the tokens are for: scopes, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub scope: Option<String>,
    /// Reference to secret containing client secret. May be left out with refreshTokenRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<ClientSecretReference>,
    /// Reference to secret containing refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_ref: Option<RefreshTokenReference>,
}

/// One key of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretReference {
    /// Name of the secret.
    pub name: String,
    /// Key in the secret.
    #[serde(default = "client_secret_key")]
    pub key: String,
    /// Namespace of the secret; the mailer's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn client_secret_key() -> String {
    "clientSecret".to_owned()
}

/// One key of one Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshTokenReference {
    /// Name of the secret.
    pub name: String,
    /// Key in the secret.
    #[serde(default = "refresh_token_key")]
    pub key: String,
    /// Namespace of the secret; the mailer's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn refresh_token_key() -> String {
    "refreshToken".to_owned()
}

/// Email sender information.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SenderConfig {
    /// Email address.
    #[schemars(
        length(min = 3, max = 254),
        regex(pattern = r"^[^@\s]+@([^@\s.]+(\.[^@\s.]+)+|localhost)$")
    )]
    pub address: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
}

/// Retry and queue configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConfig {
    /// Number of retry attempts.
    #[schemars(range(min = 0, max = 10))]
    pub count: u16,
    /// Initial backoff in milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub initial_backoff_ms: u16,
    /// Max pending emails in queue.
    #[schemars(range(min = 10, max = 10_000))]
    pub queue_size: u16,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { count: 3, initial_backoff_ms: 100, queue_size: 1000 }
    }
}

/// What the server takes from us. Each limit that is left out is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsConfig {
    /// Max messages within any 60 seconds; those beyond wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_minute: Option<u32>,
    /// Max messages within any 24 hours, also over restarts. Those beyond go on to the next provider, or
    /// wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub messages_per_day: Option<u32>,
    /// Max connections at once, health checks included; --max-connections when left out, without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_connections: Option<u16>,
}

/// What is read of a BreakglassEscalation. It has many more fields, for the breakglass controller.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema,
)]
#[kube(
    group = "breakglass.t-caas.telekom.com",
    version = "v1alpha1",
    kind = "BreakglassEscalation",
    plural = "breakglassescalations",
    namespaced,
    doc = "The part of a BreakglassEscalation that the mailer reads; the rest is kept as it is."
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct BreakglassEscalationSpec {
    /// The MailProvider for this escalation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_provider: Option<String>,
    /// Who is notified when a notification names no recipients.
    #[serde(default)]
    pub notification_mails: Vec<String>,
}

/// What is read of a ClusterConfig. It has many more fields, for the breakglass controller.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema,
)]
#[kube(
    group = "breakglass.t-caas.telekom.com",
    version = "v1alpha1",
    kind = "ClusterConfig",
    plural = "clusterconfigs",
    namespaced,
    doc = "The part of a ClusterConfig that the mailer reads; the rest is kept as it is."
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfigSpec {
    /// The MailProvider for this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_provider: Option<String>,
}

/// What the controller says of a MailProvider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailProviderStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Healthy and PasswordLoaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
    /// Timestamp of last successful health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_health_check: Option<Time>,
    /// Timestamp of last email send attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_send_attempt: Option<Time>,
    /// Error message from last failed send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_send_error: Option<String>,
}
