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

/// A provider that is left alone because its server said so. It is as healthy as before, unless its
/// circuit was open for want of an answer. From `until` on one message goes first, and the others when
/// the server took it.
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
    /// Its server said, to a delivery or a check, that a quota is used up. So it can be reached; of
    /// its TLS and the login, which may come later, this tells nothing.
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
    /// in a row; the first check or delivery that gets through closes it, and where it is open for
    /// want of a proper answer, so does the answer that a quota is used up.
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
                if matches!(&self.last_failure, Some((cause, _)) if cause.is_no_answer()) {
                    next.unreachable_count = 0;
                    if next.open.take().is_some() {
                        next.healthy = Some(true);
                        next.last_failure = None;
                    }
                }
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
mod tests;
