//! How fast a provider may be given mail: what it was given within times that slide, against its
//! limits.
//!
//! What a server counts, and when, is not seen from here: it takes a message some time between the
//! beginning and the end of an attempt. So an attempt under way counts as if it were taken last, and
//! from its end on it counts for the whole span. Thus no span of that length, wherever it begins, holds
//! more than the limit by the server's own clock.
//!
//! A minute counts each attempt that came as far as MAIL, whatever the server said to it; a day counts
//! the messages that the server took or may have taken. The day is the last 24 hours, as Gmail
//! (<https://support.google.com/a/answer/166852>) and Exchange Online count it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::outcome::{Outcome, Stage};
use super::provider::{Limits, ProviderName};
use super::time::Time;

/// How many messages each provider took, by when that was recorded.
pub type Tally = BTreeMap<ProviderName, BTreeMap<Time, u64>>;

/// What an attempt took of a provider's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It ended before MAIL.
    Nothing,
    /// A transaction, and the server said no.
    Transaction,
    /// The server took the message, or may have: its reply to the final dot was lost.
    Message,
}

impl Spent {
    /// What an attempt with this outcome took.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let Some(failure) = outcome.failure() else { return Self::Message };
        match failure.stage {
            Stage::Dot if failure.reply.is_none() => Self::Message,
            Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot => Self::Transaction,
            _ => Self::Nothing,
        }
    }
}

/// How many there were within a span that ends now. Counted by grains, so it takes little memory
/// however many there are; each counts for up to one grain longer than the span, and never shorter.
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    grain: Duration,
    /// By the beginning of the grain.
    grains: BTreeMap<Time, u64>,
}

impl Window {
    /// An empty one. `grain` is not zero and divides `span`.
    #[must_use]
    pub fn new(span: Duration, grain: Duration) -> Self {
        Self { span, grain, grains: BTreeMap::new() }
    }

    /// `count` more, at `at`.
    pub fn add(&mut self, at: Time, count: u64) {
        let grain = u64::try_from(self.grain.as_millis()).unwrap_or(u64::MAX).max(1);
        *self.grains.entry(Time(at.0 - at.0 % grain)).or_default() += count;
    }

    /// How many count at `now`, and since when the oldest of them does.
    pub fn count(&mut self, now: Time) -> (u64, Option<Time>) {
        let (span, grain) = (self.span, self.grain);
        self.grains.retain(|begin, _| now < begin.plus(grain).plus(span));
        (self.grains.values().sum(), self.grains.keys().next().copied())
    }

    /// When `wanted` more are within `limit`, with `under_way` that are to come. Where it hangs on
    /// those alone, a span from now; whoever waits looks again when one of them ends.
    pub fn free_at(&mut self, now: Time, limit: u64, under_way: u64, wanted: u64) -> Time {
        let limit = limit.max(1);
        // What goes beyond a whole span's worth waits for as many spans more.
        let rounds = wanted.saturating_sub(1) / limit;
        let wanted = wanted - rounds * limit;
        let later = self.span.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        let mut used = self.count(now).0 + under_way;
        if used + wanted <= limit {
            return now.plus(later);
        }
        for (begin, count) in &self.grains {
            used -= count;
            if used + wanted <= limit {
                return begin.plus(self.grain).plus(self.span).plus(later);
            }
        }
        now.plus(self.span).plus(later)
    }
}

/// What one provider was given, and is being given.
#[derive(Clone, Debug)]
pub struct Pace {
    under_way: u64,
    minute: Window,
    day: Window,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            under_way: 0,
            minute: Window::new(Self::MINUTE, Duration::from_secs(1)),
            day: Window::new(Self::DAY, Self::MINUTE),
        }
    }
}

impl Pace {
    const MINUTE: Duration = Duration::from_secs(60);
    /// Rolling: what `messagesPerDay` is about.
    pub const DAY: Duration = Duration::from_secs(86_400);

    /// An attempt begins.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// An attempt ended.
    pub fn end(&mut self, spent: Spent, now: Time) {
        self.under_way = self.under_way.saturating_sub(1);
        if spent != Spent::Nothing {
            self.minute.add(now, 1);
        }
        if spent == Spent::Message {
            self.day.add(now, 1);
        }
    }

    /// Messages that an earlier run delivered at `at`. Those from the future, because the clock was
    /// set back since, count from now: never shorter than a day, and never longer.
    pub fn earlier(&mut self, at: Time, count: u64, now: Time) {
        let at = at.min(now);
        self.minute.add(at, count);
        self.day.add(at, count);
    }

    /// When `wanted` more attempts may begin by `messagesPerMinute`.
    pub fn minute_free_at(&mut self, limits: &Limits, wanted: u64, now: Time) -> Time {
        let limit = limits.messages_per_minute.map(u64::from);
        limit.map_or(now, |limit| self.minute.free_at(now, limit, self.under_way, wanted))
    }

    /// When `wanted` more attempts may begin by `messagesPerDay`.
    pub fn day_free_at(&mut self, limits: &Limits, wanted: u64, now: Time) -> Time {
        let limit = limits.messages_per_day.map(u64::from);
        limit.map_or(now, |limit| self.day.free_at(now, limit, self.under_way, wanted))
    }

    /// Whether the day's limit is used up by what was taken, without what is under way.
    pub fn is_day_used_up(&mut self, limits: &Limits, now: Time) -> bool {
        limits.messages_per_day.is_some_and(|limit| u64::from(limit) <= self.day_count(now))
    }

