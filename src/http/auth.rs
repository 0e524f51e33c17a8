//! Who may call: all paths but those of machines that only look and the files of the page.
//!
//! With tokens, `Authorization: Bearer …` (RFC 6750) in the header alone: a token in a query ends
//! up in the logs of others. Without authentication whoever reaches the socket may call, and then
//! a web page must not do it with the hands of a browser: one that runs on this machine, or one
//! that a proxy in front knows by its cookie.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::problem::{Problem, ProblemKind};
use super::tokens::Tokens;
use super::ui;
use crate::core::access::{Act, Refusal};

/// What needs no authentication, by its exact path.
const OPEN_PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/openapi.json"];

/// Whether this path needs no authentication.
pub(super) fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path) || ui::is_file(path)
}

/// Says whether the caller with this token may do this.
pub type Authorizer =
    Arc<dyn Fn(String, Act) -> BoxFuture<'static, Result<(), Refusal>> + Send + Sync>;

/// How callers are authenticated.
#[derive(Clone)]
pub enum Auth {
    /// By one of these tokens, which may do everything.
    Tokens(watch::Receiver<Tokens>),
    /// By somebody else, who knows callers and what each of them may do.
    Asked(Authorizer),
    /// Not at all, but only callers of this machine reach the socket.
    Local,
    /// Not at all: something in front does it, or nobody.
    Open,
}

impl Auth {
    /// Whether callers have to give a token.
    pub(super) fn is_token_needed(&self) -> bool {
        match self {
            Self::Tokens(_) | Self::Asked(_) => true,
            Self::Local | Self::Open => false,
        }
    }
}

/// Lets a request through, or answers it with 401 or 403.
pub(super) async fn authenticate(
    State(auth): State<Auth>,
    request: Request,
    next: Next,
) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let checked = match &auth {
        Auth::Tokens(tokens) => token(request.headers()).and_then(|token| {
            if tokens.borrow().allow(token.as_bytes()) { Ok(()) } else { Err(invalid_token()) }
        }),
        Auth::Asked(authorizer) => match token(request.headers()) {
            Ok(token) => authorizer(token.to_owned(), act(&request)).await.map_err(refused),
            Err(problem) => Err(problem),
        },
        Auth::Local => check_browser(request.uri(), request.headers()),
        Auth::Open => check_site(&request),
    };
    let Err(problem) = checked else { return next.run(request).await };
    // RFC 6750 3: the error is told to those who gave a token.
    let challenge = match request.headers().contains_key(header::AUTHORIZATION) {
        true => "Bearer error=\"invalid_token\"",
        false => "Bearer",
    };
    let is_unauthorized = problem.kind() == ProblemKind::Unauthorized;
    let mut response = problem.into_response();
    if is_unauthorized {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// What a request is about to do, by the template of its path.
fn act(request: &Request) -> Act {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    match (path, request.method()) {
        ("/notify", _) => Act::Notify,
        ("/notifications/{id}", &Method::DELETE) => Act::Cancel,
        (path, method) if path.starts_with("/deadletters") => match *method {
            Method::POST => Act::Retry,
            Method::DELETE => Act::Discard,
            _ => Act::ReadDeadLetters,
        },
        _ => Act::Read,
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unauthenticated => invalid_token(),
        Refusal::Forbidden(detail) => Problem::new(ProblemKind::Forbidden, detail),
        Refusal::Unavailable => {
            let detail = "Callers cannot be authenticated just now; the server's log says why.";
            Problem::new(ProblemKind::AuthUnavailable, detail)
        }
    }
}

fn invalid_token() -> Problem {
    Problem::new(ProblemKind::Unauthorized, "The token is not valid.")
}

/// The one token of a request.
fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        let detail = "Give a token, in the header: Authorization: Bearer ….";
        return Err(Problem::new(ProblemKind::Unauthorized, detail));
    };
    let token = value.to_str().ok().and_then(bearer);
    token.filter(|_| given.next().is_none()).ok_or_else(invalid_token)
}

/// The token of an `Authorization: Bearer …`. The name of the scheme has no case (RFC 9110 11.1).
fn bearer(value: &str) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim())
}

/// Refuses what a page of another site makes a browser send here: its own origin is told in
/// `Origin`, and a name of its own that it lets lead to this machine (DNS rebinding) in `Host`.
/// A name that nobody can own, or an address, can be no such name.
fn check_browser(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.unwrap_or_else(|| header(header::HOST));
    let refuse = |detail| Err(Problem::new(ProblemKind::Forbidden, detail));
    if !is_local_name(&String::from_utf8_lossy(host)) {
        return refuse(
            "Callers are not authenticated, so only this machine's own names are served: \
             localhost or an IP address. For other names start `serve` with --auth token, or with \
             --insecure-no-auth behind a proxy that checks callers.",
        );
    }
    let origin = header(header::ORIGIN);
    let own = |scheme: &[u8]| origin.eq_ignore_ascii_case(&[scheme, host].concat());
    if origin.is_empty() || own(b"http://") || own(b"https://") {
        return Ok(());
    }
    refuse("Callers are not authenticated, so pages of other sites are refused.")
}

/// Refuses to change anything for a page of another site, which a browser tells in
/// `Sec-Fetch-Site`, or on a plain connection to another machine only in `Origin`. The origin that
/// a proxy in front shows need not be the `Host` that we see, so `Sec-Fetch-Site` counts first.
fn check_site(request: &Request) -> Result<(), Problem> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| header("host")).unwrap_or_default();
    let is_own = match (header("sec-fetch-site"), header("origin")) {
        (Some(site), _) => matches!(site, b"same-origin" | b"none"),
        (None, Some(origin)) => [&b"http://"[..], b"https://"]
            .iter()
            .any(|scheme| origin.eq_ignore_ascii_case(&[scheme, host].concat())),
        (None, None) => true,
    };
    if is_own || request.method().is_safe() {
        return Ok(());
    }
    let detail = "Pages of other sites may not change anything here. A proxy in front that does \
        not speak TLS has to pass on the Host that it was asked for.";
    Err(Problem::new(ProblemKind::Forbidden, detail))
}

fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    // Nobody can register these (RFC 6761, and ICANN's reservation of .internal).
    let is_reserved = [".localhost", ".internal"].iter().any(|end| name.ends_with(end));
    is_address || !name.contains('.') || is_reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_with_its_scheme_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bEARER  abc "), Some("abc"));
        for wrong in ["abc", "Basic abc", "Bearer", "Bearerabc"] {
            assert_eq!(bearer(wrong), None);
        }
    }

    #[test]
    fn a_name_that_a_stranger_could_own_is_not_local() {
        for local in [
            "",
            "localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "x",
            "LOCALHOST:80",
            "a.localhost",
            "host.docker.internal:8080",
        ] {
            assert!(is_local_name(local), "{local}");
        }
        for foreign in
            ["evil.example", "evil.example:8080", "evil.example.", "localhost.evil.example"]
        {
            assert!(!is_local_name(foreign), "{foreign}");
        }
    }
}
