//! The API: the only code that knows axum and hyper.
//!
//! An endpoint is in `endpoints`, where it comes into the router and into the document of the API
//! (`openapi`) at once. A request is read in three steps: its bytes are bounded and typed (`body`),
//! its shape is checked with every fault told at once (`fields`, `request`, `params`), and only
//! then does it meet the queue. Whatever changes the queue runs in a task of its own, so that a
//! client that hangs up cuts nothing in half. Every error is a `problem`. Callers that ask now and then
//! are served on a thread of their own (`express`), beside whatever others do.
//!
//! The operator's page (`ui`) is no part of the API, but a caller of it like any other.
//!
//! Nothing here logs above debug level what a client sent, and no answer but
//! `GET /deadletters/{id}?include=content` holds a body of a message.

mod auth;
mod body;
mod budget;
mod deadletters;
mod endpoints;
mod explain;
mod express;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod history;
mod mailbox;
mod notify;
mod openapi;
mod params;
mod probes;
pub mod problem;
mod providers;
mod read;
mod request;
mod revive;
pub mod server;
mod spans;
mod stream;
pub mod tokens;
mod ui;
mod view;
pub mod webhook;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::watch;
use tokio::task::JoinError;
use tracing::Instrument;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::registry::Registry;
use crate::tracer::{Span, Tracer};
pub use auth::{Auth, Authorizer};
pub use budget::BodyBudget;
pub use endpoints::document;
use history::History;
use problem::{Problem, ProblemKind};
use spans::AnsweredIn;

/// What the API works on.
#[derive(Clone)]
pub struct Api {
    /// Where notifications go and what is read.
    pub queue: Arc<Queue>,
    /// The providers.
    pub registry: Arc<Registry>,
    /// Counts what is refused, and answers `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Follows requests.
    pub tracer: Tracer,
    /// Tells what is past.
    pub clock: Clock,
    /// Whether notifications are taken in: what `/readyz` answers.
    pub ready: watch::Receiver<bool>,
    /// How callers are authenticated.
    pub auth: Auth,
    /// What the bodies of requests take of the memory.
    pub bodies: BodyBudget,
    /// Whether parked mail goes out by itself (`--redrive auto`).
    pub redrives: bool,
    /// The last hour of the queues.
    pub history: Arc<History>,
    /// The folder of the messages that `dev` caught, shown under `/mailbox`.
    pub mailbox: Option<PathBuf>,
}

/// All paths of the API, and the operator's page.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    endpoints::all(api.mailbox.as_deref())
        .into_router(api.auth.is_token_needed())
        .merge(ui::router())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_path)
        .layer(middleware::from_fn_with_state(api.auth.clone(), auth::authenticate))
        .layer(middleware::from_fn_with_state(api.clone(), observe))
        .with_state(api)
}

async fn no_such_path() -> Problem {
    Problem::not_found("There is no such path.")
}

/// The router adds `Allow`.
async fn method_not_allowed() -> Problem {
    let detail = "This path does not take this method; the Allow header lists those that it takes.";
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}

/// Counts each request, follows it with a span, writes the access log and adds the headers that every answer has.
///
/// Paths are told by their template: what a client makes up is neither a label nor logged.
async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = known_method(request.method());
    let span = spans::begin(&api, method, path, request.headers());
    let in_log = span.as_ref().map_or_else(tracing::Span::none, Span::in_log);
    let answered_in = AnsweredIn(span.as_ref().and_then(Span::context));
    request.extensions_mut().insert(answered_in);
    let mut response = next.run(request).instrument(in_log.clone()).await;
    let status = response.status().as_u16();
    api.metrics.answered(method, path, status);
    let _in_log = in_log.entered();
    let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(
        http.method = method,
        http.path = path,
        http.status = status,
        duration_ms,
        "answered"
    );
    if let Some(span) = span {
        spans::end(span, status);
    }
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// A method as a label: a client may invent any number of others.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Runs `work` to its end, even when the client goes away meanwhile and hyper drops its handler.
async fn run_to_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work.in_current_span()).await.map_err(|error| broken(&error))?
}

/// The answer when a task of ours panicked or was cancelled with the runtime.
fn broken(error: &JoinError) -> Problem {
    // The error itself would quote the panic, which may quote the request.
    let panicked = error.is_panic();
    tracing::error!(panicked, "the work for a request did not come to its end");
    Problem::new(ProblemKind::Internal, "The server failed; its log says why.")
}
