//! Parses the command line, runs what it names, and turns its end into an exit code.

use std::process::ExitCode;

use breakglass_mailer::config::{Cli, Command};
use breakglass_mailer::{app, telemetry};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Contents and addresses are on disk: files are for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let log = match &cli.command {
        Command::Dev(dev) => &dev.log,
        Command::Serve(serve) => &serve.log,
    };
    let ended = telemetry::start(log).and_then(|()| match cli.command {
        Command::Dev(dev) => app::dev(dev),
        Command::Serve(serve) => app::serve(serve),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("breakglass-mailer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
