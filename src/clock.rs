//! Wall time that never steps back.
//!
//! The wall clock is read once, at start; from then on time follows the monotonic clock, so a step
//! of the wall clock while running neither parks a job beyond its backoff nor releases a burst.

use tokio::time::Instant;

use crate::core::time::Time;

/// Tells the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: Time,
}

impl Clock {
    /// Reads the wall clock.
    #[must_use]
    pub fn start() -> Self {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Self::at(Time(wall))
    }

    /// Takes this for the wall clock's time.
    #[must_use]
    pub fn at(wall: Time) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.wall.plus(self.start.elapsed())
    }

    /// The monotonic instant at which [`now`](Self::now) reaches `time`, for sleeping.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        // Nothing in here waits longer than a day at once; the bound keeps the sum in range.
        let wait = time.since(self.wall).min(self.start.elapsed() + Self::SLEEP_MAX);
        self.start + wait
    }

    const SLEEP_MAX: std::time::Duration = std::time::Duration::from_secs(86_400);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn time_follows_the_monotonic_clock_and_names_the_instant_to_sleep_until() {
        let clock = Clock::start();
        let begin = clock.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(begin), Duration::from_secs(90));

        let due = clock.now().plus(Duration::from_secs(30));
        assert_eq!(clock.instant(due), Instant::now() + Duration::from_secs(30));
        assert!(clock.instant(begin) <= Instant::now(), "what is past is due at once");
        assert_eq!(clock.instant(Time(u64::MAX)), Instant::now() + Clock::SLEEP_MAX);
    }
}
