//! Parses the command line, runs what it names, and turns its end into an exit code.

use std::process::ExitCode;

use breakglass_mailer::config::{Cli, Command};
use breakglass_mailer::{app, cli, telemetry};
use clap::Parser;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Contents and addresses are on disk: files are for this user alone. A manual is for everybody.
    if !matches!(command, Command::Man(_)) {
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    }
    let ended = match command {
        Command::Dev(dev) => telemetry::start(&dev.log).and_then(|()| app::dev(dev)),
        Command::Serve(serve) => telemetry::start(&serve.log).and_then(|()| app::serve(serve)),
        Command::Crds(crds) => cli::crds::print(&crds),
        Command::Client(client) => return cli::client::run(client),
        Command::Completions { shell } => return cli::client::completions(shell),
        Command::Man(man) => cli::man::run(&man),
        Command::MigrateConfig(migrate) => cli::migrate_config::run(&migrate),
        Command::Store(store) => cli::store::run(&store),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("breakglass-mailer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