    /// How many messages the last 24 hours held.
    pub fn day_count(&mut self, now: Time) -> u64 {
        self.day.count(now).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(minute: Option<u32>, day: Option<u32>) -> Limits {
        Limits { messages_per_minute: minute, messages_per_day: day, max_connections: None }
    }

    /// One attempt: the wait before it is asked for, how long it takes, when within that the server
    /// takes it (in hundredths), and what it spends.
    fn attempt() -> impl Strategy<Value = (u64, u64, u64, Spent)> {
        let spent = prop_oneof![4 => Just(Spent::Message), 1 => Just(Spent::Transaction), 1 => Just(Spent::Nothing)];
        (0u64..9_000, 1u64..40_000, 0u64..=100, spent)
    }

    /// Begins each attempt as soon as both limits allow, with any number under way; answers when the
    /// server took what it took, and when it saw a transaction.
    fn run(attempts: &[(u64, u64, u64, Spent)], limits: &Limits) -> (Vec<u64>, Vec<u64>) {
        let mut pace = Pace::default();
        let (mut taken, mut seen) = (Vec::new(), Vec::new());
        let mut under_way: Vec<(u64, Spent)> = Vec::new();
        let mut now = Time(1_700_000_000_123);
        for (pause, took, share, spent) in attempts {
            now = Time(now.0 + pause);
            loop {
                // What ended until now is known.
                under_way.sort_by_key(|(end, _)| *end);
                while under_way.first().is_some_and(|(end, _)| *end <= now.0) {
                    let (end, spent) = under_way.remove(0);
                    pace.end(spent, Time(end));
                }
                let free =
                    pace.minute_free_at(limits, 1, now).max(pace.day_free_at(limits, 1, now));
                if free <= now {
                    break;
                }
                let ends = under_way.first().map_or(u64::MAX, |(end, _)| *end);
                now = Time(free.0.min(ends));
            }
            pace.begin();
            let at = now.0 + took * share / 100;
            under_way.push((now.0 + took, *spent));
            match spent {
                Spent::Message => taken.push(at),
                Spent::Transaction => {}
                Spent::Nothing => continue,
            }
            seen.push(at);
        }
        (taken, seen)
    }

    fn most_within(mut times: Vec<u64>, span: Duration) -> usize {
        times.sort_unstable();
        let span = u64::try_from(span.as_millis()).expect("small");
        let count =
            |first: &u64| times.iter().filter(|t| (*first..first + span).contains(t)).count();
        times.iter().map(count).max().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn no_minute_by_the_servers_clock_holds_more_than_its_limit(
            attempts in prop::collection::vec(attempt(), 1..120), limit in 1u32..12,
        ) {
            let (_, seen) = run(&attempts, &limits(Some(limit), None));
            prop_assert!(most_within(seen, Pace::MINUTE) <= limit as usize);
        }

        #[test]
        fn no_24_hours_hold_more_messages_than_their_limit(
            attempts in prop::collection::vec(attempt(), 1..60), limit in 1u32..12,
        ) {
            let (taken, _) = run(&attempts, &limits(None, Some(limit)));
            prop_assert!(most_within(taken, Pace::DAY) <= limit as usize);
        }

        #[test]
        fn a_window_counts_each_for_its_span_and_at_most_a_grain_longer(
            at in 0u64..1_000_000, later in 0u64..200_000,
        ) {
            let mut window = Window::new(Pace::MINUTE, Duration::from_secs(1));
            window.add(Time(at), 1);
            let counts = window.count(Time(at + later)).0 == 1;
            prop_assert!(counts || later >= 60_000);
            prop_assert!(!counts || later < 61_000);
        }
    }

    #[test]
    fn a_limit_that_is_used_up_frees_when_the_oldest_leaves_and_a_failed_attempt_gives_back() {
        let (limits, now) = (limits(Some(2), None), Time(1_000_000));
        let mut pace = Pace::default();
        pace.begin();
        pace.begin();
        assert_eq!(pace.minute_free_at(&limits, 1, now), Time(1_060_000), "both are under way");
        pace.end(Spent::Nothing, now);
        assert_eq!(pace.minute_free_at(&limits, 1, now), now, "one ended before MAIL");
        pace.begin();
        pace.end(Spent::Message, Time(1_010_000));
        pace.end(Spent::Transaction, Time(1_020_000));
        let now = Time(1_030_000);
        assert_eq!(pace.minute_free_at(&limits, 1, now), Time(1_071_000));
        assert_eq!(pace.minute_free_at(&limits, 2, now), Time(1_081_000));
        assert_eq!(pace.minute_free_at(&limits, 4, now), Time(1_141_000), "a minute more");
    }

    #[test]
    fn what_earlier_runs_sent_counts_for_a_day_and_a_clock_set_back_makes_it_no_longer() {
        let limits = limits(None, Some(1));
        let now = Time(100 * 86_400_000);
        for (at, free) in [
            (Time(now.0 - 86_300_000), Time(now.0 + 100_000)),
            (Time(now.0 + 3650 * 86_400_000), now.plus(Pace::DAY)),
        ] {
            let mut pace = Pace::default();
            pace.earlier(at, 1, now);
            let shown = pace.day_free_at(&limits, 1, now);
            assert!(free <= shown && shown <= free.plus(Pace::MINUTE), "{at:?}: {shown:?}");
            assert!(pace.is_day_used_up(&limits, now));
        }
        let mut pace = Pace::default();
        pace.earlier(Time(now.0 - 86_400_000 - 60_000), 1, now);
        assert_eq!(pace.day_free_at(&limits, 1, now), now);
    }
}
