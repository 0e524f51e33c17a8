//! `POST /notify`: 202 only once every job is on stable storage; after an error nothing is sent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::JsonBytes;
use super::explain::explain;
use super::openapi::strings;
use super::params::Params;
use super::problem::{FieldError, Problem, ProblemKind};
use super::request::NotifyRequest;
use super::spans::AnsweredIn;
use super::view::{Stamp, names};
use super::{Api, run_to_end};
use crate::core::job::JobId;
use crate::core::notification::Address;
use crate::core::provider::ProviderName;
use crate::core::route::{Catalog, RouteError, route};
use crate::core::trace::TraceContext;
use crate::queue::store::IdempotencyKey;
use crate::queue::{Accept, AcceptError, Accepted};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// No idempotency key is longer.
pub(super) const KEY_LEN_MAX: usize = 255;

/// Takes a notification in.
pub(super) async fn notify(
    State(api): State<Arc<Api>>,
    Extension(answered_in): Extension<AnsweredIn>,
    uri: Uri,
    headers: HeaderMap,
    JsonBytes { bytes, share }: JsonBytes,
) -> Result<Response, Problem> {
    let is_dry = Params::of(&uri, &["dryRun"])?.dry_run()?;
    let request = NotifyRequest::parse(&bytes, api.clock.now())?;
    drop(bytes);
    let key = idempotency_key(&headers)?;
    if is_dry {
        return Ok(explain(&api, &request)?.into_response());
    }
    let key = key.map(|key| IdempotencyKey { key, fingerprint: request.fingerprint() });
    let work = async move {
        let accepted = accept(&api, request, key, answered_in.0).await;
        // Until now the content was in memory, even when the client has gone away.
        drop(share);
        accepted
    };
    let accepted = run_to_end(work).await?;
    Ok(answer(&accepted))
}

async fn accept(
    api: &Api,
    request: NotifyRequest,
    key: Option<IdempotencyKey>,
    trace: Option<TraceContext>,
) -> Result<Accepted, Problem> {
    // The first answer holds even when the names in the request lead elsewhere by now.
    if let Some(key) = &key
        && let Some(earlier) = api.queue.answered(key).await?
    {
        return Ok(earlier);
    }
    let catalog = api.registry.catalog();
    let recipients = request.recipients(&catalog, api.clock.now())?;
    let route = route(request.wish(), &catalog).map_err(no_route)?;
    let first = route.chain[0].clone();
    let capacity = capacity(&catalog, &first);
    let accept = Accept {
        recipients,
        content: request.content,
        expires_at: request.expires_at,
        chain: route.chain.into(),
        capacity,
        warnings: route.warnings,
        key,
        trace,
    };
    api.queue.accept(accept).await.map_err(|error| {
        match &error {
            AcceptError::Full { provider, .. } => api.metrics.refused(provider, "full"),
            AcceptError::Store(_) => api.metrics.refused(&first, "store_unavailable"),
            AcceptError::Stopping => api.metrics.refused(&first, "shutting_down"),
            AcceptError::KeyReused | AcceptError::KeyBusy => {}
        }
        refused(api, error)
    })
}

/// The answer to what was not accepted. A full queue says when it is likely to have the places.
pub(super) fn refused(api: &Api, error: AcceptError) -> Problem {
    match error {
        AcceptError::Full { ref provider, capacity, depth, wanted } => {
            let missing_count = (depth + wanted).saturating_sub(capacity);
            let seconds = retry_after(api, provider, missing_count, capacity, wanted);
            Problem::from(error).retried_after(seconds)
        }
        error => error.into(),
    }
}

/// After how many seconds a queue is likely to have so many places more.
pub(super) fn retry_after(
    api: &Api,
    provider: &ProviderName,
    missing_count: usize,
    capacity: usize,
    wanted: usize,
) -> u16 {
    let now = api.clock.now();
    let missing = u64::try_from(missing_count).unwrap_or(u64::MAX);
    let starts = api.registry.takes_from(provider, missing).unwrap_or(now);
    let health = api.registry.health(provider);
    let recovers = (!health.is_closed()).then_some(health.next_check);
    let outlook = api.queue.outlook(provider, missing_count);
    outlook.retry_after(wanted <= capacity, starts, recovers, now)
}

pub(super) fn no_route(error: RouteError) -> Problem {
    match error {
        RouteError::NoSuchProvider(_) => {
            Problem::invalid(vec![FieldError::new("/mailProvider", "does not exist")])
        }
        RouteError::NoProvider => Problem::new(
            ProblemKind::NoMailProvider,
            "No enabled MailProvider can carry this notification.",
        ),
    }
}

/// How many jobs the queue of `provider` holds.
pub(super) fn capacity(catalog: &Catalog, provider: &ProviderName) -> usize {
    catalog.enabled(provider).map_or(0, |provider| provider.retry.queue_size)
}

/// The `Idempotency-Key` header: 1 to 255 visible ASCII characters, once.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("The Idempotency-Key must be given once."));
        }
    };
    let is_valid =
        (1..=KEY_LEN_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(value) {
        Ok(key) if is_valid => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad_request(
            "The Idempotency-Key must have 1 to 255 visible ASCII characters.",
        )),
    }
}

/// A notification that was taken in.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Accepted")]
pub(super) struct Answer<'a> {
    /// Of the notification.
    #[schemars(with = "strings::Id")]
    id: String,
    /// Whose queue took it.
    #[schemars(with = "Option<strings::Name>")]
    provider: Option<String>,
    /// The providers that may carry it, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// One for each recipient.
    jobs: Vec<AnswerJob>,
    /// When it was on stable storage.
    accepted_at: Stamp,
    /// Names in the request that lead nowhere.
    warnings: &'a [String],
}

/// A job that was taken in.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "AcceptedJob")]
struct AnswerJob {
    /// Of the job.
    #[schemars(with = "strings::Id")]
    id: String,
    /// To whom it goes.
    #[schemars(with = "strings::Mailbox")]
    recipient: String,
}

fn answer(accepted: &Accepted) -> Response {
    let notification = &accepted.notification;
    let location = format!("/notifications/{}", notification.id);
    let job = |(id, recipient): &(JobId, Address)| AnswerJob {
        id: id.to_string(),
        recipient: recipient.to_string(),
    };
    let body = Answer {
        id: notification.id.to_string(),
        provider: notification.chain.first().map(ToString::to_string),
        chain: names(&notification.chain),
        jobs: notification.jobs.iter().map(job).collect(),
        accepted_at: Stamp(notification.accepted_at),
        warnings: &notification.warnings,
    };
    let mut response =
        (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response();
    if accepted.replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).expect("a header"));
        }
        idempotency_key(&headers)
    }

    #[test]
    fn an_idempotency_key_is_visible_ascii_and_given_once() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"K-1"]), Ok(Some("K-1".into())));
        assert!(key(&[&[b'k'; 255]]).is_ok());
        for bad in [&b""[..], b"a b", b"a\tb", "schl\u{fc}ssel".as_bytes(), &[b'k'; 256]] {
            assert!(key(&[bad]).is_err(), "{bad:?}");
        }
        assert!(key(&[b"K-1", b"K-1"]).is_err());
    }
}
