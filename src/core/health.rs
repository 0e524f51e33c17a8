//! What we believe of a provider: a value that each event makes anew.

use std::time::Duration;

use super::outcome::Cause;
use super::quota::Quota;
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
    /// Its server said that a quota is used up, and took nothing since.
    pub held: Option<Hold>,
    /// How often the last hold was doubled, and when it ended.
    pub held_before: Option<(u16, Time)>,
}

/// A provider that is left alone because its server said so. It can be reached: it is as healthy as
/// before. From `until` on one message goes first, and the others when the server took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What is used up.
    pub quota: Quota,
    /// What the server said, as in [`Failure::summary`](super::outcome::Failure::summary).
    pub message: String,
    /// Since when.
    pub since: Time,
    /// When it is asked again.
    pub until: Time,
    /// How often the wait was doubled.
    pub doublings: u16,
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
    /// Its server said, to a delivery or a check, that a quota is used up. Tells nothing of whether it
    /// can be reached.
    Held(Quota, String),
}

impl Health {
    /// The least time between the beginnings of two checks, however often a provider is edited.
    pub const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(2);
    /// The longest wait between two checks while logins are refused.
    pub const LOGIN_WAIT_MAX: Duration = Duration::from_secs(3600);

    /// A hold that begins so soon after another is that one, doubled.
    const HELD_AGAIN: Duration = Quota::HOLD_MAX;

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
                    // What was under way when the hold began says nothing against it.
                    if let Some(hold) = self.held.as_ref().filter(|hold| hold.until <= now) {
                        next.held_before = Some((hold.doublings, now));
                        next.held = None;
                    }
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
            HealthEvent::Held(quota, message) => {
                let hold = self.hold_after(*quota, message, now);
                // A login is one more thing that it counts.
                next.next_check = self.next_check.max(hold.until);
                next.held = Some(hold);
            }
        }
        next
    }

    fn hold_after(&self, quota: Quota, message: &str, now: Time) -> Hold {
        let hold = |quota: Quota, doublings: u16| {
            let (message, until) = (message.to_owned(), now.plus(quota.hold(doublings)));
            Hold { quota, message, since: now, until, doublings }
        };
        match (&self.held, self.held_before) {
            // Others that were under way learned the same.
            (Some(old), _) if now < old.until => {
                let new = hold(quota.max(old.quota), old.doublings);
                Hold { since: old.since, until: old.until.max(new.until), ..new }
            }
            (Some(old), _) => hold(quota, old.doublings.saturating_add(1)),
            (None, Some((doublings, at))) if now.since(at) < Self::HELD_AGAIN => {
                hold(quota, doublings.saturating_add(1))
            }
            (None, _) => hold(quota, 0),
        }
    }

    /// The hold, while nothing is sent because of it.
    #[must_use]
    pub fn held(&self, now: Time) -> Option<&Hold> {
        self.held.as_ref().filter(|hold| now < hold.until)
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
            Just(HealthEvent::Held(Quota::Rate, "451 4.7.500".into())),
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
                    HealthEvent::Held(..) => {
                        prop_assert_eq!(before.is_closed(), health.is_closed());
                        prop_assert_eq!(before.healthy, health.healthy);
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

    fn held(quota: Quota) -> HealthEvent {
        HealthEvent::Held(quota, "452 4.4.5".into())
    }

    #[test]
    fn a_hold_ends_by_the_first_delivery_after_its_time_and_the_next_one_is_longer() {
        let after = |health: &Health, event: &HealthEvent, minute: u64| {
            health.after(event, 0, HealthIntervals::default(), Time(minute * 60_000))
        };
        let until = |health: &Health| health.held.as_ref().map(|hold| hold.until.0 / 60_000);
        let health = after(&Health::default(), &held(Quota::Burst), 0);
        assert_eq!(until(&health), Some(1));
        let health = after(&health, &HealthEvent::Reached, 0);
        assert_eq!(until(&health), Some(1), "that one was under way");
        let health = after(&health, &HealthEvent::CheckPassed, 2);
        assert_eq!(until(&health), Some(1), "a login is no mail");
        assert!(health.held(Time(60_000)).is_none(), "its time is over, and one goes first");
        let health = after(&health, &held(Quota::Burst), 2);
        assert_eq!(until(&health), Some(4), "not yet");
        let health = after(&health, &HealthEvent::Reached, 4);
        assert_eq!(until(&health), None);
        let health = after(&health, &held(Quota::Burst), 5);
        assert_eq!(until(&health), Some(9), "again, and soon");
        let health = after(&health, &HealthEvent::Reached, 9);
        let health = after(&health, &held(Quota::Burst), 100);
        assert_eq!(until(&health), Some(101), "long after");
    }

    #[test]
    fn answers_to_what_was_under_way_neither_double_a_hold_nor_shorten_it() {
        let intervals = HealthIntervals::default();
        let first = Health::default().after(&held(Quota::Day), 0, intervals, Time(0));
        let second = first.after(&held(Quota::Burst), 0, intervals, Time(10));
        let hold = second.held.expect("held");
        assert_eq!((hold.quota, hold.doublings), (Quota::Day, 0));
        assert!(Time(3_600_000) <= hold.until);
        assert!(hold.until <= second.next_check, "and it is not logged in to meanwhile");
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
