//! SMTP: the only code that knows lettre and the TLS beneath it.
//!
//! [`SmtpTransport`] hands one message at a time to a provider's server and says what came of it.
//! It promises:
//!
//! * Every step has a deadline, and what a peer sends is bounded: no peer can hold a worker or grow
//!   the process. The stream under lettre (`guard`) lets one reply through per command.
//! * A message counts as delivered only by a 2yz to its final dot; what the connection does after
//!   it changes nothing but whether it is used again.
//! * Credentials leave only over TLS, unless TLS was disabled on purpose, and neither they nor the
//!   recipient nor the content stand in what a failure says.
//!
//! It never retries, but for two cases that cannot send twice: a kept connection that turns out to
//! be gone before MAIL was accepted, or that refuses the sender, is replaced by a new one; and so is
//! an access token that was used before and is refused.

mod classify;
mod dial;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod header;
mod message;
mod pool;
mod probe;
mod redaction;
mod reply;
mod session;
mod tls;
mod transcript;

use std::sync::Arc;
use std::time::Duration;

use crate::core::job::Job;
use crate::core::notification::Content;
use crate::core::outcome::{Cause, Failure, Outcome, Reply, Stage};
use crate::core::provider::{CertificateAuthority, Login, Provider, Security};
use crate::delivery::transport::Transport;
use crate::oauth2::Tokens;
use futures_util::future::BoxFuture;

use classify::{classify, failure};
use message::Message;
use pool::Pool;
use session::{Proof, Session, is_kept, is_stale};
use transcript::Transcript;

/// How long each step may take: from the first byte written to the end of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An access token from its token server.
    pub token: Duration,
    /// Name lookup and TCP.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// The greeting and each command.
    pub command: Duration,
    /// DATA, up to the 354.
    pub data: Duration,
    /// The message and the reply to its final dot. A server may be slow to say that it has taken a
    /// message, and whoever hangs up before it does sends it twice (RFC 5321 4.5.3.2.6).
    pub dot: Duration,
    /// A whole health check.
    pub probe: Duration,
    /// After so long without a message a kept connection is closed.
    pub idle: Duration,
}

impl Timeouts {
    /// How long the reply to a command may take.
    fn of(&self, stage: Stage) -> Duration {
        if stage == Stage::Data { self.data } else { self.command }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            token: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(15),
            command: Duration::from_secs(60),
            data: Duration::from_secs(120),
            dot: Duration::from_secs(600),
            probe: Duration::from_secs(10),
            idle: Duration::from_secs(15),
        }
    }
}

/// Sends over SMTP. Must be used within a tokio runtime.
pub struct SmtpTransport {
    timeouts: Timeouts,
    pool: Pool,
    tokens: Tokens,
}

impl SmtpTransport {
    /// A transport without any connection yet.
    #[must_use]
    pub fn new(timeouts: Timeouts) -> Self {
        Self::bounded(timeouts, usize::MAX)
    }

    /// A transport that has so many connections at a time, to all servers together.
    #[must_use]
    pub fn bounded(timeouts: Timeouts, connections_max: usize) -> Self {
        let pool = Pool::new(timeouts.idle, connections_max);
        Self { timeouts, pool, tokens: Tokens::default() }
    }

    async fn attempt(&self, provider: &Arc<Provider>, message: &Message<'_>) -> Outcome {
        if let Some(session) = self.pool.take(provider)
            && let Some(outcome) = self.deliver(session, message).await
        {
            return outcome;
        }
        let place = self.pool.place().await;
        let transcript = Transcript::new(Stage::Prepare);
        let session = match open(provider, &self.timeouts, &self.tokens, &transcript).await {
            Ok(session) => session.holding(place),
            Err(failure) => return not_open(failure),
        };
        self.deliver(session, message)
            .await
            .unwrap_or_else(|| unreachable!("only a kept connection is stale, and this one is new"))
    }

    /// Delivers over `session` and keeps it when it is still good; `None` when it was stale.
    async fn deliver(&self, mut session: Session, message: &Message<'_>) -> Option<Outcome> {
        let delivered = session.deliver(message, &self.timeouts).await;
        let end = match delivered {
            Ok(reply) => {
                self.pool.put(session);
                return Some(Outcome::Delivered(reply));
            }
            Err(end) => end,
        };
        let stage = session.stage();
        if session.is_reused() && is_stale(stage, &end) {
            return None;
        }
        if is_kept(stage, &end) {
            self.pool.put(session);
        }
        Some(classify(stage, end))
    }
}

