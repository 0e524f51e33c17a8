//! Bodies: what is kept of the domain's values, in bincode.

use crate::core::job::{Attempt, AttemptOutcome, DeadReason, JobState, Progress};
use crate::core::notification::{Address, Content, Notification, NotificationId};
use crate::core::outcome::{Reply, Stage};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::core::trace::TraceContext;
use crate::migrations::latest;
use crate::queue::store::IdempotencyKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A body in the latest schema.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, value);
    bytes
}

pub(super) fn encode_into<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::legacy())
        .expect("records hold only lengths, integers, strings and options, which always encode");
}

/// A note, which is never older than the program that reads it.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let decoded = bincode::serde::decode_from_slice(bytes, bincode::config::legacy());
    decoded.map(|(value, _)| value).map_err(|error| error.to_string())
}

fn names(chain: &[ProviderName]) -> Vec<String> {
    chain.iter().map(ToString::to_string).collect()
}

fn chain(names: Vec<String>) -> Result<Arc<[ProviderName]>, String> {
    if names.is_empty() {
        return Err("a chain is empty".to_owned());
    }
    let parse =
        |name: String| ProviderName::new(&name).ok_or(format!("{name:?} names no provider"));
    names.into_iter().map(parse).collect()
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|rule| format!("an address {rule}"))
}

impl From<Notification> for latest::Notification {
    fn from(from: Notification) -> Self {
        let jobs = from.jobs.iter().map(|(id, to)| (*id.0.as_bytes(), to.to_string())).collect();
        Self {
            id: *from.id.0.as_bytes(),
            subject: from.subject,
            accepted_at: from.accepted_at.0,
            expires_at: from.expires_at.map(|time| time.0),
            chain: names(&from.chain),
            warnings: from.warnings,
            jobs,
            trace: from.trace.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<latest::Notification> for Notification {
    type Error = String;

    fn try_from(from: latest::Notification) -> Result<Self, String> {
        let job = |(id, to): (latest::Id, String)| {
            Ok((crate::core::job::JobId(Uuid::from_bytes(id)), address(&to)?))
        };
        Ok(Self {
            id: NotificationId(Uuid::from_bytes(from.id)),
            subject: from.subject,
            accepted_at: Time(from.accepted_at),
            expires_at: from.expires_at.map(Time),
            chain: chain(from.chain)?,
            warnings: from.warnings,
            jobs: from.jobs.into_iter().map(job).collect::<Result<_, String>>()?,
            trace: from.trace.map(TryInto::try_into).transpose()?.map(Arc::new),
        })
    }
}

impl From<&TraceContext> for latest::Trace {
    fn from(from: &TraceContext) -> Self {
        Self {
            trace_id: from.trace_id(),
            span_id: from.span_id(),
            flags: from.flags(),
            state: from.state().to_owned(),
        }
    }
}

impl TryFrom<latest::Trace> for TraceContext {
    type Error = String;

    fn try_from(from: latest::Trace) -> Result<Self, String> {
        let read = Self::new(from.trace_id, from.span_id, from.flags, &from.state);
        read.ok_or_else(|| "a trace has no id".to_owned())
    }
}

impl From<Content> for latest::Content {
    fn from(from: Content) -> Self {
        Self {
            subject: from.subject,
            html: from.html,
            text: from.text,
            reply_to: from.reply_to.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<latest::Content> for Content {
    type Error = String;

    fn try_from(from: latest::Content) -> Result<Self, String> {
        let reply_to = from.reply_to.as_deref().map(address).transpose()?;
        Ok(Self { subject: from.subject, html: from.html, text: from.text, reply_to })
    }
}

impl From<IdempotencyKey> for latest::Key {
    fn from(from: IdempotencyKey) -> Self {
        Self { key: from.key, fingerprint: from.fingerprint }
    }
}

impl From<Progress> for latest::Progress {
    fn from(from: Progress) -> Self {
        let state = match from.state {
            JobState::Queued { due } => latest::State::Queued { due: due.0 },
            JobState::Dead { reason, at, detail } => {
                latest::State::Dead { reason: reason.into(), at: at.0, detail: detail.into() }
            }
            JobState::Delivered { at } => latest::State::Delivered { at: at.0 },
            JobState::Cancelled { at } => latest::State::Cancelled { at: at.0 },
        };
        Self {
            state,
            chain: names(&from.chain),
            position: from.position,
            attempts_here: from.attempts_here,
            attempts_all: from.attempts_all,
            redrives: from.redrives,
            deadline: from.deadline.0,
        }
    }
}

impl TryFrom<latest::Progress> for Progress {
    type Error = String;

    fn try_from(from: latest::Progress) -> Result<Self, String> {
        let state = match from.state {
            latest::State::Queued { due } => JobState::Queued { due: Time(due) },
            latest::State::Dead { reason, at, detail } => {
                JobState::Dead { reason: reason.into(), at: Time(at), detail: detail.into() }
            }
            latest::State::Delivered { at } => JobState::Delivered { at: Time(at) },
            latest::State::Cancelled { at } => JobState::Cancelled { at: Time(at) },
        };
        let chain = chain(from.chain)?;
        if usize::from(from.position) >= chain.len() {
            return Err("a position is beyond its chain".to_owned());
        }
        Ok(Self {
            state,
            chain,
            position: from.position,
            attempts_here: from.attempts_here,
            attempts_all: from.attempts_all,
            redrives: from.redrives,
            deadline: Time(from.deadline),
        })
    }
}

impl From<Attempt> for latest::Attempt {
    fn from(from: Attempt) -> Self {
        let reply = from.reply.map(|reply| latest::Reply {
            code: reply.code,
            enhanced: reply.enhanced,
            text: reply.text,
        });
        Self {
            number: from.number,
            at: from.at.0,
            provider: from.provider.to_string(),
            stage: from.stage.into(),
            outcome: from.outcome.into(),
            reply,
            message: from.message,
            duration_ms: u64::try_from(from.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl TryFrom<latest::Attempt> for Attempt {
    type Error = String;

    fn try_from(from: latest::Attempt) -> Result<Self, String> {
        let latest::Attempt { provider, .. } = &from;
        let name = ProviderName::new(provider).ok_or(format!("{provider:?} names no provider"))?;
        let reply = from.reply.map(|reply| Reply::new(reply.code, reply.enhanced, reply.text));
        Ok(Self {
            number: from.number,
            at: Time(from.at),
            provider: name,
            stage: from.stage.into(),
            outcome: from.outcome.into(),
            reply,
            message: from.message,
            duration: Duration::from_millis(from.duration_ms),
        })
    }
}

/// The enums whose variants have the same names on disk and in the domain.
macro_rules! same_variants {
    ($($domain:ident { $($variant:ident),* })*) => { $(
        impl From<$domain> for latest::$domain {
            fn from(from: $domain) -> Self {
                match from { $($domain::$variant => Self::$variant),* }
            }
        }

        impl From<latest::$domain> for $domain {
            fn from(from: latest::$domain) -> Self {
                match from { $(latest::$domain::$variant => Self::$variant),* }
            }
        }
    )* };
}

same_variants! {
    DeadReason { Rejected, Deferred, Unreachable, Expired, Internal }
    Stage { Prepare, Connect, Greeting, Ehlo, Tls, Auth, Mail, Rcpt, Data, Dot }
    AttemptOutcome { Delivered, Deferred, Rejected, Unreachable, Internal }
}
