//! The health check: connect, TLS, AUTH, NOOP and QUIT, without mail.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::classify::{End, failure};
use super::guard::Transcript;
use super::{Timeouts, open};
use crate::core::outcome::{Failure, Stage};
use crate::core::provider::Provider;

/// Checks a provider within `timeouts.probe`. A connection of its own: one that is kept would not
/// show that a new one can be made.
pub(super) async fn probe(provider: &Arc<Provider>, timeouts: &Timeouts) -> Result<(), Failure> {
    let until = Instant::now() + timeouts.probe;
    let transcript = Transcript::new(Stage::Prepare);
    let check = async {
        let mut session = open(provider, timeouts, &transcript).await?;
        session.noop(timeouts.command).await.map_err(|end| {
            let failure = failure(session.stage(), end);
            Failure { detail: format!("NOOP failed: {}", failure.detail), ..failure }
        })?;
        Ok(session)
    };
    let session = match timeout_at(until, check).await {
        Ok(checked) => checked?,
        Err(_) => return Err(failure(transcript.stage(), End::Timeout(timeouts.probe))),
    };
    // The check has passed; a server that does not say goodbye is no worse for it.
    let _ = timeout_at(until, session.quit()).await;
    Ok(())
}
