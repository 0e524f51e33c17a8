//! Every error answer, as `application/problem+json` (RFC 9457).
//!
//! A problem never holds a content, a credential or a path of this machine: what a caller cannot
//! mend is logged, and the answer says only what the caller can do.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::queue::store::StoreError;
use crate::queue::{AcceptError, ActError};

/// What kind of problem it is: its type, title and status never differ between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The bytes, the headers or the query are not what HTTP, JSON or this path asks for.
    BadRequest,
    /// The caller did not say who it is, or not in a way that we know.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The path names nothing.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The body took too long.
    RequestTimeout,
    /// The first request with this idempotency key is still being answered.
    KeyInUse,
    /// The body is too large.
    ContentTooLarge,
    /// The body is not JSON by its type.
    UnsupportedMediaType,
    /// A field is bad; each is named.
    InvalidRequest,
    /// The idempotency key was used for another request.
    KeyReused,
    /// Our own code failed.
    Internal,
    /// No provider can carry it.
    NoMailProvider,
    /// The provider that would accept it has no place.
    QueueFull,
    /// The disk does not take it or cannot be read.
    StoreUnavailable,
    /// Who knows the callers cannot be asked.
    AuthUnavailable,
    /// The process is ending.
    ShuttingDown,
}

impl ProblemKind {
    /// The last segment of the type, its title, its status, and after how many seconds it is
    /// worth trying again.
    fn describe(self) -> (&'static str, &'static str, StatusCode, Option<u16>) {
        use StatusCode as S;
        match self {
            Self::BadRequest => ("bad-request", "Bad request", S::BAD_REQUEST, None),
            Self::Unauthorized => ("unauthorized", "Not authenticated", S::UNAUTHORIZED, None),
            Self::Forbidden => ("forbidden", "Not allowed", S::FORBIDDEN, None),
            Self::NotFound => ("not-found", "Not found", S::NOT_FOUND, None),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "Method not allowed", S::METHOD_NOT_ALLOWED, None)
            }
            Self::RequestTimeout => {
                ("request-timeout", "The request took too long", S::REQUEST_TIMEOUT, None)
            }
            Self::KeyInUse => {
                ("idempotency-key-in-use", "Idempotency key in use", S::CONFLICT, Some(1))
            }
            Self::ContentTooLarge => {
                ("content-too-large", "The request is too large", S::PAYLOAD_TOO_LARGE, None)
            }
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", "Not JSON by type", S::UNSUPPORTED_MEDIA_TYPE, None)
            }
            Self::InvalidRequest => {
                ("invalid-request", "Invalid request", S::UNPROCESSABLE_ENTITY, None)
            }
            Self::KeyReused => {
                ("idempotency-key-reused", "Idempotency key reused", S::UNPROCESSABLE_ENTITY, None)
            }
            Self::Internal => ("internal-error", "Internal error", S::INTERNAL_SERVER_ERROR, None),
            Self::NoMailProvider => {
                ("no-mail-provider", "No mail provider", S::SERVICE_UNAVAILABLE, Some(30))
            }
            Self::QueueFull => {
                ("queue-full", "The queue is full", S::SERVICE_UNAVAILABLE, Some(10))
            }
            Self::StoreUnavailable => {
                ("store-unavailable", "The store is unavailable", S::SERVICE_UNAVAILABLE, Some(10))
            }
            Self::AuthUnavailable => {
                let title = "Callers cannot be authenticated";
                ("authentication-unavailable", title, S::SERVICE_UNAVAILABLE, Some(5))
            }
            Self::ShuttingDown => {
                ("shutting-down", "The server is shutting down", S::SERVICE_UNAVAILABLE, Some(5))
            }
        }
    }

    /// The last segment of its type.
    pub(super) fn name(self) -> &'static str {
        self.describe().0
    }

    /// Its status.
    pub(super) fn status(self) -> StatusCode {
        self.describe().2
    }

    /// After how many seconds it is worth trying again.
    pub(super) fn retry_after(self) -> Option<u16> {
        self.describe().3
    }
}

/// One bad field of a request.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct FieldError {
    /// Where in the request: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The rule that it breaks.
    pub detail: Cow<'static, str>,
}

impl FieldError {
    /// The field at `pointer` breaks the rule `detail`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    /// After how many seconds it is worth trying again, where more is known than of its kind.
    retry_after: Option<u16>,
}

impl Problem {
    /// A problem, with a sentence for the person who reads it.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    /// The same, which is worth trying again after so many seconds.
    #[must_use]
    pub fn retried_after(self, seconds: u16) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// A request that is not what HTTP, JSON or this path asks for.
    #[must_use]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::BadRequest, detail)
    }

    /// A path that names nothing.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::NotFound, detail)
    }

    /// Bad fields, each one named.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => Cow::from("One field is bad."),
            count => Cow::from(format!("{count} fields are bad.")),
        };
        Self { errors, ..Self::new(ProblemKind::InvalidRequest, detail) }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The bad fields.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What the caller reads.
    pub(super) fn body(&self) -> ProblemBody<'_> {
        let (name, title, status, _) = self.kind.describe();
        ProblemBody {
            r#type: format!("/problems/{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        }
    }
}

