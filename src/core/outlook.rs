//! When a full queue is likely to have places again.

use std::time::Duration;

use super::pace::Window;
use super::time::Time;

/// How fast places become free: what left a queue of late.
#[derive(Clone, Debug)]
pub struct Departures {
    since: Time,
    window: Window,
}

impl Departures {
    const SPAN: Duration = Duration::from_secs(300);

    /// None yet; somebody looks from `now` on.
    #[must_use]
    pub fn since(now: Time) -> Self {
        Self { since: now, window: Window::new(Self::SPAN, Duration::from_secs(1)) }
    }

    /// A place became free.
    pub fn add(&mut self, now: Time) {
        self.window.add(now, 1);
    }

    /// How long `places` more take at the pace of the last five minutes, from the first that left
    /// within them. Where none did, as long again as nothing moved, for each.
    pub fn time_for(&mut self, places: u64, now: Time) -> Estimate {
        let (count, first) = self.window.count(now);
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        match first {
            Some(first) => {
                let took = now.since(first).max(Duration::from_secs(1));
                let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
                Estimate { wait: took.saturating_mul(places) / count, is_measured: true }
            }
            None => {
                let still = now.since(self.since).clamp(STILL_MIN, Self::SPAN);
                Estimate { wait: still.saturating_mul(places), is_measured: false }
            }
        }
    }
}

/// With nothing to go by, a place is not expected sooner.
const STILL_MIN: Duration = Duration::from_secs(10);

/// How long something is likely to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    wait: Duration,
    is_measured: bool,
}

/// What is known of a queue that has no place for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// How long the places that are missing take at the pace of late.
    pub at_this_pace: Estimate,
    /// Whether an attempt is under way: then a place may become free at any time.
    pub is_under_way: bool,
    /// When the first job that waits is due.
    pub first_due: Option<Time>,
    /// Whether jobs wait for the provider to recover.
    pub has_parked: bool,
}

impl Outlook {
    /// No answer says to come back later than after an hour, however little is to be hoped for.
    pub const WAIT_MAX: Duration = Duration::from_secs(3600);

    /// After how many seconds a request is worth trying again: 1 to 3600, rounded up.
    ///
    /// `may_fit` tells whether the queue could hold the request at all; `starts` is when the provider may be given as many messages as places are missing, by its
    /// limits and holds; `recovers` when it is looked at next, if it is known to be unreachable.
    #[must_use]
    pub fn retry_after(
        &self,
        may_fit: bool,
        starts: Time,
        recovers: Option<Time>,
        now: Time,
    ) -> u16 {
        let wait = if may_fit { self.wait(starts, recovers, now) } else { Self::WAIT_MAX };
        let wait = wait.clamp(Duration::from_secs(1), Self::WAIT_MAX);
        u16::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u16::MAX)
    }

    fn wait(&self, starts: Time, recovers: Option<Time>, now: Time) -> Duration {
        let begins = match (self.is_under_way, self.first_due) {
            (true, _) => now,
            (false, _) if recovers.is_some() => recovers.unwrap_or(now),
            (false, Some(due)) => due,
            (false, None) => now,
        };
        let known = begins.max(starts).since(now);
        // The pace of late tells nothing of a time for which something else is known.
        if self.at_this_pace.is_measured || known.is_zero() {
            known.max(self.at_this_pace.wait)
        } else {
            known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000_000_000);

    fn in_seconds(seconds: u64) -> Time {
        NOW.plus(Duration::from_secs(seconds))
    }

    /// So many left within so many seconds before now; nobody looked before.
    fn left(count: u64, seconds: u64) -> Departures {
        let begin = Time(NOW.0 - seconds * 1000);
        let mut departures = Departures::since(begin);
        for n in 0..count {
            departures.add(Time(begin.0 + n * seconds * 1000 / count));
        }
        departures
    }

    fn outlook(mut departures: Departures, missing_count: usize) -> Outlook {
        let at_this_pace = departures.time_for(missing_count as u64, NOW);
        Outlook { at_this_pace, is_under_way: true, first_due: Some(NOW), has_parked: false }
    }

    #[test]
    fn a_caller_is_told_to_wait_as_long_as_its_places_take() {
        let table = [
            // At the pace of late.
            (outlook(left(600, 60), 1), NOW, None, 1),
            (outlook(left(60, 60), 20), NOW, None, 20),
            (outlook(left(4, 120), 1), NOW, None, 30),
            (outlook(left(4, 120), 1000), NOW, None, 3600),
            // Nothing moves: as long again as it has not.
            (outlook(left(0, 2), 1), NOW, None, 10),
            (outlook(left(0, 90), 1), NOW, None, 90),
            (outlook(left(0, 9000), 2), NOW, None, 600),
            // A limit or a hold ends.
            (outlook(left(600, 60), 1), in_seconds(40), None, 40),
            (outlook(left(0, 90), 1), in_seconds(40), None, 40),
            (outlook(left(0, 90), 1), in_seconds(90_000), None, 3600),
            // The first job is due, unless one is under way.
            (
                Outlook {
                    is_under_way: false,
                    first_due: Some(in_seconds(7)),
                    ..outlook(left(9, 1), 1)
                },
                NOW,
                None,
                7,
            ),
            (Outlook { first_due: Some(in_seconds(7)), ..outlook(left(9, 1), 1) }, NOW, None, 1),
            // An unreachable provider is looked at next.
            (
                Outlook {
                    is_under_way: false,
                    first_due: None,
                    has_parked: true,
                    ..outlook(left(0, 90), 1)
                },
                NOW,
                Some(in_seconds(28)),
                28,
            ),
        ];
        for (n, (outlook, starts, recovers, expected)) in table.into_iter().enumerate() {
            let shown = outlook.retry_after(true, starts, recovers, NOW);
            assert_eq!(shown, expected, "row {n}: {outlook:?}");
        }
        assert_eq!(outlook(left(600, 60), 1).retry_after(false, NOW, None, NOW), 3600, "never");
    }

    #[test]
    fn what_left_long_ago_tells_nothing_of_now() {
        let mut departures = left(1000, 60);
        let later = NOW.plus(Duration::from_secs(400));
        let estimate = departures.time_for(1, later);
        assert_eq!(estimate.wait, Departures::SPAN);
        assert!(!estimate.is_measured);
    }
}
