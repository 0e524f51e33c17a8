//! A job: one recipient of one notification, until its end.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::notification::{Address, NotificationId};
use super::outcome::{Reply, Stage};
use super::provider::ProviderName;
use super::time::Time;
use super::trace::TraceContext;

/// Names one job. A UUIDv7, so ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Delivering one notification to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// The notification that it delivers.
    pub notification: NotificationId,
    /// To whom.
    pub recipient: Address,
    /// When the notification was accepted.
    pub accepted_at: Time,
    /// The span that the notification was accepted in.
    pub trace: Option<Arc<TraceContext>>,
    /// All that changes during its life.
    pub progress: Progress,
}

/// The changing part of a job: small, written anew at each change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: JobState,
    /// The providers that it may use, in order. Never empty.
    pub chain: Arc<[ProviderName]>,
    /// The index in `chain` of the provider whose turn it is. Always within it.
    pub position: u16,
    /// Attempts made on that provider since the job came to it.
    pub attempts_here: u16,
    /// Attempts made in all; the number of the last one.
    pub attempts_all: u32,
    /// How often it came back from being parked.
    pub redrives: u16,
    /// From then on it is not delivered any more.
    pub deadline: Time,
}

impl Progress {
    /// A new job: due at once, at the first provider of `chain`, which must not be empty.
    #[must_use]
    pub fn fresh(chain: Arc<[ProviderName]>, now: Time, deadline: Time) -> Self {
        assert!(
            !chain.is_empty(),
            "a job has at least one provider: routing refuses an empty chain"
        );
        Self {
            state: JobState::Queued { due: now },
            chain,
            position: 0,
            attempts_here: 0,
            attempts_all: 0,
            redrives: 0,
            deadline,
        }
    }

    /// The provider whose turn it is.
    #[must_use]
    pub fn provider(&self) -> &ProviderName {
        &self.chain[usize::from(self.position)]
    }

    /// The provider that accepted the job and whose `queueSize` bounds it, to the end.
    #[must_use]
    pub fn home(&self) -> &ProviderName {
        &self.chain[0]
    }

    /// Whether it waits for a provider of its chain to recover, and then goes out by itself.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        matches!(self.state, JobState::Dead { reason: DeadReason::Unreachable, .. })
    }

    /// Whether it takes a place of its home provider's queue: queued or parked.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        matches!(self.state, JobState::Queued { .. }) || self.is_parked()
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, JobState::Delivered { .. } | JobState::Cancelled { .. })
    }
}

/// Where a job stands. In flight is not among them: it is a claim in memory, and a crash turns it
/// back into queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits; an attempt may start from `due` on.
    Queued {
        /// The earliest time of the next attempt.
        due: Time,
    },
    /// Given up; a person can see it and send it again.
    Dead {
        /// Why.
        reason: DeadReason,
        /// When.
        at: Time,
        /// One sentence for the person who looks at it.
        detail: Box<str>,
    },
    /// An SMTP server took it.
    Delivered {
        /// When its 2yz was recorded.
        at: Time,
    },
    /// An operator took it out.
    Cancelled {
        /// When.
        at: Time,
    },
}

/// Why a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadReason {
    /// A server refused this message or recipient for good (5yz).
    Rejected,
    /// The servers kept putting it off (4yz) until the attempts were used up.
    Deferred,
    /// The providers were at fault. The job is parked and is queued again when one recovers.
    Unreachable,
    /// It grew older than its deadline.
    Expired,
    /// It broke the sender, or its contents cannot be read.
    Internal,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Rejected, Self::Deferred, Self::Unreachable, Self::Expired, Self::Internal];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Deferred => "deferred",
            Self::Unreachable => "unreachable",
            Self::Expired => "expired",
            Self::Internal => "internal",
        }
    }
}

/// One try over the wire, as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1 over the life of the job.
    pub number: u32,
    /// When it began.
    pub at: Time,
    /// On which provider.
    pub provider: ProviderName,
    /// Where in the dialogue it ended.
    pub stage: Stage,
    /// What it learned: `delivered`, `deferred`, `rejected`, `unreachable` or `internal`.
    pub outcome: AttemptOutcome,
    /// The reply that decided it, when there was one.
    pub reply: Option<Reply>,
    /// One sentence: the reply's text or what went wrong. Never a content or a credential.
    pub message: String,
    /// How long it took.
    pub duration: Duration,
}

/// The kind of an [`Outcome`](super::outcome::Outcome), without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// 2yz to the final dot.
    Delivered,
    /// 4yz about the message, or the connection was lost inside the transaction.
    Deferred,
    /// 5yz about the message.
    Rejected,
    /// The provider failed.
    Unreachable,
    /// Our own code failed.
    Internal,
}

impl AttemptOutcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Delivered, Self::Deferred, Self::Rejected, Self::Unreachable, Self::Internal];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::Internal => "internal",
        }
    }
}
