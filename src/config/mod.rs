//! Flags and environment, read once, into typed values.

pub mod client;
mod migrate_config;
mod serve;
pub mod store;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use migrate_config::MigrateConfig;
pub use serve::{AuthMode, Policy, Redrive, Serve, check_loopback, is_loopback, own_namespace};
pub use webhook::Webhook;

/// A durable mail gateway: a notification that was answered 202 is delivered, or it is a dead
/// letter that a person can see and send again.
#[derive(Debug, Parser)]
#[command(name = "breakglass-mailer", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done; 1 not done, or the server refused; 2 wrong usage; \
    3 the server was not reached or gave no proper answer")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 not done; 2 wrong usage";
const SERVER_EXIT_CODES: &str = "Exit codes: 0 it was stopped by SIGTERM or Ctrl-C; \
    1 it cannot start, or its store failed; 2 wrong usage";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// First run: a queue, a catch-all mailbox to look into, and one provider that points at it
    #[command(after_help = SERVER_EXIT_CODES)]
    Dev(Dev),
    /// Accept and deliver, with the providers of a YAML file or folder
    #[command(after_help = SERVER_EXIT_CODES)]
    Serve(Box<Serve>),
    /// Print the custom resource definitions, for kubectl apply
    #[command(after_help = EXIT_CODES)]
    Crds(Crds),
    /// Turn the `mail:` section of an old config.yaml into a MailProvider and its Secret
    #[command(after_help = EXIT_CODES)]
    MigrateConfig(MigrateConfig),
    /// A client of a running server.
    #[command(flatten)]
    Client(client::Client),
    /// Look after a data folder: verify it, count what is in it, back it up, restore it
    #[command(subcommand)]
    Store(store::Store),
    /// Print the completions of a shell
    #[command(after_help = EXIT_CODES)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual, or write all of them into a folder
    ///
    /// `breakglass-mailer man deadletters retry | man -l -` shows one.
    #[command(after_help = EXIT_CODES)]
    Man(Man),
}

/// `crds`.
#[derive(Debug, Args)]
pub struct Crds {
    /// Which ones
    #[arg(default_value = "mailproviders")]
    pub names: Vec<Crd>,
}

/// A custom resource definition that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Crd {
    /// The providers.
    Mailproviders,
    /// What is read of an escalation; only for clusters without the breakglass controller.
    Breakglassescalations,
    /// What is read of a cluster; only for clusters without the breakglass controller.
    Clusterconfigs,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Whose page is printed; without it that of the program itself
    #[arg(conflicts_with = "output_dir")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}

/// `dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// Where queue and mailbox are kept
    #[arg(long, env = "BREAKGLASS_MAILER_DATA_DIR", default_value = "breakglass-mailer-dev")]
    pub data_dir: PathBuf,
    /// Address of the API; loopback only
    #[arg(long, env = "BREAKGLASS_MAILER_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// How to log.
#[derive(Clone, Debug, Args)]
pub struct Log {
    /// Lines for people or for programs
    #[arg(long, env = "BREAKGLASS_MAILER_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// error, warn, info, debug or trace, or a filter such as info,breakglass_mailer::smtp=debug
    #[arg(long, env = "BREAKGLASS_MAILER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `25s`, `5m`, `24h`, or several of them: `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "give a number and a unit: 500ms, 25s, 5m or 24h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// What is acted on or left out stands in the command itself: a variable that was set for one
    /// command must not widen, narrow or reroute another.
    const WITHOUT_VARIABLE: [(&str, &str); 9] = [
        ("jobs", "all"),
        ("list", "all"),
        ("list", "provider"),
        ("list", "reason"),
        ("man", "output_dir"),
        ("retry", "all"),
        ("retry", "provider"),
        ("retry", "reason"),
        ("retry", "mail_provider"),
    ];

    #[test]
    fn the_flags_are_consistent_and_all_but_a_few_have_an_environment_variable() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut left: Vec<_> = command.get_subcommands().collect();
        left.retain(|sub| sub.get_name() != "help");
        while let Some(sub) = left.pop() {
            left.extend(sub.get_subcommands().filter(|sub| sub.get_name() != "help"));
            let is_flag = |arg: &&clap::Arg| !arg.is_positional() && arg.get_id() != "help";
            for flag in sub.get_arguments().filter(is_flag) {
                let (command, flag, env) = (sub.get_name(), flag.get_id().as_str(), flag.get_env());
                let name = format!("BREAKGLASS_MAILER_{}", flag.to_uppercase());
                let has_one = !WITHOUT_VARIABLE.contains(&(command, flag));
                assert_eq!(env, has_one.then_some(name.as_ref()), "{command} --{flag}");
            }
        }
    }

    #[test]
    fn every_command_tells_its_exit_codes_as_a_list() {
        let mut left = vec![Cli::command()];
        while let Some(command) = left.pop() {
            // `deadletters` and `store` by themselves do nothing.
            let told = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_told = told.starts_with("Exit codes: 0 ") && told.contains("; 2 wrong usage");
            assert!(is_told || command.has_subcommands(), "{}: {told}", command.get_name());
            left.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn durations_are_numbers_with_units() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "-5s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(positive_duration("0s").is_err());
    }
}
