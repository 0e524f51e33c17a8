//! One exchange with a token server, bounded in time and size.

use std::io::ErrorKind;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use ureq::{Agent, Error, Timeout};

use super::answer::{read, trouble};
use super::{Granted, TokenError};
use crate::core::outcome::Cause;
use crate::core::provider::{Grant, OAuth2};
use crate::https::agent_for;

/// A token is a few kilobytes at most.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A new token (RFC 6749 4.4 and 6), with `refresh_token` in the place of the Secret's.
///
/// # Errors
/// When there is none.
pub(super) async fn fetch(
    oauth2: &OAuth2,
    refresh_token: Option<SecretString>,
    limit: Duration,
) -> Result<Granted, TokenError> {
    let form = form(oauth2, refresh_token)?;
    let url = oauth2.token_url.clone();
    let exchange = tokio::task::spawn_blocking(move || exchange(&url, &form, limit));
    exchange.await.unwrap_or_else(|_| Err(trouble("the token was not fetched".to_owned())))
}

/// What is posted. Microsoft and Google both take the client's secret there (RFC 6749 2.3.1).
type Form = Vec<(&'static str, SecretString)>;

fn form(oauth2: &OAuth2, refreshed: Option<SecretString>) -> Result<Form, TokenError> {
    let missing = || TokenError {
        cause: Cause::PasswordUnavailable,
        detail: "a secret of oauth2 is not loaded".to_owned(),
    };
    let (grant, client_secret, refresh_token) = match &oauth2.grant {
        Grant::ClientCredentials { client_secret } => {
            ("client_credentials", Some(client_secret), None)
        }
        Grant::RefreshToken { refresh_token, client_secret } => {
            let refresh_token = refreshed.or_else(|| refresh_token.loaded().cloned());
            ("refresh_token", client_secret.as_ref(), Some(refresh_token.ok_or_else(missing)?))
        }
    };
    let mut form =
        vec![("grant_type", grant.into()), ("client_id", oauth2.client_id.clone().into())];
    if let Some(secret) = client_secret {
        form.push(("client_secret", secret.loaded().cloned().ok_or_else(missing)?));
    }
    form.extend(refresh_token.map(|token| ("refresh_token", token)));
    form.extend(oauth2.scope.clone().map(|scope| ("scope", scope.into())));
    Ok(form)
}

fn exchange(url: &str, form: &Form, limit: Duration) -> Result<Granted, TokenError> {
    let agent: Agent = agent_for(url).timeout_global(Some(limit)).build().into();
    let fields = form.iter().map(|(name, value)| (*name, value.expose_secret()));
    let answer = agent.post(url).header("accept", "application/json").send_form(fields);
    let (head, body) = answer.map_err(|error| broken(&error, limit))?.into_parts();
    let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    read(head.status.as_u16(), &body.map_err(|error| broken(&error, limit))?)
}

/// Why there was no answer. The error's own words may quote the URL.
fn broken(error: &Error, limit: Duration) -> TokenError {
    let lost = "the connection to the token server broke before its answer";
    let (cause, what) = match error {
        Error::Timeout(Timeout::Resolve) => (Cause::Dns, "the token server's name is not resolved"),
        Error::HostNotFound => (Cause::Dns, "the token server's name has no address"),
        Error::Timeout(_) => {
            let detail = format!("the token server did not answer within {limit:?}");
            return TokenError { cause: Cause::ConnectionTimeout, detail };
        }
        Error::Rustls(_) | Error::Tls(_) => {
            (Cause::Tls, "the token server's TLS cannot be trusted")
        }
        Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused => {
                (Cause::ConnectionRefused, "the token server refuses connections")
            }
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                (Cause::ConnectionRefused, "there is no way to the token server")
            }
            // The one sign of a failed lookup: it has no kind of its own.
            _ if error.to_string().starts_with("failed to lookup address") => {
                (Cause::Dns, "the token server's name has no address")
            }
            // rustls's own, wrapped.
            ErrorKind::InvalidData => (Cause::Tls, "the token server's TLS cannot be trusted"),
            _ => (Cause::ConnectionRefused, lost),
        },
        Error::ConnectionFailed => {
            (Cause::ConnectionRefused, "the token server cannot be connected to")
        }
        Error::LargeResponseHeader(..) | Error::BodyExceedsLimit(_) => {
            (Cause::AuthFailed, "the token server's answer is too large")
        }
        _ => (Cause::AuthFailed, "the token server's answer is not HTTP"),
    };
    TokenError { cause, detail: what.to_owned() }
}
