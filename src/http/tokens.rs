//! The tokens of `--auth token`: a file, read again when it changes.
//!
//! Kept as digests: what is compared in constant time has one length, and nothing in memory, in a
//! log or in an error shows a token.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::file_watch::FileWatch;

/// The least bytes of a token: 32 random ones cannot be guessed, nor 64 hexadecimal digits.
pub const TOKEN_BYTES_MIN: usize = 32;
/// The most bytes of a token: it has to fit into a header.
const TOKEN_BYTES_MAX: usize = 1024;
/// The most tokens: the old and the new one while callers change over.
const TOKENS_COUNT_MAX: usize = 2;
/// The most bytes of the file.
const FILE_BYTES_MAX: u64 = 4096;

/// The tokens that are valid now: one, or two while callers change over.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; 32]>);

/// Why a token file is not taken. Never quotes it.
#[derive(Debug, thiserror::Error)]
#[error("token file {}: {problem}", file.display())]
pub struct TokenFileError {
    file: PathBuf,
    problem: String,
}

impl Tokens {
    /// Reads a token file: one or two lines, each a token of 32 to 1024 visible ASCII characters.
    /// Empty lines do not count.
    ///
    /// # Errors
    /// When it cannot be read or breaks these rules.
    pub fn read(file: &Path) -> Result<Self, TokenFileError> {
        let mut text = Vec::new();
        File::open(file)
            .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
            .map_err(|error| error.to_string())
            .and_then(|_| Self::parse(&text))
            .map_err(|problem| TokenFileError { file: file.to_owned(), problem })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        if FILE_BYTES_MAX < text.len() as u64 {
            return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
        }
        let mut tokens = Vec::new();
        for (n, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let token = line.trim_ascii();
            if token.is_empty() {
                continue;
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                return Err(format!("line {}: a token is visible ASCII without spaces", n + 1));
            }
            if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
                return Err(format!(
                    "line {}: a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters, \
                     this one has {}: make one with `openssl rand -hex 32`",
                    n + 1,
                    token.len()
                ));
            }
            tokens.push(digest(token));
        }
        match tokens.len() {
            0 => Err("holds no token: make one with `openssl rand -hex 32`".to_owned()),
            1..=TOKENS_COUNT_MAX => Ok(Self(tokens)),
            count => Err(format!(
                "holds {count} tokens: at most {TOKENS_COUNT_MAX} are valid at once, the old and \
                 the new one"
            )),
        }
    }

    /// Whether `token` is one of these, in a time that tells nothing of them.
    #[must_use]
    pub fn allow(&self, token: &[u8]) -> bool {
        let given = digest(token);
        let found = self.0.iter().fold(Choice::from(0), |found, token| found | token.ct_eq(&given));
        found.into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Keeps `tokens` up to date with the file until `stop`. A broken file is named in the log, and
/// the last good tokens stay valid.
pub async fn watch(file: PathBuf, tokens: watch::Sender<Tokens>, stop: CancellationToken) {
    let watched = FileWatch::start(&file);
    let mut last_problem = None;
    loop {
        let path = file.clone();
        // A reading that panics is one that found nothing new; the next one tries again.
        let read = spawn_blocking(move || Tokens::read(&path).map_err(|e| e.to_string())).await;
        let problem = read.ok().and_then(|read| take_over(read, &tokens).err());
        if let Some(error) = problem.as_ref().filter(|_| problem != last_problem) {
            tracing::error!(error, "the last good tokens stay valid");
        }
        last_problem = problem;
        tokio::select! {
            () = stop.cancelled() => return,
            () = watched.changed() => {}
        }
    }
}

fn take_over(read: Result<Tokens, String>, tokens: &watch::Sender<Tokens>) -> Result<(), String> {
    let read = read?;
    let tokens_count = read.0.len();
    if tokens.send_if_modified(|known| std::mem::replace(known, read.clone()) != read) {
        tracing::info!(tokens_count, "the tokens are taken over");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn both_tokens_of_a_file_are_valid_and_nothing_else_is() {
        let tokens = Tokens::parse(format!("{OLD}\r\n\n{NEW}\n").as_bytes()).expect("two tokens");
        assert!(tokens.allow(OLD.as_bytes()) && tokens.allow(NEW.as_bytes()));
        for wrong in ["", &OLD[1..], &format!("{OLD}{NEW}"), &OLD.to_uppercase()] {
            assert!(!tokens.allow(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_breaks_a_rule_is_refused_by_line_and_never_quoted() {
        let short = "x".repeat(31);
        let long = format!("{}{OLD}\n", "\n".repeat(4096));
        let three = format!("{OLD}\n{NEW}\n{OLD}0\n");
        let spaced = format!("{OLD}\n{} {NEW}\n", "secret");
        for (text, said) in [
            ("\n \n", "holds no token"),
            (short.as_str(), "line 1: a token has 32 to 1024 characters, this one has 31"),
            (&three, "holds 3 tokens"),
            (&long, "has more than 4096 bytes"),
            (&spaced, "line 2: a token is visible ASCII"),
        ] {
            let refused = Tokens::parse(text.as_bytes()).expect_err(said);
            assert!(refused.contains(said), "{refused}");
            assert!(!refused.contains("secret") && !refused.contains(&OLD[..8]), "{refused}");
        }
    }
}