impl Transport for SmtpTransport {
    fn send<'a>(
        &'a self,
        provider: &'a Arc<Provider>,
        job: &'a Job,
        content: &'a Content,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if let Err(failure) = prepare(provider) {
                return Outcome::Unreachable(failure);
            }
            match message::compose(provider, job, content) {
                Ok(message) => self.attempt(provider, &message).await,
                Err(outcome) => outcome,
            }
        })
    }

    fn probe<'a>(&'a self, provider: &'a Arc<Provider>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            // A connection that is kept would be one too many beside the check's own.
            if provider.limits.max_connections.is_some()
                && let Some(kept) = self.pool.take(provider)
            {
                kept.quit().await;
            }
            let _place = self.pool.place().await;
            probe::probe(provider, &self.timeouts, &self.tokens).await
        })
    }
}

/// What an attempt comes to for which no session could be opened.
fn not_open(failure: Failure) -> Outcome {
    match failure.reply.as_ref().and_then(Reply::quota) {
        Some(quota) => Outcome::Held(quota, failure),
        None => Outcome::Unreachable(failure),
    }
}

/// A new session, logged in where the provider has credentials.
///
/// A token that the server took before and refuses now is replaced by a new one, once: tokens are
/// taken back, and keys are changed, before their time is up.
async fn open(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    tokens: &Tokens,
    transcript: &Transcript,
) -> Result<Session, Failure> {
    let (username, oauth2) = match prepare(provider)? {
        Some((username, Login::OAuth2(oauth2))) => (username, oauth2),
        Some((username, Login::Password(password))) => {
            let proof = password.loaded().map(|password| (username, Proof::Password(password)));
            return log_in(provider, timeouts, transcript, proof).await;
        }
        None => return log_in(provider, timeouts, transcript, None).await,
    };
    let limit = timeouts.token.min(timeouts.probe);
    let mut may_repeat = true;
    loop {
        let token = tokens.get(&provider.name, oauth2, limit).await;
        let token = token.map_err(|error| unprepared(error.cause, error.detail))?;
        let proof = Some((username, Proof::AccessToken(&token.text)));
        let opened = log_in(provider, timeouts, transcript, proof).await;
        if !opened.as_ref().is_err_and(|failure| failure.cause == Cause::LoginRefused) {
            return opened;
        }
        tokens.refused(&provider.name, &token);
        if !token.is_reused || !std::mem::take(&mut may_repeat) {
            return opened;
        }
        transcript.restart(Stage::Prepare);
    }
}

async fn log_in(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    transcript: &Transcript,
    login: Option<(&str, Proof<'_>)>,
) -> Result<Session, Failure> {
    let failed = |end| failure(transcript.stage(), end);
    let mut session = dial::dial(provider, timeouts, transcript).await.map_err(failed)?;
    if let Some((username, proof)) = login {
        session.log_in(username, proof, timeouts.command).await.map_err(failed)?;
    }
    Ok(session)
}

/// The name and the login, if the provider has them. A provider whose secrets or CA are missing is
/// not dialled, whatever else it is: also where neither would be asked for.
fn prepare(provider: &Provider) -> Result<Option<(&str, &Login)>, Failure> {
    if provider.smtp.certificate_authority == Some(CertificateAuthority::Unreadable) {
        return Err(unprepared(Cause::Tls, CertificateAuthority::UNREADABLE.to_owned()));
    }
    let Some(credentials) = &provider.smtp.credentials else {
        return Ok(None);
    };
    if let Some(missing) = credentials.missing() {
        return Err(unprepared(Cause::PasswordUnavailable, missing));
    }
    let is_token = matches!(credentials.login, Login::OAuth2(_));
    if is_token && provider.smtp.security == Security::Plaintext {
        let sentence = "no access token is sent without TLS".to_owned();
        return Err(unprepared(Cause::Tls, sentence));
    }
    Ok(Some((&credentials.username, &credentials.login)))
}

/// Why nobody was dialled.
fn unprepared(cause: Cause, detail: String) -> Failure {
    Failure { cause, stage: Stage::Prepare, reply: None, detail }
}