/// Why a request was not answered as it was meant (RFC 9457).
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody<'a> {
    /// What kind of problem it is: for programs.
    pub(super) r#type: String,
    /// The same for people.
    title: &'static str,
    /// The status of the answer.
    pub(super) status: u16,
    /// What happened here, and what the caller can do.
    pub(super) detail: &'a str,
    /// The bad fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let retry_after = self.retry_after.or(self.kind.retry_after());
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // What is left of a body that we do not read would be taken for the next request.
        if matches!(status.as_u16(), 401 | 403 | 408 | 413) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            // A full volume and a stop are told once, by the store; not once for each request.
            StoreError::NoSpace | StoreError::Stopped(_) | StoreError::Busy(_) => {}
            StoreError::Unreadable(what) => tracing::error!(what, "a record cannot be read"),
        }
        let detail = match error {
            StoreError::NoSpace => "The data folder has no space left.",
            StoreError::Stopped(_) => "The store has stopped; the server's log says why.",
            StoreError::Busy(_) => "The disk cannot be read just now.",
            StoreError::Unreadable(_) => "A record cannot be read; the server's log names it.",
        };
        Self::new(ProblemKind::StoreUnavailable, detail)
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Full { .. } => Self::new(ProblemKind::QueueFull, sentence(&error)),
            AcceptError::KeyReused => Self::new(ProblemKind::KeyReused, sentence(&error)),
            AcceptError::KeyBusy => Self::new(ProblemKind::KeyInUse, sentence(&error)),
            AcceptError::Stopping => Self::new(ProblemKind::ShuttingDown, sentence(&error)),
            AcceptError::Store(error) => error.into(),
        }
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        match error {
            ActError::NotFound => Self::not_found(sentence(&error)),
            ActError::Full { .. } => Self::new(ProblemKind::QueueFull, sentence(&error)),
            ActError::Store(error) => error.into(),
        }
    }
}

/// An error's text as a sentence: a capital letter in front and a full stop behind.
fn sentence(error: &impl std::error::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provider::ProviderName;
    use http_body_util::BodyExt;

    async fn shown(problem: Problem) -> String {
        let response = problem.into_response();
        let mut text = format!("{}\n", response.status());
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER, header::CONNECTION] {
            if let Some(value) = response.headers().get(&name) {
                text += &format!("{name}: {}\n", value.to_str().expect("ASCII"));
            }
        }
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        text + std::str::from_utf8(&body).expect("UTF-8")
    }

    #[tokio::test]
    async fn a_full_queue_names_the_provider_and_when_to_try_again() {
        let provider = ProviderName::new("urgent-mail").expect("a name");
        let problem =
            Problem::from(AcceptError::Full { provider, capacity: 10, depth: 9, wanted: 2 });
        insta::assert_snapshot!(shown(problem).await, @r#"
        503 Service Unavailable
        content-type: application/problem+json
        retry-after: 10
        {"type":"/problems/queue-full","title":"The queue is full","status":503,"detail":"The queue of urgent-mail has no place for 2 more jobs: 9 of 10 are taken."}
        "#);
    }

    #[tokio::test]
    async fn bad_fields_are_named_by_pointer() {
        let errors = vec![
            FieldError::new("/recipients/2", "must have the form local@domain"),
            FieldError::new("/from", "is not known"),
        ];
        insta::assert_snapshot!(shown(Problem::invalid(errors)).await, @r#"
        422 Unprocessable Entity
        content-type: application/problem+json
        {"type":"/problems/invalid-request","title":"Invalid request","status":422,"detail":"2 fields are bad.","errors":[{"pointer":"/recipients/2","detail":"must have the form local@domain"},{"pointer":"/from","detail":"is not known"}]}
        "#);
    }

    #[tokio::test]
    async fn a_broken_store_shows_no_path() {
        let error = StoreError::Stopped("/data/journal/7: input/output error".into());
        insta::assert_snapshot!(shown(error.into()).await, @r#"
        503 Service Unavailable
        content-type: application/problem+json
        retry-after: 10
        {"type":"/problems/store-unavailable","title":"The store is unavailable","status":503,"detail":"The store has stopped; the server's log says why."}
        "#);
    }

    #[tokio::test]
    async fn a_body_that_is_not_read_closes_the_connection() {
        let problem = Problem::new(ProblemKind::ContentTooLarge, "At most 1 MiB.");
        insta::assert_snapshot!(shown(problem).await, @r#"
        413 Payload Too Large
        content-type: application/problem+json
        connection: close
        {"type":"/problems/content-too-large","title":"The request is too large","status":413,"detail":"At most 1 MiB."}
        "#);
    }
}
