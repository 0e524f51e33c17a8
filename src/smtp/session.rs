//! One logged-in connection and the dialogue on it.
//!
//! lettre writes the commands and the message; what the server said is read from the guard's
//! record. A session is used by one attempt at a time and closes when it is dropped.

mod login;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Noop, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter};
use tokio::sync::OwnedSemaphorePermit;

use super::Timeouts;
use super::classify::{End, Whose, is_rejection};
use super::dial::{expect, listen, listen_to_all};
use super::message::Message;
use super::redaction::Redaction;
use super::reply::RawReply;
use super::transcript::{Fault, Transcript};
use crate::core::outcome::{Reply, Stage};
use crate::core::provider::Provider;

use login::Mechanisms;
pub(super) use login::Proof;

/// A connection is replaced after this many messages: some servers slow one down that stays.
const MESSAGES_COUNT_MAX: u32 = 100;
/// A goodbye is a courtesy; nobody waits longer for it.
const QUIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Session {
    smtp: AsyncSmtpConnection,
    transcript: Transcript,
    offers: Offers,
    /// What this server must not be quoted with outside of a transaction.
    redaction: Redaction<'static>,
    /// As it was when the connection was made.
    provider: Arc<Provider>,
    messages_count: u32,
    is_reused: bool,
    needs_reset: bool,
    /// Among all connections.
    _place: Option<OwnedSemaphorePermit>,
}

/// What the server's EHLO offers, as far as we use it.
#[derive(Clone, Copy, Debug, Default)]
struct Offers {
    smtp_utf8: bool,
    size: bool,
    pipelining: bool,
    mechanisms: Mechanisms,
}

impl Offers {
    fn of(ehlo: &RawReply) -> Self {
        Self {
            smtp_utf8: ehlo.offer("SMTPUTF8").is_some(),
            size: ehlo.offer("SIZE").is_some(),
            pipelining: ehlo.offer("PIPELINING").is_some(),
            mechanisms: Mechanisms::of(ehlo),
        }
    }
}

impl Session {
    /// A session after EHLO, which was answered with `ehlo`.
    pub(super) fn new(
        smtp: AsyncSmtpConnection,
        ehlo: &RawReply,
        transcript: Transcript,
        provider: Arc<Provider>,
    ) -> Self {
        Self {
            smtp,
            transcript,
            offers: Offers::of(ehlo),
            redaction: Redaction::of(&provider.smtp),
            provider,
            messages_count: 0,
            is_reused: false,
            needs_reset: false,
            _place: None,
        }
    }

    /// The same, which gives `place` back when it ends.
    pub(super) fn holding(self, place: OwnedSemaphorePermit) -> Self {
        Self { _place: Some(place), ..self }
    }

    /// The step that the dialogue is at.
    pub(super) fn stage(&self) -> Stage {
        self.transcript.stage()
    }

    /// The provider as it was when the connection was made.
    pub(super) fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// Whether another attempt used it before.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether nothing came over it that was not asked for, so that its next reply can be trusted.
    pub(super) fn is_in_step(&self) -> bool {
        self.transcript.is_in_step()
    }

    /// Whether it carried as many messages as it should.
    pub(super) fn is_worn(&self) -> bool {
        self.messages_count >= MESSAGES_COUNT_MAX
    }

    /// NOOP, after which a check has seen enough.
    pub(super) async fn noop(&mut self, limit: Duration) -> Result<(), End> {
        let reply = self.command(Stage::Ehlo, limit, Noop).await?;
        expect(reply, 200..=299, &self.redaction)?;
        Ok(())
    }

    /// Says goodbye and closes, waiting a little for the answer.
    pub(super) async fn quit(mut self) {
        let _ = self.command(self.stage(), QUIT_WAIT_MAX, Quit).await;
    }

    /// One transaction (RFC 5321 3.3). Delivered is only what a 2yz to the final dot says.
    pub(super) async fn deliver(
        &mut self,
        message: &Message<'_>,
        timeouts: &Timeouts,
    ) -> Result<Reply, End> {
        let redaction = self.redaction.about(&message.recipient_words, message.content);
        self.transcript.enter(Stage::Mail);
        if let Some(whose) = message.needs_utf8
            && !self.offers.smtp_utf8
        {
            return Err(End::NoSmtpUtf8(whose));
        }
        if self.needs_reset {
            let reset = self.command(Stage::Mail, timeouts.command, Rset).await;
            // A server that cannot go back to the start is as good as gone.
            if !reset.is_ok_and(|reply| reply.code == 250) {
                return Err(End::Fault(Fault::Lost));
            }
            self.needs_reset = false;
        }
        self.begin_transaction(message, timeouts, &redaction).await?;
        self.transcript.enter_message();
        let sent = self.smtp.message(&message.bytes);
        let reply = listen(&self.transcript, timeouts.dot, sent).await?;
        let reply = expect(reply, 200..=299, &redaction)?;
        self.messages_count += 1;
        Ok(reply.to_reply(&redaction))
    }

