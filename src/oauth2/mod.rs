//! Access tokens for AUTH XOAUTH2: fetched from a token server, kept while they live.
//!
//! It promises:
//!
//! * A token is used again until its end is near; then one caller fetches the next, and the others
//!   wait for that one. While the token server fails, a token that still lives is good enough.
//! * What was asked for is taken in, also when nobody waits for it any more: with it may come the only
//!   refresh token that the token server still takes.
//! * A secret goes to the configured URL alone: no redirect is followed and no proxy used.
//! * No error, log or `Debug` shows a secret, a token, or any other words of the token server.
//!
//! A failure is not kept: whoever asks next asks the token server again. How often that is, is for
//! the circuit and the health checks to say, as with any other failure of a provider.

mod answer;
mod fetch;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::outcome::Cause;
use crate::core::provider::{OAuth2, ProviderName};

use answer::trouble;
use fetch::fetch;

/// A token is renewed so long before its end, or when four fifths of its life are over.
const MARGIN_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a token that still lives is used before the token server is asked again, after it failed.
const RETRY_WAIT: Duration = Duration::from_secs(30);

/// An access token. Never printed.
#[derive(Clone, Debug)]
pub struct Token {
    /// What AUTH XOAUTH2 sends.
    pub text: SecretString,
    /// Whether it was used before: then the mail server may have forgotten it meanwhile, and a new
    /// one may fare better.
    pub is_reused: bool,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError {
    /// The kind: [`Cause::LoginRefused`] when the token server refused us for good.
    pub cause: Cause,
    /// One sentence for a person. Never a secret.
    pub detail: String,
}

/// What a token server gave out.
#[derive(Clone, Debug)]
struct Granted {
    token: SecretString,
    lifetime: Duration,
    /// In the place of the one that was used (RFC 6749 6).
    refresh_token: Option<SecretString>,
}

/// What a fetch came to, once it has ended.
type Fetch = watch::Receiver<Option<Result<Granted, TokenError>>>;

/// The tokens of all providers. A clone has the same.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Mutex<HashMap<ProviderName, Slot>>>);

/// What is known of one provider's tokens, under one description of how to get them.
struct Slot {
    oauth2: OAuth2,
    /// The newest, unless a mail server refused it.
    kept: Option<Kept>,
    /// The refresh token that came in the place of the Secret's. It is kept in memory alone: who
    /// starts anew starts with the Secret's.
    refresh_token: Option<SecretString>,
    /// A fetch under way.
    fetch: Option<Fetch>,
}

struct Kept {
    token: SecretString,
    renew_at: Instant,
    ends_at: Instant,
}

impl Tokens {
    /// A token for `name`, fetched within `limit` when none is kept that will do.
    ///
    /// # Errors
    /// When there is none, which takes no longer than `limit` to find out.
    pub async fn get(
        &self,
        name: &ProviderName,
        oauth2: &OAuth2,
        limit: Duration,
    ) -> Result<Token, TokenError> {
        let owned = oauth2.clone();
        let fetch = async move |refresh_token: Option<SecretString>| {
            fetch(&owned, refresh_token, limit).await
        };
        self.get_by(name, oauth2, fetch).await
    }

    /// Forgets a token that a mail server refused, so that the next one is a new one.
    pub fn refused(&self, name: &ProviderName, token: &Token) {
        if let Some(slot) = self.lock().get_mut(name) {
            let is_it = |kept: &mut Kept| kept.token.expose_secret() == token.text.expose_secret();
            // Another may be there already: a token is refused once for each connection.
            slot.kept.take_if(is_it);
        }
    }

    async fn get_by<F, Fut>(
        &self,
        name: &ProviderName,
        oauth2: &OAuth2,
        fetch: F,
    ) -> Result<Token, TokenError>
    where
        F: FnOnce(Option<SecretString>) -> Fut,
        Fut: Future<Output = Result<Granted, TokenError>> + Send + 'static,
    {
        let mut under_way = {
            let mut slots = self.lock();
            let slot = slots.entry(name.clone()).or_insert_with(|| Slot::new(oauth2));
            if slot.oauth2 != *oauth2 {
                *slot = Slot::new(oauth2);
            }
            if let Some(token) = slot.usable(Instant::now(), |kept| kept.renew_at) {
                return Ok(token);
            }
            // One that has ended without a word broke.
            slot.fetch.take_if(|fetch| fetch.has_changed().is_err());
            let begin = || self.begin(name, fetch(slot.refresh_token.clone()));
            slot.fetch.get_or_insert_with(begin).clone()
        };
        let fetched = under_way.wait_for(Option::is_some).await;
        let fetched = fetched.ok().and_then(|fetched| fetched.clone());
        match fetched.unwrap_or_else(|| Err(trouble("the token was not fetched".to_owned()))) {
            Ok(granted) => Ok(Token { text: granted.token, is_reused: false }),
            Err(error) => {
                let slots = self.lock();
                let slot = slots.get(name).filter(|slot| slot.oauth2 == *oauth2);
                slot.and_then(|slot| slot.usable(Instant::now(), |kept| kept.ends_at)).ok_or(error)
            }
        }
    }

    /// Begins to fetch, in a task that ends when the fetch does and not when those who wait for it
    /// give up.
    fn begin(
        &self,
        name: &ProviderName,
        fetch: impl Future<Output = Result<Granted, TokenError>> + Send + 'static,
    ) -> Fetch {
        let (tell, told) = watch::channel(None);
        let (tokens, name, own) = (self.clone(), name.clone(), told.clone());
        tokio::spawn(async move {
            let begin = Instant::now();
            let fetched = fetch.await;
            let mut slots = tokens.lock();
            // Under another description by now it may be that of another account.
            if let Some(slot) = slots.get_mut(&name)
                && slot.fetch.take_if(|fetch| fetch.same_channel(&own)).is_some()
            {
                slot.learn(&fetched, begin);
            }
            drop(slots);
            tell.send_replace(Some(fetched));
        });
        told
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProviderName, Slot>> {
        // Each field is set whole, and each is true by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(oauth2: &OAuth2) -> Self {
        Self { oauth2: oauth2.clone(), kept: None, refresh_token: None, fetch: None }
    }

    /// The token that is kept, before the time that `until` names.
    fn usable(&self, now: Instant, until: fn(&Kept) -> Instant) -> Option<Token> {
        let kept = self.kept.as_ref().filter(|kept| now < until(kept))?;
        Some(Token { text: kept.token.clone(), is_reused: true })
    }

    /// Takes in what a fetch that began at `begin` came to: a life is counted from there.
    fn learn(&mut self, fetched: &Result<Granted, TokenError>, begin: Instant) {
        match fetched {
            Ok(Granted { token, lifetime, refresh_token }) => {
                let margin = MARGIN_MAX.min(*lifetime / 5);
                self.kept = Some(Kept {
                    token: token.clone(),
                    renew_at: begin + (*lifetime - margin),
                    ends_at: begin + *lifetime,
                });
                if refresh_token.is_some() {
                    self.refresh_token.clone_from(refresh_token);
                }
            }
            Err(error) => {
                if error.cause == Cause::LoginRefused {
                    // Then the one of the Secret is the better guess: somebody may renew it.
                    self.refresh_token = None;
                }
                if let Some(kept) = &mut self.kept {
                    kept.renew_at = kept.ends_at.min(Instant::now() + RETRY_WAIT);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
