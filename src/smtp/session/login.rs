//! AUTH (RFC 4954): PLAIN or LOGIN with a password, XOAUTH2 with an access token.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::Auth;
use secrecy::{ExposeSecret, SecretString};

use super::{RawReply, Session, expect};
use crate::core::outcome::{Cause, Stage};
use crate::smtp::classify::End;

/// The longest command line (RFC 5321 4.5.3.1.4). The lines of the exchange that follows a command may
/// be much longer (RFC 4954 4).
const COMMAND_BYTES_MAX: usize = 512;

/// What proves who we are.
#[derive(Clone, Copy)]
pub(in crate::smtp) enum Proof<'a> {
    Password(&'a SecretString),
    AccessToken(&'a SecretString),
}

/// Which of the mechanisms that we speak a server offers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mechanisms {
    password: Option<Mechanism>,
    has_xoauth2: bool,
}

impl Mechanisms {
    pub(super) fn of(ehlo: &RawReply) -> Self {
        let knows = |name: &str| {
            ehlo.offer("AUTH").is_some_and(|mut words| words.any(|w| w.eq_ignore_ascii_case(name)))
        };
        // PLAIN takes one round trip, LOGIN three; both show the password to the server.
        let password = match (knows("PLAIN"), knows("LOGIN")) {
            (true, _) => Some(Mechanism::Plain),
            (false, true) => Some(Mechanism::Login),
            (false, false) => None,
        };
        Self { password, has_xoauth2: knows("XOAUTH2") }
    }
}

impl Session {
    /// Logs in; from then on no reply is shown with what was sent for it.
    pub(in crate::smtp) async fn log_in(
        &mut self,
        username: &str,
        proof: Proof<'_>,
        limit: Duration,
    ) -> Result<(), End> {
        self.transcript.enter(Stage::Auth);
        match proof {
            Proof::Password(password) => self.log_in_by_password(username, password, limit).await,
            Proof::AccessToken(token) => self.log_in_by_token(username, token, limit).await,
        }
    }

    /// AUTH PLAIN or LOGIN, whichever the server offers.
    async fn log_in_by_password(
        &mut self,
        username: &str,
        password: &SecretString,
        limit: Duration,
    ) -> Result<(), End> {
        let Some(mechanism) = self.offers.mechanisms.password else {
            return Err(unable("the server offers neither AUTH PLAIN nor AUTH LOGIN"));
        };
        // The prompts of LOGIN are the same two everywhere, in words that differ.
        let prompts: &[Option<&str>] = match mechanism {
            Mechanism::Login => &[None, Some("Username:"), Some("Password:")],
            _ => &[None],
        };
        let mut wanted = 334..=334;
        for (n, prompt) in prompts.iter().enumerate() {
            let credentials =
                Credentials::new(username.to_owned(), password.expose_secret().to_owned());
            let Ok(line) = Auth::new(mechanism, credentials, prompt.map(str::to_owned)) else {
                return Err(unable("the credentials do not fit the login mechanism"));
            };
            if n + 1 == prompts.len() {
                wanted = 200..=299;
            }
            let reply = self.command(Stage::Auth, limit, line).await?;
            expect(reply, wanted.clone(), &self.redaction)?;
        }
        Ok(())
    }

    /// AUTH XOAUTH2, as Google and Microsoft describe it.
    async fn log_in_by_token(
        &mut self,
        username: &str,
        token: &SecretString,
        limit: Duration,
    ) -> Result<(), End> {
        if !self.offers.mechanisms.has_xoauth2 {
            return Err(unable("the server does not offer AUTH XOAUTH2"));
        }
        let token = token.expose_secret();
        let response = STANDARD.encode(format!("user={username}\x01auth=Bearer {token}\x01\x01"));
        self.redaction.hide_parts(token, "<access-token>");
        self.redaction.hide_parts(&response, "<credentials>");
        let mut line = format!("AUTH XOAUTH2 {response}\r\n");
        if COMMAND_BYTES_MAX < line.len() {
            let reply = self.command(Stage::Auth, limit, "AUTH XOAUTH2\r\n").await?;
            expect(reply, 334..=334, &self.redaction)?;
            line = format!("{response}\r\n");
        }
        let mut reply = self.command(Stage::Auth, limit, line).await?;
        if reply.code == 334 {
            // A refusal, and why in base64. The code for it comes once that is acknowledged.
            reply = self.command(Stage::Auth, limit, "\r\n").await?;
        }
        if reply.code == 334 {
            let sentence = "the server refused the access token, and does not end the exchange";
            return Err(End::Other(Cause::LoginRefused, sentence.to_owned()));
        }
        expect(reply, 200..=299, &self.redaction)?;
        Ok(())
    }
}

fn unable(sentence: &str) -> End {
    End::Other(Cause::AuthFailed, sentence.to_owned())
}
