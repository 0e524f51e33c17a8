//! A MailProvider as the rest of the program sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::job::JobId;
pub use super::login::{Credentials, Grant, Login, OAuth2, Password};
use super::notification::{Address, is_label};
use super::time::Time;

/// The name of a MailProvider: a DNS subdomain (RFC 1123), as Kubernetes names cluster-scoped
/// objects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderName(Arc<str>);

impl ProviderName {
    /// Takes a lower-case DNS subdomain of at most 253 characters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        is_dns_subdomain(name).then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// No name of a Kubernetes object is longer.
pub const NAME_LEN_MAX: usize = 253;

/// Whether `name` may name a Kubernetes object (RFC 1123 subdomain, at most 253 characters).
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= NAME_LEN_MAX
        && name.split('.').all(is_label)
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// One MailProvider, validated.
#[derive(Clone, Debug)]
pub struct Provider {
    /// `metadata.name`.
    pub name: ProviderName,
    /// `spec.displayName`: for people only.
    pub display_name: Option<String>,
    /// `spec.default`: carries what nothing else was chosen for.
    pub default: bool,
    /// `spec.disabled`: gets no mail; its own waits.
    pub disabled: bool,
    /// When the object was created, where that is known: of two defaults the older wins.
    pub created: Option<Time>,
    /// `spec.smtp`.
    pub smtp: Smtp,
    /// `spec.sender`.
    pub sender: Sender,
    /// `spec.retry`.
    pub retry: RetryPolicy,
    /// `spec.limits`.
    pub limits: Limits,
}

impl Provider {
    /// An enabled provider that is not the default, with the default retry policy.
    #[must_use]
    pub fn new(name: ProviderName, smtp: Smtp, sender: Sender) -> Self {
        Self {
            name,
            display_name: None,
            default: false,
            disabled: false,
            created: None,
            smtp,
            sender,
            retry: RetryPolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// A host name or an IP address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// Whether and how the connection is encrypted.
    pub security: Security,
    /// `insecureSkipVerify`: take any certificate.
    pub insecure_skip_verify: bool,
    /// `certificateAuthority`: trusted instead of the system's roots.
    pub certificate_authority: Option<CertificateAuthority>,
    /// How to log in. A password goes over plaintext only where TLS was disabled on purpose, an
    /// access token never does.
    pub credentials: Option<Credentials>,
}

impl Smtp {
    /// A server without a login, whose certificate the system's roots vouch for.
    #[must_use]
    pub fn new(host: &str, port: u16, security: Security) -> Self {
        Self {
            host: host.to_owned(),
            port,
            security,
            insecure_skip_verify: false,
            certificate_authority: None,
            credentials: None,
        }
    }
}

/// Whether and how a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (port 465, RFC 8314).
    Implicit,
    /// STARTTLS (RFC 3207), and no mail without it: there are credentials to protect.
    StartTls,
    /// STARTTLS when the server offers it: a relay without credentials.
    Opportunistic,
    /// `disableTLS`: plaintext, credentials included.
    Plaintext,
}

impl Security {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Implicit, Self::StartTls, Self::Opportunistic, Self::Plaintext];

    /// Port 465 is TLS from the first byte; otherwise STARTTLS, required where there are
    /// credentials; `disable_tls` means none at all.
    #[must_use]
    pub fn of(port: u16, has_credentials: bool, disable_tls: bool) -> Self {
        match (disable_tls, port, has_credentials) {
            (true, _, _) => Self::Plaintext,
            (false, 465, _) => Self::Implicit,
            (false, _, true) => Self::StartTls,
            (false, _, false) => Self::Opportunistic,
        }
    }
}

/// What a `certificateAuthority` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateAuthority {
    /// One certificate or more, as PEM.
    Pem(String),
    /// Nothing that is a certificate, or one that is broken. Nobody is dialled: neither the
    /// system's roots nor no certificate at all is what its author meant.
    Unreadable,
}

impl CertificateAuthority {
    /// Says that it is [`Unreadable`](Self::Unreadable), and what follows.
    pub const UNREADABLE: &str =
        "certificateAuthority is not a PEM certificate: nothing is sent until it is";
}

/// Who a message is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The envelope sender and `From`.
    pub address: Address,
    /// The display name in `From`, at most 100 characters, no control characters.
    pub name: Option<String>,
}

/// `spec.retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first attempt, 0 to 10: a provider sees `count` + 1 attempts.
    pub count: u16,
    /// The wait before the first retry, 10 ms to 60 s; doubles with each retry.
    pub initial_backoff: Duration,
    /// How many jobs the provider accepts that are not at their end, 10 to 10,000.
    pub queue_size: usize,
}

/// `spec.limits`: what the provider's server takes from us. `None` is no limit. Never zero: a provider
/// at rest is `disabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Transactions within any 60 seconds.
    pub messages_per_minute: Option<u32>,
    /// Messages within any 24 hours.
    pub messages_per_day: Option<u32>,
    /// Connections at once, those of health checks included; `None` for `--max-connections`, which
    /// health checks come on top of.
    pub max_connections: Option<u16>,
}

impl Limits {
    /// Whether what was sent counts.
    #[must_use]
    pub fn count(&self) -> bool {
        self.messages_per_minute.is_some() || self.messages_per_day.is_some()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { count: 3, initial_backoff: Duration::from_millis(100), queue_size: 1000 }
    }
}

impl RetryPolicy {
    /// No wait between two attempts is longer.
    pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
    /// A server that speaks of greylisting is left alone at least this long.
    pub const GREYLIST_MIN: Duration = Duration::from_secs(300);

    /// The wait after the `attempt`-th failed attempt (counted from 1) of `job`:
    /// `initial_backoff` × 2^(attempt − 1), ±20 %, at most 30 minutes.
    ///
    /// The jitter is a hash of job and attempt, so the same question has the same answer.
    #[must_use]
    pub fn backoff(&self, job: JobId, attempt: u16) -> Duration {
        let doublings = u32::from(attempt.saturating_sub(1)).min(32);
        let base = u64::try_from(self.initial_backoff.as_millis()).unwrap_or(u64::MAX);
        let plain = base.saturating_mul(1 << doublings);
        let share = splitmix(job.0.as_u128() as u64 ^ u64::from(attempt)) % 401;
        let jittered = u128::from(plain) * u128::from(800 + share) / 1000;
        let bounded = jittered.min(Self::BACKOFF_MAX.as_millis());
        Duration::from_millis(u64::try_from(bounded).unwrap_or(u64::MAX))
    }
}

/// A mixing function with good low bits (Steele et al., "Fast splittable pseudorandom number
/// generators", 2014).
fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn a_backoff_doubles_within_a_fifth_and_is_bounded(
            id in any::<u128>(), attempt in 1u16..12, initial in 10u64..=60_000,
        ) {
            let policy = RetryPolicy { initial_backoff: Duration::from_millis(initial), ..RetryPolicy::default() };
            let wait = policy.backoff(JobId(Uuid::from_u128(id)), attempt).as_millis() as u64;
            let plain = initial << (attempt - 1);
            let limit = RetryPolicy::BACKOFF_MAX.as_millis() as u64;
            prop_assert!(wait >= (plain * 8 / 10).min(limit));
            prop_assert!(wait <= (plain * 12 / 10).min(limit));
        }
    }
}
