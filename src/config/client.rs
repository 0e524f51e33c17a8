//! The commands that speak to a running server, and their flags.

mod notify;

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValuesParser};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use secrecy::SecretString;
use uuid::Uuid;

pub use notify::{Draft, Explain, Notify};

use crate::core::job::DeadReason;

/// The commands that speak to a running server.
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Hand a notification in
    ///
    /// It is posted with an idempotency key: the one given, else a new one. That makes it safe to
    /// repeat, and it is repeated when the connection broke before an answer, when a gateway
    /// answered 5xx in the server's place, or when the server says when to try again: at most 5
    /// tries, none later than a minute after the first.
    #[command(after_help = EXIT_CODES)]
    Notify(Box<Notify>),
    /// Tell what would become of a notification, and why; nothing is handed in
    ///
    /// It takes the flags of `notify`, and tells which provider would carry the notification and by
    /// which rule, what became of every other that was named, and how full the queue is.
    #[command(after_help = EXIT_CODES)]
    Explain(Box<Explain>),
    /// How many jobs each provider holds
    #[command(after_help = EXIT_CODES)]
    Queue(Queue),
    /// Jobs, newest first; `jobs show` tells all of one notification, whatever the filters
    #[command(after_help = EXIT_CODES)]
    Jobs(Jobs),
    /// Mail that was given up: look at it, send it again, take it out
    #[command(subcommand)]
    Deadletters(Deadletters),
    /// The providers as the server sees them
    #[command(after_help = EXIT_CODES)]
    Providers(Reach),
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the server refused, or not all was done; \
    2 wrong usage; 3 the server was not reached or gave no proper answer";

/// Which server, who asks, and in which form the answer is shown.
// Global, so that a subcommand takes them as well as the command before it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct Reach {
    /// Where the server is
    #[arg(long, global = true, env = "BREAKGLASS_MAILER_SERVER", value_name = "URL",
          default_value = "http://127.0.0.1:8080", value_parser = server)]
    pub server: String,
    /// Says who asks; as a flag it can be seen by other users of this machine
    #[arg(long, global = true, env = "BREAKGLASS_MAILER_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// A file whose first line that is not empty is the token; --token wins
    #[arg(long, global = true, env = "BREAKGLASS_MAILER_TOKEN_FILE", value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// A table for people, or the server's JSON as one document
    #[arg(short, long, global = true, env = "BREAKGLASS_MAILER_OUTPUT", default_value = "table")]
    pub output: Output,
}

/// In which form an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `queue`.
#[derive(Debug, Args)]
pub struct Queue {
    /// Of this provider alone
    #[arg(long, env = "BREAKGLASS_MAILER_PROVIDER", value_name = "NAME")]
    pub provider: Option<String>,
    /// Which server.
    #[command(flatten)]
    pub reach: Reach,
}

/// `jobs`.
#[derive(Debug, Args)]
pub struct Jobs {
    /// What to do; without it jobs are listed. Only a list goes by the filters.
    #[command(subcommand)]
    pub command: Option<JobsCommand>,
    /// In this state alone; those that are parked are dead, too
    #[arg(long, env = "BREAKGLASS_MAILER_STATE", value_parser = PossibleValuesParser::new(STATES))]
    pub state: Option<String>,
    /// Of this provider alone
    #[arg(long, env = "BREAKGLASS_MAILER_PROVIDER", value_name = "NAME")]
    pub provider: Option<String>,
    /// How many.
    #[command(flatten)]
    pub pages: Pages,
    /// Which server.
    #[command(flatten)]
    pub reach: Reach,
}

const STATES: [&str; 6] = ["ready", "inFlight", "scheduled", "delivered", "dead", "cancelled"];

/// `jobs show`.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// A notification, its jobs and every attempt
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its id, as `notify` and `jobs` show it
        notification: Uuid,
    },
}

/// How much of a list is fetched.
#[derive(Debug, Args)]
pub struct Pages {
    /// At most so many
    #[arg(long, env = "BREAKGLASS_MAILER_LIMIT", default_value_t = 100,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// All of them, whatever --limit says
    #[arg(long)]
    pub all: bool,
}

/// `deadletters`.
#[derive(Debug, Subcommand)]
pub enum Deadletters {
    /// Dead letters, newest first, without their bodies
    #[command(after_help = EXIT_CODES)]
    List {
        /// Which.
        #[command(flatten)]
        filter: DeadFilter,
        /// How many.
        #[command(flatten)]
        pages: Pages,
        /// Which server.
        #[command(flatten)]
        reach: Reach,
    },
    /// One dead letter with every attempt
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its id, as `deadletters list` shows it
        id: Uuid,
        /// With its bodies
        #[arg(long, env = "BREAKGLASS_MAILER_CONTENT", value_parser = FalseyValueParser::new())]
        content: bool,
        /// Which server.
        #[command(flatten)]
        reach: Reach,
    },
    /// Queue dead letters again, with fresh attempts
    ///
    /// Of several ids each is tried, whatever became of the others; those that failed are named.
    #[command(after_help = EXIT_CODES)]
    Retry(Retry),
    /// Take dead letters out for good
    #[command(after_help = EXIT_CODES)]
    Delete {
        /// Their ids, as `deadletters list` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<Uuid>,
        /// Which server.
        #[command(flatten)]
        reach: Reach,
    },
}

/// `deadletters retry`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["ids", "all"]))]
pub struct Retry {
    /// Their ids, as `deadletters list` shows them
    #[arg(value_name = "ID", conflicts_with_all = ["provider", "reason"])]
    pub ids: Vec<Uuid>,
    /// All of them, or those of --provider and --reason
    #[arg(long)]
    pub all: bool,
    /// Which of all.
    #[command(flatten)]
    pub filter: DeadFilter,
    /// Send by this provider instead; not with --all
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub mail_provider: Option<String>,
    /// Which server.
    #[command(flatten)]
    pub reach: Reach,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct DeadFilter {
    /// Of this provider alone
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Given up for this reason alone
    #[arg(long, value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str)))]
    pub reason: Option<String>,
}

/// Where a server is: `http://` or `https://`, a host, and perhaps a port and a path before ours.
pub(super) fn server(text: &str) -> Result<String, String> {
    let rule = "give a URL such as http://127.0.0.1:8080, without user and query".to_owned();
    let Ok(uri) = text.parse::<ureq::http::Uri>() else { return Err(rule) };
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let host = uri.host().unwrap_or_default();
    if !is_http || host.is_empty() || uri.query().is_some() || text.contains(['@', '#']) {
        return Err(rule);
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_with_a_host_and_nothing_secret() {
        for (given, kept) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://mail.example.com/", "https://mail.example.com"),
            ("http://[::1]:8080/breakglass/", "http://[::1]:8080/breakglass"),
        ] {
            assert_eq!(server(given), Ok(kept.to_owned()));
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "http://me:pw@a",
            "http://a?b",
            "HTTPS://a",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