    /// Up to the server's 354. Whoever offers it gets the three commands together, which saves two
    /// round trips.
    async fn begin_transaction(
        &mut self,
        message: &Message<'_>,
        timeouts: &Timeouts,
        redaction: &Redaction<'_>,
    ) -> Result<(), End> {
        let mail = Mail::new(Some(message.sender.clone()), self.parameters(message));
        let rcpt = Rcpt::new(message.recipient.clone(), Vec::new());
        // Set before the first command: a refusal leaves a transaction that RSET must end.
        self.needs_reset = true;
        if self.offers.pipelining {
            self.transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
            let commands = async {
                // Two of the answers that lettre gets are the guard's.
                let _ = self.smtp.command(mail).await;
                let _ = self.smtp.command(rcpt).await;
                let _ = self.smtp.command(Data).await;
            };
            let limit = |stage| timeouts.of(stage);
            let (replies, end) = listen_to_all(&self.transcript, limit, commands).await;
            self.judge(replies, end, redaction)?;
        } else {
            let reply = self.command(Stage::Mail, timeouts.command, mail).await?;
            expect(reply, 200..=299, redaction)?;
            let reply = self.command(Stage::Rcpt, timeouts.command, rcpt).await?;
            expect(reply, 200..=299, redaction)?;
            let reply = self.command(Stage::Data, timeouts.data, Data).await?;
            expect(reply, 354..=354, redaction)?;
        }
        self.needs_reset = false;
        Ok(())
    }

    /// What the replies to MAIL, RCPT and DATA come to: the first that does not go on decides, or `end`,
    /// which came instead of a reply.
    fn judge(
        &self,
        replies: Vec<RawReply>,
        end: End,
        redaction: &Redaction<'_>,
    ) -> Result<(), End> {
        let steps = [(Stage::Mail, 200..=299), (Stage::Rcpt, 200..=299), (Stage::Data, 354..=354)];
        let is_whole = replies.len() == steps.len();
        let may_want_data = is_whole && replies.last().is_some_and(|reply| reply.code < 400);
        for ((stage, wanted), reply) in steps.into_iter().zip(replies) {
            if let Err(end) = expect(reply, wanted, redaction) {
                self.transcript.decided_at(stage);
                if may_want_data {
                    // RFC 2920 3.1 has us send it a dot, and it could take that for a message.
                    self.transcript.spoil();
                }
                return Err(end);
            }
        }
        if is_whole { Ok(()) } else { Err(end) }
    }

    fn parameters(&self, message: &Message<'_>) -> Vec<MailParameter> {
        let mut parameters = Vec::new();
        if self.offers.size {
            // With the line end that lettre writes before the final dot (RFC 1870 5).
            parameters.push(MailParameter::Size(message.bytes.len() + "\r\n".len()));
        }
        if message.needs_utf8.is_some() {
            // RFC 6531 3.1: whoever offers SMTPUTF8 takes 8BITMIME too.
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
            parameters.push(MailParameter::SmtpUtfEight);
        }
        parameters
    }

    /// The same session for another attempt.
    pub(super) fn reused(mut self) -> Self {
        self.is_reused = true;
        self
    }

    async fn command(
        &mut self,
        stage: Stage,
        limit: Duration,
        command: impl Display,
    ) -> Result<RawReply, End> {
        self.transcript.enter(stage);
        listen(&self.transcript, limit, self.smtp.command(command)).await
    }
}

/// Whether a reused connection that ended so was stale: nothing was accepted over it, and a new
/// one may well work. A sender that is refused there may only have come once too often.
pub(super) fn is_stale(stage: Stage, end: &End) -> bool {
    stage == Stage::Mail
        && match end {
            End::Fault(Fault::Lost | Fault::Unasked) => true,
            // A quota is used up on every connection.
            End::Reply(reply) => {
                reply.quota().is_none() && (reply.code == 421 || reply.code >= 500)
            }
            _ => false,
        }
}

/// Whether the connection is still good after an attempt that ended so: the server refused a
/// recipient for good, or nothing was said at all. What a server puts off may be for the
/// connection's sake, so that the next attempt must not find the same one.
pub(super) fn is_kept(stage: Stage, end: &End) -> bool {
    match end {
        End::Reply(reply) => stage == Stage::Rcpt && is_rejection(stage, reply),
        End::NoSmtpUtf8(Whose::Recipient | Whose::ReplyTo) => true,
        _ => false,
    }
}
