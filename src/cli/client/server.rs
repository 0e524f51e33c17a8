//! The server that a command speaks to: one exchange at a time, each bounded in time and size.
//!
//! An answer is either what was asked for, or a [`Failure`] that says what came instead.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{HeaderValue, Response, StatusCode, header};
use ureq::{Agent, Body, RequestBuilder};

use super::failure::{Failure, Problem};
use super::screen;
use crate::config::client::{Output, Reach};
use crate::config::is_loopback;
use crate::https::agent_for;

/// See the module.
pub(super) struct Server {
    agent: Agent,
    url: String,
    authorization: Option<HeaderValue>,
}

/// An answer that is as it should be.
pub(super) struct Answer<T> {
    /// All that the server said.
    pub json: Value,
    /// What we know of it.
    pub view: T,
    /// Whether it repeats an earlier answer to the same idempotency key.
    pub is_replayed: bool,
}

impl<T> Answer<T> {
    /// Shows the JSON or, for people, what `table` makes of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn show(
        &self,
        output: Output,
        table: impl FnOnce(&T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match output {
            Output::Json => screen::json(&self.json),
            Output::Table => table(&self.view),
        }
    }
}

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

impl Server {
    /// Reads the token and, for https, the certificate authorities of this machine. Warns of a
    /// token that others could read on its way.
    ///
    /// # Errors
    /// When the token cannot be read or sent.
    pub(super) fn new(reach: &Reach) -> Result<Self, Failure> {
        let url = reach.server.clone();
        let agent = agent_for(&url)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .timeout_global(Some(EXCHANGE_TIME_MAX))
            .build()
            .into();
        let authorization = token(reach)?.as_ref().map(authorization).transpose()?;
        if authorization.is_some() && is_readable_on_its_way(&url) {
            screen::note(&format!("warning: the token goes to {url} unencrypted: use https://"));
        }
        Ok(Self { agent, url, authorization })
    }

    /// `GET` of `path`, with those parameters that have a value.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<Answer<T>, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in query {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        self.read(self.authorized(request).call())
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<T>, Failure> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.read(self.authorized(request).send(body.to_string()))
    }

    /// `DELETE` of `path`, whose answer is empty.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.authorized(self.agent.delete(format!("{}{path}", self.url)));
        match self.receive(request.call())? {
            (_, None) => Ok(()),
            (_, Some(_)) => Err(self.foreign("a document where none belongs")),
        }
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        exchange: Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer<T>, Failure> {
        let (is_replayed, json) = self.receive(exchange)?;
        let json = json.ok_or_else(|| self.foreign("an empty answer"))?;
        let view =
            T::deserialize(&json).map_err(|error| self.foreign(format!("other JSON: {error}")))?;
        Ok(Answer { json, view, is_replayed })
    }

    /// The JSON of an answer of success, if it has a body, and whether it is a repeated one.
    fn receive(
        &self,
        exchange: Result<Response<Body>, ureq::Error>,
    ) -> Result<(bool, Option<Value>), Failure> {
        let (head, body) = exchange.map_err(|error| self.broken(&error))?.into_parts();
        let bytes = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let bytes = bytes.map_err(|error| self.broken(&error))?;
        let status = head.status;
        if status.is_success() {
            let is_replayed = head.headers.contains_key("idempotency-replayed");
            if bytes.is_empty() {
                return Ok((is_replayed, None));
            }
            if let Ok(json) = serde_json::from_slice(&bytes) {
                return Ok((is_replayed, Some(json)));
            }
        } else if let Ok(mut problem) = serde_json::from_slice::<Problem>(&bytes)
            && problem.is_ours()
        {
            let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            problem.retry_after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
            problem.had_token = self.authorization.is_some();
            return Err(Failure::Refused(problem));
        }
        let media_type = head.headers.get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or("no type");
        let answer = format!("status {}, {media_type}", status.as_u16());
        // A gateway that got no answer from the server behind it; 501 is no such word.
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Err(self.unanswered(format!("a gateway says {answer}")));
        }
        Err(self.foreign(answer))
    }

    /// An answer that is none of ours.
    pub(super) fn foreign(&self, answer: impl Into<String>) -> Failure {
        Failure::Foreign { server: self.url.clone(), answer: answer.into() }
    }

    fn unanswered(&self, error: impl Into<String>) -> Failure {
        Failure::Unanswered { server: self.url.clone(), error: error.into() }
    }

    fn broken(&self, error: &ureq::Error) -> Failure {
        use std::io::ErrorKind as Kind;
        use ureq::{Error, Timeout};
        let server = self.url.clone();
        let not_reached = |error: String| Failure::NotReached { server: server.clone(), error };
        match error {
            Error::Io(error) => match error.kind() {
                Kind::ConnectionRefused => not_reached("connection refused".to_owned()),
                Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => {
                    self.unanswered("the connection broke")
                }
                Kind::ConnectionAborted | Kind::TimedOut | Kind::WouldBlock => {
                    self.unanswered(error.to_string())
                }
                Kind::InvalidData if !is_before_the_request(error) => {
                    self.unanswered(error.to_string())
                }
                // Names, routes and certificates.
                _ => not_reached(error.to_string()),
            },
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                not_reached("it took too long".to_owned())
            }
            Error::Timeout(_) => self.unanswered("it took too long"),
            Error::HostNotFound => not_reached("there is no such host".to_owned()),
            Error::Rustls(_) | Error::Tls(_) | Error::ConnectionFailed => {
                not_reached(error.to_string())
            }
            Error::Protocol(_) | Error::Http(_) => self.foreign("this is not HTTP"),
            Error::LargeResponseHeader(..) | Error::BodyExceedsLimit(_) => {
                self.foreign("the answer is too large")
            }
            other => self.unanswered(other.to_string()),
        }
    }
}

/// Whether an error of TLS is one of its begin, when nothing was asked for yet.
fn is_before_the_request(error: &std::io::Error) -> bool {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(InvalidCertificate(_) | InvalidMessage(_)))
}

/// Whether what is sent to `url` leaves this machine as it is.
fn is_readable_on_its_way(url: &str) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(is_loopback);
    uri.scheme_str() == Some("http") && !is_local
}

/// The token that was given; an empty one is none.
fn token(reach: &Reach) -> Result<Option<SecretString>, Failure> {
    if let Some(token) = reach.token.as_ref().filter(|token| !token.expose_secret().is_empty()) {
        return Ok(Some(token.clone()));
    }
    reach.token_file.as_deref().map(token_of_file).transpose()
}

fn token_of_file(path: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::here(format!("cannot read the token file {}: {error}", path.display()))
    })?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty());
    let none = || Failure::here(format!("the token file {} is empty", path.display()));
    token.map(SecretString::from).ok_or_else(none)
}

fn authorization(token: &SecretString) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| Failure::here("the token has characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}
