//! What an attempt learned. A send never returns an error: every end of an attempt is an outcome.

use super::job::AttemptOutcome;
use super::quota::Quota;

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2yz to the final dot, whatever happened to the connection after it.
    Delivered(Reply),
    /// Put off: 4yz about the message, or the connection was lost inside the transaction.
    Deferred(Failure),
    /// Refused for good: 5yz about this message or recipient.
    Rejected(Failure),
    /// The provider failed: name lookup, connection, TLS, greeting, 421, AUTH, missing password.
    Unreachable(Failure),
    /// The server takes no more mail from us for now, whatever the message: its quota is used up.
    Held(Quota, Failure),
    /// Our own code failed on this message: a panic, or contents that cannot be read.
    Internal(Failure),
}

impl Outcome {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> AttemptOutcome {
        match self {
            Self::Delivered(_) => AttemptOutcome::Delivered,
            Self::Deferred(_) | Self::Held(..) => AttemptOutcome::Deferred,
            Self::Rejected(_) => AttemptOutcome::Rejected,
            Self::Unreachable(_) => AttemptOutcome::Unreachable,
            Self::Internal(_) => AttemptOutcome::Internal,
        }
    }

    /// The failure that it carries, unless it was delivered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Delivered(_) => None,
            Self::Deferred(f)
            | Self::Rejected(f)
            | Self::Unreachable(f)
            | Self::Held(_, f)
            | Self::Internal(f) => Some(f),
        }
    }
}

/// Why and where an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, from a closed set.
    pub cause: Cause,
    /// Where in the dialogue.
    pub stage: Stage,
    /// The server's reply, when it was one that decided it.
    pub reply: Option<Reply>,
    /// One sentence for a person. Never a content, a credential or a recipient.
    pub detail: String,
}

impl Failure {
    /// `detail`, but for the words of a server that had seen a message: it may repeat of it what
    /// it likes. For logs, status and events.
    #[must_use]
    pub fn summary(&self) -> &str {
        let has_seen_it =
            matches!(self.stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot);
        let words = self.reply.as_ref().filter(|_| has_seen_it).map_or("", |reply| &reply.text);
        self.detail.strip_suffix(words).unwrap_or(&self.detail).trim_end()
    }

    /// Whether the reply speaks of greylisting: 4yz with an enhanced code 4.7.x, or its wording.
    #[must_use]
    pub fn is_greylisting(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| {
            (400..500).contains(&reply.code)
                && (matches!(reply.enhanced, Some([4, 7, _]))
                    || reply.wording == Wording::Greylisting)
        })
    }
}

/// An SMTP reply (RFC 5321 4.2), lines joined, control and 8-bit bytes replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The enhanced status code (RFC 3463), when its class agrees with the code's.
    pub enhanced: Option<[u16; 3]>,
    /// The text behind the codes, at most 500 characters. What a server repeats of a message or a
    /// login is blotted out.
    pub text: String,
    /// What the whole text says.
    pub wording: Wording,
}

impl Reply {
    /// A reply whose text is whole.
    #[must_use]
    pub fn new(code: u16, enhanced: Option<[u16; 3]>, text: String) -> Self {
        Self { code, enhanced, wording: Wording::of(code, enhanced, &text), text }
    }

    /// What it says is used up of the provider's, if it says so.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        match self.wording {
            Wording::Quota(quota) => Some(quota),
            _ => None,
        }
    }
}

/// What a reply says beyond its codes. Told from the whole text: what is blotted out
/// of it may be one of these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Nothing that changes what follows.
    Other,
    /// Come again later, on principle.
    Greylisting,
    /// This transaction has enough recipients.
    TooManyRecipients,
    /// The provider takes no more from us for now.
    Quota(Quota),
}

impl Wording {
    /// What a reply of these codes says with `text`.
    #[must_use]
    pub fn of(code: u16, enhanced: Option<[u16; 3]>, text: &str) -> Self {
        let quota = Quota::of(code, enhanced, text);
        let text = text.to_ascii_lowercase();
        if text.contains("greylist") || text.contains("graylist") {
            Self::Greylisting
        } else if let Some(quota) = quota {
            Self::Quota(quota)
        } else if text.contains("too many recipients") {
            Self::TooManyRecipients
        } else {
            Self::Other
        }
    }
}

/// Where in the dialogue an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before its server was dialled: the provider's password or CA is missing, no access token is to
    /// be had, or its server refused the login a moment ago.
    Prepare,
    /// Name lookup and TCP.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO.
    Ehlo,
    /// STARTTLS and the handshake.
    Tls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, up to the 354.
    Data,
    /// The message and the reply to its final dot.
    Dot,
}

impl Stage {
    /// All of them, in the order of the dialogue.
    pub const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Connect,
        Self::Greeting,
        Self::Ehlo,
        Self::Tls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
    ];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
        }
    }
}

/// The closed set of reasons in `emails_failed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A deadline passed: connecting, or waiting for a reply.
    ConnectionTimeout,
    /// TCP was refused, reset or closed before the transaction.
    ConnectionRefused,
    /// The host name has no address.
    Dns,
    /// The handshake failed, STARTTLS is missing, or the CA cannot be read.
    Tls,
    /// AUTH was put off, asked for where there is no login, or offers nothing that we speak; or no
    /// access token is to be had just now.
    AuthFailed,
    /// The server refused the login for good (5yz to AUTH), or the token server the client.
    LoginRefused,
    /// The Secret or its key is missing.
    PasswordUnavailable,
    /// 4yz about the message, or the connection was lost inside the transaction.
    Deferred,
    /// 5yz about the message.
    Rejected,
    /// The server did not speak SMTP as agreed, or refused us before the transaction.
    Protocol,
    /// Too old.
    Expired,
    /// Our own fault.
    Internal,
}

impl Cause {
    /// One for each reason.
    pub const REASONS: [Self; 11] = [
        Self::ConnectionTimeout,
        Self::ConnectionRefused,
        Self::Dns,
        Self::Tls,
        Self::AuthFailed,
        Self::PasswordUnavailable,
        Self::Deferred,
        Self::Rejected,
        Self::Protocol,
        Self::Expired,
        Self::Internal,
    ];

    /// Whether there was no proper answer: any that is one disproves it.
    #[must_use]
    pub fn is_no_answer(self) -> bool {
        matches!(
            self,
            Self::ConnectionTimeout | Self::ConnectionRefused | Self::Dns | Self::Protocol
        )
    }

    /// The label value in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::AuthFailed | Self::LoginRefused => "auth_failed",
            Self::PasswordUnavailable => "password_unavailable",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::Protocol => "protocol",
            Self::Expired => "expired",
            Self::Internal => "internal",
        }
    }
}
