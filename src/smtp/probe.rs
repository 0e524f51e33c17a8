//! The health check: connect, TLS, AUTH, NOOP and QUIT, without mail.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::classify::{End, failure};
use super::transcript::Transcript;
use super::{Timeouts, open};
use crate::core::outcome::{Failure, Stage};
use crate::core::provider::Provider;
use crate::oauth2::Tokens;

/// Checks a provider within `timeouts.probe`. A connection of its own: one that is kept would not
/// show that a new one can be made.
pub(super) async fn probe(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    tokens: &Tokens,
) -> Result<(), Failure> {
    let until = Instant::now() + timeouts.probe;
    let transcript = Transcript::new(Stage::Prepare);
    let late = End::Timeout(timeouts.probe);
    let opening = open(provider, timeouts, tokens, &transcript);
    let mut session = match timeout_at(until, opening).await {
        Ok(opened) => opened?,
        Err(_) => return Err(failure(transcript.stage(), late)),
    };
    let answered = timeout_at(until, session.noop(timeouts.command)).await;
    if let Err(end) = answered.unwrap_or(Err(late)) {
        let detail = "the server did not answer NOOP with 250".to_owned();
        return Err(Failure { detail, ..failure(session.stage(), end) });
    }
    // The check has passed; a server that does not say goodbye is no worse for it.
    let _ = timeout_at(until, session.quit()).await;
    Ok(())
}
