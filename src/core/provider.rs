//! A MailProvider as the rest of the program sees it, and what we believe of its health.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::job::JobId;
use super::notification::{Address, is_label};
use super::outcome::Cause;
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

/// Whether `name` may name a Kubernetes object (RFC 1123 subdomain, at most 253 characters).
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253
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
    /// `certificateAuthority`: PEM; trusted instead of the system's roots.
    pub certificate_authority: Option<String>,
    /// Name and password. Never sent over plaintext unless TLS was disabled on purpose.
    pub credentials: Option<Credentials>,
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

/// What AUTH needs.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `spec.smtp.username`.
    pub username: String,
    /// What `spec.smtp.passwordRef` led to.
    pub password: Password,
}

/// What a `passwordRef` led to.
#[derive(Clone, Debug)]
pub enum Password {
    /// The password. Never printed.
    Loaded(SecretString),
    /// There is no such Secret; carries `namespace/name`.
    SecretNotFound(String),
    /// The Secret has no such key, or its value is empty; carries `namespace/name` and the key.
    KeyNotFound(String, String),
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

/// When health is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthIntervals {
    /// Between checks of a healthy provider (`--health-interval`, 5 minutes).
    pub healthy: Duration,
    /// Between checks of an unhealthy provider (`--unhealthy-interval`, 30 seconds); also the
    /// longest wait between two probes of an open circuit.
    pub unhealthy: Duration,
}

impl Default for HealthIntervals {
    fn default() -> Self {
        Self { healthy: Duration::from_secs(300), unhealthy: Duration::from_secs(30) }
    }
}

/// What we believe of a provider, as a value that each event makes anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What the last check or delivery showed; `None` before the first.
    pub healthy: Option<bool>,
    /// Deliveries in a row that found the provider unreachable.
    pub unreachable_count: u16,
    /// Since when jobs do not dial it, and how many probes failed since; `None` when closed.
    pub open: Option<OpenCircuit>,
    /// Logins refused in a row: each doubles the wait for the next check, so that no account is
    /// locked out by checking.
    pub logins_refused: u16,
    /// When to check next.
    pub next_check: Time,
    /// When a check last passed.
    pub last_passed: Option<Time>,
    /// What the last failure said. Stable: no ports, no ids of the peer.
    pub last_error: Option<String>,
}

/// A circuit that is open: the provider is known to be unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCircuit {
    /// Since when.
    pub since: Time,
    /// Probes that failed since.
    pub probes: u16,
}

/// What happened to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// A delivery reached it, whatever it said of the message.
    Reached,
    /// A delivery found it unreachable.
    Unreachable(Cause, String),
    /// A check passed.
    CheckPassed,
    /// A check failed.
    CheckFailed(Cause, String),
}

impl Health {
    /// The longest wait between two checks while logins are refused.
    pub const LOGIN_WAIT_MAX: Duration = Duration::from_secs(3600);

    /// What we believe after `event`. The circuit opens after `count` + 1 unreachable deliveries
    /// in a row; the first check or delivery that gets through closes it.
    #[must_use]
    pub fn after(
        &self,
        event: &HealthEvent,
        count: u16,
        intervals: HealthIntervals,
        now: Time,
    ) -> Self {
        let mut next = self.clone();
        match event {
            HealthEvent::Reached | HealthEvent::CheckPassed => {
                next.healthy = Some(true);
                next.unreachable_count = 0;
                next.open = None;
                next.logins_refused = 0;
                next.last_error = None;
                if *event == HealthEvent::CheckPassed || self.healthy != Some(true) {
                    next.next_check = now.plus(intervals.healthy);
                }
                if *event == HealthEvent::CheckPassed {
                    next.last_passed = Some(now);
                }
            }
            HealthEvent::Unreachable(cause, message) => {
                next.unreachable_count = self.unreachable_count.saturating_add(1);
                next.last_error = Some(message.clone());
                next.healthy = Some(false);
                if self.open.is_none() && next.unreachable_count > count {
                    next.open = Some(OpenCircuit { since: now, probes: 0 });
                }
                if self.open.is_none() {
                    next.next_check = next.check_after(*cause, intervals, now);
                }
            }
            HealthEvent::CheckFailed(cause, message) => {
                next.healthy = Some(false);
                next.last_error = Some(message.clone());
                if *cause == Cause::AuthFailed {
                    next.logins_refused = self.logins_refused.saturating_add(1);
                }
                if let Some(open) = &mut next.open {
                    open.probes = open.probes.saturating_add(1);
                }
                next.next_check = next.check_after(*cause, intervals, now);
            }
        }
        next
    }

