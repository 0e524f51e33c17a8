//! What an outcome means for a job: a pure function of values and `now`.

use std::time::Duration;

use super::job::{DeadReason, Job, JobState, Progress};
use super::outcome::{Failure, Outcome};
use super::provider::RetryPolicy;
use super::time::Time;

/// What we do about an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job is at its end.
    Done,
    /// The same provider again, not before `due`.
    Retry {
        /// The earliest time of the next attempt.
        due: Time,
    },
    /// The same provider again, as soon as that takes mail: it costs no attempt.
    Wait,
    /// The provider at `position` of the chain, at once and with fresh attempts.
    Failover {
        /// An index in the chain.
        position: u16,
    },
    /// Given up.
    Bury {
        /// Why.
        reason: DeadReason,
        /// One sentence for the person who looks at it.
        detail: String,
    },
}

/// What `outcome` of an attempt on the job's current provider means.
///
/// `policy` is that provider's; `next` is the position of the next provider of the chain that can
/// be tried, if there is one; the attempt itself is not yet counted in `job`. A provider whose quota is
/// used up is said nothing of the message: it goes to that next one at once, or waits.
#[must_use]
pub fn decide(
    job: &Job,
    outcome: &Outcome,
    policy: &RetryPolicy,
    next: Option<u16>,
    now: Time,
) -> Verdict {
    let bury = |reason, failure: &Failure| Verdict::Bury { reason, detail: failure.detail.clone() };
    let (reason, failure) = match outcome {
        Outcome::Delivered(_) => return Verdict::Done,
        Outcome::Rejected(failure) => return bury(DeadReason::Rejected, failure),
        Outcome::Internal(failure) => return bury(DeadReason::Internal, failure),
        Outcome::Deferred(failure) => (DeadReason::Deferred, failure),
        Outcome::Unreachable(failure) => (DeadReason::Unreachable, failure),
        Outcome::Held(..) => {
            return next.map_or(Verdict::Wait, |position| Verdict::Failover { position });
        }
    };
    let attempt = job.progress.attempts_here.saturating_add(1);
    if attempt <= policy.count {
        let greylisted =
            if failure.is_greylisting() { RetryPolicy::GREYLIST_MIN } else { Duration::ZERO };
        let wait = policy.backoff(job.id, attempt).max(greylisted);
        return Verdict::Retry { due: now.plus(wait) };
    }
    match next {
        Some(position) => Verdict::Failover { position },
        None => bury(reason, failure),
    }
}

impl Verdict {
    /// The job's progress after this verdict. `attempted` tells whether an attempt was made: a
    /// job whose provider is known to be unreachable moves on without one.
    #[must_use]
    pub fn apply(&self, progress: &Progress, attempted: bool, now: Time) -> Progress {
        let mut after = progress.clone();
        if attempted {
            let costs = u16::from(*self != Self::Wait);
            after.attempts_here = after.attempts_here.saturating_add(costs);
            after.attempts_all = after.attempts_all.saturating_add(1);
        }
        match self {
            Self::Done => after.state = JobState::Delivered { at: now },
            Self::Retry { due } => after.state = JobState::Queued { due: *due },
            // What it waits for is known in memory, and shown from there.
            Self::Wait => after.state = JobState::Queued { due: now },
            Self::Failover { position } => {
                after.position = *position;
                after.attempts_here = 0;
                after.state = JobState::Queued { due: now };
            }
            Self::Bury { reason, detail } => {
                after.state =
                    JobState::Dead { reason: *reason, at: now, detail: detail.as_str().into() };
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::JobId;
    use crate::core::notification::{Address, NotificationId};
    use crate::core::outcome::{Cause, Reply, Stage};
    use crate::core::provider::ProviderName;
    use crate::core::quota::Quota;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn job(providers_count: usize) -> Job {
        let chain = (0..providers_count)
            .map(|n| ProviderName::new(&format!("p{n}")).expect("a valid name"))
            .collect();
        Job {
            id: JobId(Uuid::from_u128(7)),
            notification: NotificationId(Uuid::from_u128(1)),
            recipient: Address::parse("a@example.com").expect("valid"),
            accepted_at: Time(0),
            trace: None,
            progress: Progress::fresh(chain, Time(0), Time(u64::MAX)),
        }
    }

    fn failure(code: u16, enhanced: Option<[u16; 3]>, text: &str) -> Failure {
        let reply = Reply::new(code, enhanced, text.into());
        let stage = Stage::Rcpt;
        Failure { cause: Cause::Deferred, stage, reply: Some(reply), detail: "no".into() }
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Deferred(failure(450, None, "later"))),
            Just(Outcome::Deferred(failure(451, Some([4, 7, 1]), "try again"))),
            Just(Outcome::Unreachable(failure(421, None, "busy"))),
        ]
    }

    proptest! {
        #[test]
        fn each_provider_sees_count_plus_one_attempts_and_then_the_job_is_dead(
            outcomes in prop::collection::vec(outcome(), 60),
            count in 0u16..=10, providers_count in 1usize..5,
        ) {
            let policy = RetryPolicy { count, ..RetryPolicy::default() };
            let mut job = job(providers_count);
            let mut attempts = vec![0u16; providers_count];
            let mut now = Time(0);
            for outcome in outcomes {
                let JobState::Queued { due } = job.progress.state else { break };
                prop_assert!(due >= now);
                now = due;
                attempts[usize::from(job.progress.position)] += 1;
                let next = job.progress.position + 1;
                let next = (usize::from(next) < providers_count).then_some(next);
                let verdict = decide(&job, &outcome, &policy, next, now);
                job.progress = verdict.apply(&job.progress, true, now);
            }
            let buried = matches!(job.progress.state, JobState::Dead { .. });
            let all = attempts.iter().all(|made| *made == count + 1);
            prop_assert!(attempts.iter().all(|made| *made <= count + 1));
            prop_assert_eq!(buried, all);
        }
    }

    #[test]
    fn a_refusal_for_good_is_dead_at_once() {
        let refused = Outcome::Rejected(failure(550, Some([5, 1, 1]), "no such user"));
        let verdict = decide(&job(2), &refused, &RetryPolicy::default(), Some(1), Time(0));
        assert!(matches!(verdict, Verdict::Bury { reason: DeadReason::Rejected, .. }));
    }

    #[test]
    fn a_quota_costs_no_attempt_and_leads_to_the_next_provider_or_to_waiting() {
        let full = failure(550, Some([5, 4, 5]), "Daily user sending limit exceeded");
        let held = Outcome::Held(Quota::Day, full);
        let policy = RetryPolicy { count: 0, ..RetryPolicy::default() };
        let mut job = job(2);
        for attempts_all in 1..50 {
            let verdict = decide(&job, &held, &policy, None, Time(7));
            assert_eq!(verdict, Verdict::Wait);
            job.progress = verdict.apply(&job.progress, true, Time(7));
            let Progress { state, attempts_here, attempts_all: all, .. } = &job.progress;
            assert_eq!((attempts_here, all), (&0, &attempts_all));
            assert_eq!(*state, JobState::Queued { due: Time(7) });
        }
        let verdict = decide(&job, &held, &policy, Some(1), Time(7));
        assert_eq!(verdict, Verdict::Failover { position: 1 });
    }

    #[test]
    fn greylisting_waits_five_minutes_at_least() {
        for reply in [failure(451, Some([4, 7, 1]), "later"), failure(450, None, "Greylisted")] {
            let verdict =
                decide(&job(1), &Outcome::Deferred(reply), &RetryPolicy::default(), None, Time(0));
            assert_eq!(verdict, Verdict::Retry { due: Time(300_000) });
        }
    }
}
