//! The real binary as a client, run to its end.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::wait::LIMIT;

/// A shell in which the binary is run: its environment, and nothing of ours.
#[derive(Default)]
pub struct Shell {
    env: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it printed, after it ended with `code`.
    ///
    /// # Panics
    /// When it ended otherwise.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Its one JSON document, after it ended well.
    ///
    /// # Panics
    /// When it did not, or printed something else.
    pub fn json(self) -> Value {
        let ran = self.ended(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }
}

impl Shell {
    /// One in which the commands speak to the server at `url`.
    pub fn at(url: &str) -> Self {
        Self::default().env("BREAKGLASS_MAILER_SERVER", url)
    }

    /// An environment variable more.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// The command with these arguments, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_breakglass-mailer"));
        command.args(args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs it without an input.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "").await
    }

    /// Runs it with an input.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("start it");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may end without having read.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let ended = timeout(LIMIT, child.wait_with_output()).await.expect("the command ends");
        let ended = ended.expect("wait for the command");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
    }
}
