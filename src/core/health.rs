//! What we believe of a provider: a value that each event makes anew.

use std::time::Duration;

use super::outcome::Cause;
use super::time::Time;

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
    /// Since when jobs do not dial it; `None` when closed.
    pub open: Option<OpenCircuit>,
    /// How often the circuit opened since a delivery got through: a server that passes checks and
    /// then takes no mail is probed ever more rarely, too.
    pub opened_count: u16,
    /// Logins refused in a row: each doubles the wait for the next check, so that no account is
    /// locked out by checking.
    pub logins_refused: u16,
    /// When the last check began.
    pub checked_at: Time,
    /// When something was learned last, by a check or a delivery.
    pub learned_at: Time,
    /// When to check next.
    pub next_check: Time,
    /// When a check last passed: `lastHealthCheck`.
    pub last_passed: Option<Time>,
    /// What the last failure was, and what it said. Stable: no ports, no ids of the peer.
    pub last_failure: Option<(Cause, String)>,
}

/// A circuit that is open: the provider is known to be unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCircuit {
    /// Since when.
    pub since: Time,
    /// How often the wait for the next probe was doubled.
    pub doublings: u16,
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
    /// The least time between the beginnings of two checks, however often a provider is edited.
    pub const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(2);
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
        next.learned_at = now;
        match event {
            HealthEvent::Reached | HealthEvent::CheckPassed => {
                next.healthy = Some(true);
                next.unreachable_count = 0;
                next.open = None;
                next.logins_refused = 0;
                next.last_failure = None;
                if *event == HealthEvent::Reached {
                    next.opened_count = 0;
                }
                if *event == HealthEvent::CheckPassed || self.healthy != Some(true) {
                    next.next_check = now.plus(intervals.healthy);
                }
                if *event == HealthEvent::CheckPassed {
                    next.last_passed = Some(now);
                }
            }
            HealthEvent::Unreachable(cause, message) => {
                next.unreachable_count = self.unreachable_count.saturating_add(1);
                next.healthy = Some(false);
                if self.open.is_none() && next.unreachable_count > count {
                    next.open = Some(OpenCircuit { since: now, doublings: self.opened_count });
                    next.opened_count = self.opened_count.saturating_add(1);
                }
                // What is told from memory is no news, and puts no check off.
                if self.login_refused(now).is_none() {
                    next.last_failure = Some((*cause, message.clone()));
                    if self.open.is_none() {
                        next.next_check = next.check_after(*cause, intervals, now);
                    }
                }
            }
            HealthEvent::CheckFailed(cause, message) => {
                next.healthy = Some(false);
                next.last_failure = Some((*cause, message.clone()));
                if *cause == Cause::LoginRefused {
                    next.logins_refused = self.logins_refused.saturating_add(1);
                }
                if let Some(open) = &mut next.open {
                    open.doublings = open.doublings.saturating_add(1);
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
            // A server that counts logins counts these, too.
            (Cause::AuthFailed, _) => intervals.unhealthy,
            (Cause::LoginRefused, _) => {
                doubled(intervals.unhealthy, self.logins_refused).min(Self::LOGIN_WAIT_MAX)
            }
            (_, Some(open)) => {
                doubled(Duration::from_secs(1), open.doublings).min(intervals.unhealthy)
            }
            (_, None) => intervals.unhealthy,
        };
        now.plus(wait)
    }

    /// What the server said when it refused the login, until that is due to be tried again: an
    /// account may be locked out by logins, whoever tries them.
    #[must_use]
    pub fn login_refused(&self, now: Time) -> Option<&str> {
        match &self.last_failure {
            Some((Cause::LoginRefused, error)) if now < self.next_check => Some(error),
            _ => None,
        }
    }

    /// What the last failure said, unless something got through since.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_failure.as_ref().map(|(_, error)| error.as_str())
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

    fn refused() -> HealthEvent {
        HealthEvent::Unreachable(Cause::ConnectionRefused, "connection refused".into())
    }

    fn event() -> impl Strategy<Value = HealthEvent> {
        prop_oneof![
            Just(HealthEvent::Reached),
            Just(HealthEvent::CheckPassed),
            Just(refused()),
            Just(HealthEvent::Unreachable(Cause::LoginRefused, "535".into())),
            Just(HealthEvent::CheckFailed(Cause::Tls, "bad certificate".into())),
            Just(HealthEvent::CheckFailed(Cause::LoginRefused, "535".into())),
        ]
    }

    proptest! {
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
    fn a_healthy_provider_is_checked_every_five_minutes_and_an_unhealthy_one_every_half() {
        let checked =
            |event| Health::default().after(&event, 3, HealthIntervals::default(), Time(0));
        assert_eq!(checked(HealthEvent::CheckPassed).next_check, Time(300_000));
        let failed = HealthEvent::CheckFailed(Cause::ConnectionTimeout, String::new());
        assert_eq!(checked(failed).next_check, Time(30_000));
    }

    #[test]
    fn refused_logins_are_checked_ever_more_rarely() {
        let intervals = HealthIntervals::default();
        let mut health = Health::default();
        let mut waits = vec![];
        for _ in 0..9 {
            let failed = HealthEvent::CheckFailed(Cause::LoginRefused, String::new());
            health = health.after(&failed, 3, intervals, Time(0));
            waits.push(health.next_check.0 / 1000);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }
}