    /// An open circuit is probed after 1 s, 2 s, 4 s … up to the unhealthy interval; a refused
    /// login waits at least that interval, doubled with each refusal, up to an hour.
    fn check_after(&self, cause: Cause, intervals: HealthIntervals, now: Time) -> Time {
        let doubled = |base: Duration, times: u16| base.saturating_mul(1 << times.min(16));
        let wait = match (cause, self.open) {
            (Cause::AuthFailed, _) => {
                doubled(intervals.unhealthy, self.logins_refused).min(Self::LOGIN_WAIT_MAX)
            }
            (_, Some(open)) => {
                doubled(Duration::from_secs(1), open.probes).min(intervals.unhealthy)
            }
            (_, None) => intervals.unhealthy,
        };
        now.plus(wait)
    }

    /// Whether jobs may dial the provider.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn refused() -> HealthEvent {
        HealthEvent::Unreachable(Cause::ConnectionRefused, "connection refused".into())
    }

    fn event() -> impl Strategy<Value = HealthEvent> {
        prop_oneof![
            Just(HealthEvent::Reached),
            Just(HealthEvent::CheckPassed),
            Just(refused()),
            Just(HealthEvent::Unreachable(Cause::AuthFailed, "535".into())),
            Just(HealthEvent::CheckFailed(Cause::Tls, "bad certificate".into())),
            Just(HealthEvent::CheckFailed(Cause::AuthFailed, "535".into())),
        ]
    }

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

        #[test]
        fn a_circuit_opens_only_by_deliveries_in_a_row_and_closes_at_the_first_success(
            events in prop::collection::vec(event(), 0..60), count in 0u16..=10,
        ) {
            let intervals = HealthIntervals::default();
            let mut health = Health::default();
            let mut in_a_row = 0u16;
            let mut now = Time(1_000_000);
            for event in events {
                let before = health.clone();
                health = before.after(&event, count, intervals, now);
                match event {
                    HealthEvent::Reached | HealthEvent::CheckPassed => {
                        in_a_row = 0;
                        prop_assert!(health.is_closed());
                        prop_assert_eq!(health.healthy, Some(true));
                    }
                    HealthEvent::Unreachable(..) => in_a_row += 1,
                    HealthEvent::CheckFailed(..) => {
                        prop_assert_eq!(before.is_closed(), health.is_closed());
                    }
                }
                prop_assert_eq!(!health.is_closed(), in_a_row > count);
                prop_assert!(health.next_check >= before.next_check || health.next_check > now);
                prop_assert!(health.next_check <= now.plus(Health::LOGIN_WAIT_MAX));
                now = now.plus(Duration::from_secs(7));
            }
        }
    }

    #[test]
    fn an_open_circuit_is_probed_after_one_second_then_twice_as_long_up_to_the_interval() {
        let intervals = HealthIntervals::default();
        let now = Time(0);
        let mut health = Health::default().after(&refused(), 0, intervals, now);
        let mut waits = vec![health.next_check.since(now).as_secs()];
        for _ in 0..6 {
            let failed = HealthEvent::CheckFailed(Cause::ConnectionRefused, String::new());
            health = health.after(&failed, 0, intervals, now);
            waits.push(health.next_check.since(now).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn refused_logins_are_checked_ever_more_rarely() {
        let intervals = HealthIntervals::default();
        let mut health = Health::default();
        let mut waits = vec![];
        for _ in 0..9 {
            let failed = HealthEvent::CheckFailed(Cause::AuthFailed, String::new());
            health = health.after(&failed, 3, intervals, Time(0));
            waits.push(health.next_check.0 / 1000);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }
}
