//! The attempts of a job as a table.

use jiff::Timestamp;
use serde::Deserialize;

use super::failure::Failure;
use super::{age, screen};

/// One attempt, as the server shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    number: u32,
    at: String,
    provider: String,
    stage: String,
    outcome: String,
    message: String,
    duration_ms: u64,
}

/// A table of them, if there are any.
///
/// # Errors
/// When it cannot be written.
pub(super) fn table(attempts: &[Attempt], now: Timestamp) -> Result<(), Failure> {
    if attempts.is_empty() {
        return Ok(());
    }
    let row = |attempt: &Attempt| {
        [
            attempt.number.to_string(),
            age::since(&attempt.at, now),
            attempt.provider.clone(),
            attempt.stage.clone(),
            attempt.outcome.clone(),
            format!("{} ms", attempt.duration_ms),
            attempt.message.clone(),
        ]
    };
    let header = ["ATTEMPT", "AGE", "PROVIDER", "STAGE", "OUTCOME", "TOOK", "MESSAGE"];
    screen::table(header, attempts.iter().map(row).collect(), "")
}
