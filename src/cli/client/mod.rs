//! The commands that speak to a running server over its API, without a runtime and without logs.
//!
//! What was asked for goes to stdout, everything else to stderr. The exit code is 0 when all was
//! done, 1 when the server refused or not all was done, 2 for wrong usage (told by clap), and 3
//! when the server was not reached or gave no proper answer.

pub(super) mod age;
mod attempts;
mod deadletters;
mod explain;
mod failure;
mod jobs;
mod notify;
mod pages;
mod providers;
mod queue;
pub(super) mod screen;
mod server;

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::config::Cli;
use crate::config::client::{Client, Deadletters, JobsCommand};
use failure::Failure;
use screen::write;

/// Does what was asked for and tells what became of it.
#[must_use]
pub fn run(client: Client) -> ExitCode {
    let listing = match &client {
        Client::Notify(_) | Client::Jobs(_) => "jobs",
        Client::Deadletters(_) => "deadletters list",
        Client::Explain(_) | Client::Queue(_) | Client::Providers(_) => "providers",
    };
    end(dispatch(client), listing)
}

/// Prints the completions of a shell.
#[must_use]
pub fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "breakglass-mailer", &mut script);
    end(write(&String::from_utf8_lossy(&script)), "")
}

fn dispatch(client: Client) -> Result<(), Failure> {
    match client {
        Client::Notify(notify) => notify::run(*notify),
        Client::Explain(explain) => explain::run(*explain),
        Client::Queue(queue) => queue::run(&queue),
        Client::Providers(reach) => providers::run(&reach),
        Client::Jobs(jobs) => match &jobs.command {
            None => jobs::list(&jobs),
            Some(JobsCommand::Show { notification }) => jobs::show(*notification, &jobs.reach),
        },
        Client::Deadletters(command) => match command {
            Deadletters::List { filter, pages, reach } => {
                deadletters::list(&filter, &pages, &reach)
            }
            Deadletters::Show { id, content, reach } => deadletters::show(id, content, &reach),
            Deadletters::Retry(retry) if retry.all => deadletters::retry_all(&retry),
            Deadletters::Retry(retry) => deadletters::retry(&retry),
            Deadletters::Delete { ids, reach } => deadletters::delete(&ids, &reach),
        },
    }
}

fn end(done: Result<(), Failure>, listing: &str) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(listing);
            failure.exit_code().into()
        }
    }
}
