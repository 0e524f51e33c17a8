//! Why a command did not do all it was asked for, told to a person with what to do about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::screen;

/// Why a command failed. It never holds a token.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Failure {
    /// The server answered with a problem.
    #[error("the server refused ({}): {}", .0.status, .0.detail)]
    Refused(Problem),
    /// The request did not get there.
    #[error("cannot reach {server}: {error}")]
    NotReached {
        /// Where.
        server: String,
        /// Why, for a person.
        error: String,
    },
    /// No whole answer of the server came, perhaps one of a gateway before it. The request may have
    /// been carried out, or not.
    #[error("no answer from {server}: {error}")]
    Unanswered {
        /// Where.
        server: String,
        /// Why, for a person.
        error: String,
    },
    /// The answer is none that our server gives.
    #[error("{server} does not answer as a breakglass-mailer does: {answer}")]
    Foreign {
        /// Where.
        server: String,
        /// What came instead.
        answer: String,
    },
    /// What was asked for cannot be meant.
    #[error("{0}")]
    Usage(&'static str),
    /// Something else, on this side or in part.
    #[error("{sentence}")]
    Failed {
        /// What.
        sentence: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// An `application/problem+json` of the server (RFC 9457).
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::cli) struct Problem {
    r#type: String,
    pub status: u16,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<BadField>,
    /// From the header of that name, where it counts seconds.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// Whether a token was sent.
    #[serde(skip)]
    pub had_token: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct BadField {
    pointer: String,
    detail: String,
}

impl Failure {
    /// Something failed on this side, and there is nothing to advise.
    pub(super) fn here(sentence: impl Into<String>) -> Self {
        Self::Failed { sentence: sentence.into(), hint: None }
    }

    /// The exit code of the process, as --help tells.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Failed { .. } => 1,
            Self::Usage(_) => 2,
            Self::NotReached { .. } | Self::Unanswered { .. } | Self::Foreign { .. } => 3,
        }
    }

    /// Tells it on stderr. `listing` is the command that shows which ids there are.
    pub(super) fn tell(&self, listing: &str) {
        self.tell_of("breakglass-mailer");
        if let Some(hint) = self.hint(listing) {
            screen::note(&format!("hint: {hint}"));
        }
    }

    /// Tells on stderr what failed with `subject`, and each bad field, but not what to do.
    pub(super) fn tell_of(&self, subject: &str) {
        screen::note(&format!("{subject}: {self}"));
        if let Self::Refused(problem) = self {
            for field in &problem.errors {
                screen::note(&format!("  {}: {}", field.pointer, field.detail));
            }
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self, listing: &str) -> Option<String> {
        let hint = match self {
            Self::Refused(problem) => return problem.hint(listing),
            Self::NotReached { .. } => {
                "is the server running there? --server or BREAKGLASS_MAILER_SERVER names another"
            }
            Self::Unanswered { .. } => {
                "a change may have been made all the same: look before you repeat it"
            }
            Self::Foreign { .. } => {
                "is this the right server? --server or BREAKGLASS_MAILER_SERVER names another"
            }
            Self::Usage(_) => "--help tells more",
            Self::Failed { hint, .. } => return hint.clone(),
        };
        Some(hint.to_owned())
    }
}

impl Problem {
    /// Whether it is one of our server, and not of something before it.
    pub(super) fn is_ours(&self) -> bool {
        self.r#type.starts_with("/problems/")
    }

    fn hint(&self, listing: &str) -> Option<String> {
        let when = self
            .retry_after
            .map_or_else(|| "later".to_owned(), |after| format!("after {} s", after.as_secs()));
        let kind = self.r#type.rsplit('/').next().unwrap_or_default();
        match (self.status, kind) {
            (401, _) => {
                Some("give a token that it knows: --token-file or BREAKGLASS_MAILER_TOKEN".into())
            }
            // Without a token it is about the name of the server or the origin, and says so itself.
            (403, _) if self.had_token => Some(
                "this token may not do that: --token-file or BREAKGLASS_MAILER_TOKEN gives another"
                    .into(),
            ),
            (404, _) => Some(format!("`breakglass-mailer {listing}` shows what there is")),
            (503, "queue-full") => {
                Some(format!("`breakglass-mailer queue` shows what waits; repeat it {when}"))
            }
            (503, "no-mail-provider") => Some(format!(
                "`breakglass-mailer providers` shows which are disabled; repeat it {when}"
            )),
            (409 | 503, _) => Some(format!("repeat it {when}")),
            _ => None,
        }
    }
}
