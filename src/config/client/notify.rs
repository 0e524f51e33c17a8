//! `notify` and `explain`, and their flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::Reach;
use crate::config::positive_duration;

/// What a notification says, and to whom.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("body").required(true).multiple(true)
          .args(["text", "text_file", "html", "html_file"]))]
pub struct Draft {
    /// A recipient, or several with commas; may be given again, and left out when the escalation
    /// names some
    #[arg(long, env = "BREAKGLASS_MAILER_TO", value_name = "ADDRESS", value_delimiter = ',')]
    pub to: Vec<String>,
    /// One line
    #[arg(long, env = "BREAKGLASS_MAILER_SUBJECT")]
    pub subject: String,
    /// The plain text
    #[arg(long, env = "BREAKGLASS_MAILER_TEXT", conflicts_with = "text_file")]
    pub text: Option<String>,
    /// The plain text from a file; - is standard input
    #[arg(long, env = "BREAKGLASS_MAILER_TEXT_FILE", value_name = "PATH")]
    pub text_file: Option<PathBuf>,
    /// The HTML
    #[arg(long, env = "BREAKGLASS_MAILER_HTML", conflicts_with = "html_file")]
    pub html: Option<String>,
    /// The HTML from a file; - is standard input
    #[arg(long, env = "BREAKGLASS_MAILER_HTML_FILE", value_name = "PATH")]
    pub html_file: Option<PathBuf>,
    /// Chooses the provider, and the recipients where none are given
    #[arg(long, env = "BREAKGLASS_MAILER_ESCALATION", value_name = "NAME")]
    pub escalation: Option<String>,
    /// Chooses the provider after the escalation
    #[arg(long, env = "BREAKGLASS_MAILER_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Chooses the provider before all else
    #[arg(long, env = "BREAKGLASS_MAILER_MAIL_PROVIDER", value_name = "NAME")]
    pub mail_provider: Option<String>,
    /// Where answers go
    #[arg(long, env = "BREAKGLASS_MAILER_REPLY_TO", value_name = "ADDRESS")]
    pub reply_to: Option<String>,
    /// Not delivered from then on, such as 2030-01-01T00:00:00Z
    #[arg(long, env = "BREAKGLASS_MAILER_EXPIRES_AT", value_name = "TIME")]
    pub expires_at: Option<String>,
}

/// `notify`.
#[derive(Debug, Args)]
pub struct Notify {
    /// What it says.
    #[command(flatten)]
    pub draft: Draft,
    /// The same key and notification again give the first answer, and no second mail
    #[arg(long, env = "BREAKGLASS_MAILER_IDEMPOTENCY_KEY", value_name = "KEY",
          value_parser = idempotency_key)]
    pub idempotency_key: Option<String>,
    /// Wait up to this long for the end of every job, which parked is not; exit 1 unless all are
    /// delivered
    #[arg(long, env = "BREAKGLASS_MAILER_WAIT", value_name = "DURATION",
          value_parser = positive_duration)]
    pub wait: Option<Duration>,
    /// Which server.
    #[command(flatten)]
    pub reach: Reach,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// What the notification would say.
    #[command(flatten)]
    pub draft: Draft,
    /// Which server.
    #[command(flatten)]
    pub reach: Reach,
}

fn idempotency_key(text: &str) -> Result<String, String> {
    let is_valid = (1..=255).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err("give 1 to 255 visible ASCII characters".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_what_the_server_takes() {
        assert!(idempotency_key("K-1").is_ok() && idempotency_key(&"k".repeat(255)).is_ok());
        for bad in ["", "a b", "schl\u{fc}ssel", &"k".repeat(256)] {
            assert!(idempotency_key(bad).is_err(), "{bad}");
        }
    }
}
