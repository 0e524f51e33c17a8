//! The offline tools for a data folder, and their flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::EXIT_CODES;
use super::client::Output;

/// The tools. None of them changes the folder that it reads, and a server may work on it.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read everything in a data folder or a backup, and tell whether it is whole
    ///
    /// Nothing in the folder is changed. A server may be working on it: then it is read as far as
    /// it was written at one moment.
    #[command(after_help = "Exit codes: 0 it is whole; 1 it is damaged, or cannot be read; \
        2 wrong usage")]
    Verify(Reading),
    /// Jobs, contents and journal in numbers; never a recipient, a subject or a body
    #[command(after_help = EXIT_CODES)]
    Stats(Reading),
    /// Copy a store, also one that a server is working on, and read the copy back
    ///
    /// Everything that was answered 202 before is in the copy. What is delivered after the backup
    /// is not known to it: a server on the restored store sends that again.
    #[command(after_help = EXIT_CODES)]
    Backup {
        /// What to copy.
        #[command(flatten)]
        from: Folder,
        /// A folder that is empty or does not exist
        target: PathBuf,
    },
    /// Make a data folder of a backup
    ///
    /// It is the same store again, as it was then: what was delivered since is sent a second time,
    /// and what was accepted since is not in it. Never let a server work on the old folder and one
    /// on the restored one: each would send what waits in both.
    #[command(after_help = EXIT_CODES)]
    Restore {
        /// What `store backup` made
        backup: PathBuf,
        /// A folder that is empty or does not exist
        folder: PathBuf,
    },
}

/// A folder to be read, and how to show what is in it.
#[derive(Debug, Args)]
pub struct Reading {
    /// Which folder.
    #[command(flatten)]
    pub folder: Folder,
    /// A table for people, or one JSON document
    #[arg(short, long, env = "BREAKGLASS_MAILER_OUTPUT", default_value = "table")]
    pub output: Output,
}

/// A data folder.
#[derive(Debug, Args)]
pub struct Folder {
    /// The data folder of a server, or a backup
    #[arg(long, env = "BREAKGLASS_MAILER_DATA_DIR", default_value = "breakglass-mailer-data")]
    pub data_dir: PathBuf,
}
