//! Request bodies: JSON by type, bounded in size, in time, and in what all take together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::Api;
use super::budget::{BodyBudget, FREE_BYTES, PROOF_BYTES, Share};
use super::problem::{Problem, ProblemKind};

/// The bytes of a request whose Content-Type says JSON in UTF-8: at most 1 MiB, read within a
/// minute. They are not checked to be JSON.
#[derive(Debug)]
pub(super) struct JsonBytes {
    pub bytes: Vec<u8>,
    /// Their part of the memory; held until what was asked for is done.
    pub share: Option<Share>,
}

/// Like [`JsonBytes`], but a request without a body needs no Content-Type.
pub(super) struct OptionalJsonBytes(pub Option<JsonBytes>);

/// The most that a request may hold.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A body has to be here by then, not counted the time in which we do not read it; that is no longer.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

impl FromRequest<Arc<Api>> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        read_json(request, BODY_BYTES_MAX, &api.bodies).await
    }
}

impl FromRequest<Arc<Api>> for OptionalJsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let body = read(body, BODY_BYTES_MAX, &api.bodies).await?;
        if body.bytes.is_empty() {
            return Ok(Self(None));
        }
        demand_json(&head.headers)?;
        Ok(Self(Some(body)))
    }
}

/// The bytes of a request like [`JsonBytes`], with bounds of its own.
pub(super) async fn read_json(
    request: Request,
    bytes_max: usize,
    budget: &BodyBudget,
) -> Result<JsonBytes, Problem> {
    let (head, body) = request.into_parts();
    demand_json(&head.headers)?;
    read(body, bytes_max, budget).await
}

async fn read(mut body: Body, bytes_max: usize, budget: &BodyBudget) -> Result<JsonBytes, Problem> {
    let too_large = || {
        let detail = format!("A request is at most {} MiB.", bytes_max >> 20);
        Problem::new(ProblemKind::ContentTooLarge, detail)
    };
    let length = body.size_hint();
    if length.lower() > bytes_max as u64 {
        return Err(too_large());
    }
    // Without a length it may become as large as may be, and is small until it is not.
    let (length, free) = match length.upper().and_then(|length| usize::try_from(length).ok()) {
        Some(length) if length <= FREE_BYTES => (length, FREE_BYTES),
        Some(length) => (length.min(bytes_max), PROOF_BYTES),
        None => (bytes_max, FREE_BYTES),
    };
    let mut read = JsonBytes { bytes: Vec::new(), share: None };
    let mut until = Instant::now() + READ_TIME_MAX;
    loop {
        let frame = tokio::select! {
            frame = timeout_at(until, body.frame()) => frame.map_err(|_| too_slow())?,
            () = outstayed(&read) => return Err(too_slow()),
        };
        let Some(frame) = frame else { return Ok(read) };
        let broken = |_| Problem::bad_request("The body of the request is broken.");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let count = read.bytes.len() + data.len();
        if count > bytes_max {
            return Err(too_large());
        }
        if count > free && read.share.is_none() {
            let asked = Instant::now();
            let share = timeout(READ_TIME_MAX, budget.share(length.max(count)));
            read.share = Some(share.await.map_err(|_| too_many())?);
            until += asked.elapsed();
            read.bytes.reserve_exact(length.saturating_sub(read.bytes.len()));
        }
        read.bytes.extend_from_slice(&data);
    }
}

/// Returns once a body has to give way to others; a body without a share never has to.
async fn outstayed(read: &JsonBytes) {
    match &read.share {
        Some(share) => share.outstayed(read.bytes.len()).await,
        None => std::future::pending().await,
    }
}

fn too_many() -> Problem {
    let detail =
        "Too many large requests at once: there was no room for this one within 60 seconds.";
    Problem::new(ProblemKind::RequestTimeout, detail)
}

fn too_slow() -> Problem {
    let detail = "The body of the request did not arrive in time: within 60 seconds, and faster \
                  while other callers wait.";
    Problem::new(ProblemKind::RequestTimeout, detail)
}

/// A browser sends other types across sites without asking first, so they are refused even where
/// the bytes are JSON.
fn demand_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse =
        |detail: &'static str| Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return refuse("One Content-Type is needed: application/json.");
    };
    if !value.to_str().is_ok_and(is_json_in_utf8) {
        return refuse("The Content-Type must be application/json, in UTF-8.");
    }
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("A Content-Encoding is not supported.");
    }
    Ok(())
}

/// Whether a media type (RFC 9110 8.3.1) is `application/json` without a charset or with UTF-8.
fn is_json_in_utf8(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let is_json =
        parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    is_json
        && parts.filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                let value = value.trim_matches('"');
                value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
            }
            Some(_) => true,
            None => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;

    #[test]
    fn only_json_in_utf8_is_taken() {
        for good in [
            "application/json",
            "Application/JSON; Charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json; profile=x;",
        ] {
            assert!(is_json_in_utf8(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "application/json; charset=iso-8859-1",
            "application/json; charset",
            "application/jsonp",
            "application/problem+json",
            "application/json, text/plain",
        ] {
            assert!(!is_json_in_utf8(bad), "{bad}");
        }
    }

    #[test]
    fn two_content_types_and_packed_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        let json = header::HeaderValue::from_static("application/json");
        headers.append(header::CONTENT_TYPE, json.clone());
        assert!(demand_json(&headers).is_ok());
        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
        assert!(demand_json(&headers).is_err());
        headers.remove(header::CONTENT_ENCODING);
        headers.append(header::CONTENT_TYPE, json);
        assert!(demand_json(&headers).is_err());
    }

    async fn kind_of(body: Body, budget: &BodyBudget) -> ProblemKind {
        read(body, BODY_BYTES_MAX, budget).await.expect_err("it is refused").kind()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_a_timeout() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let begun = Instant::now();
        let kind = kind_of(never, &BodyBudget::default()).await;
        assert_eq!((kind, begun.elapsed()), (ProblemKind::RequestTimeout, READ_TIME_MAX));
    }

    #[tokio::test]
    async fn a_body_of_more_than_a_mebibyte_is_refused_with_and_without_a_length() {
        let budget = BodyBudget::default();
        let known = Body::from(vec![b'a'; BODY_BYTES_MAX + 1]);
        assert_eq!(kind_of(known, &budget).await, ProblemKind::ContentTooLarge);

        let chunk = Bytes::from(vec![b'a'; 64 << 10]);
        let endless = stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()));
        let endless = Body::from_stream(endless);
        assert_eq!(kind_of(endless, &budget).await, ProblemKind::ContentTooLarge);

        let largest = Body::from(vec![b'a'; BODY_BYTES_MAX]);
        let read = read(largest, BODY_BYTES_MAX, &budget).await.expect("it is not too large");
        assert_eq!(read.bytes.len(), BODY_BYTES_MAX);
    }

    /// A body whose first bytes come at once and the rest never.
    fn stalled(bytes_count: usize) -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'a'; bytes_count]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_that_stalls_gives_way_to_the_next_and_a_small_one_waits_for_nobody() {
        let budget = BodyBudget::default();
        let all = std::iter::repeat_with(|| {
            let budget = budget.clone();
            tokio::spawn(async move { kind_of(stalled(FREE_BYTES + 1), &budget).await })
        });
        let stalled: Vec<_> = all.take(20).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;

        let begun = Instant::now();
        let small = read(Body::from(vec![b'a'; FREE_BYTES]), BODY_BYTES_MAX, &budget).await;
        assert!(small.expect("it is small").share.is_none());
        assert_eq!(begun.elapsed(), Duration::ZERO);

        let large = read(Body::from(vec![b'a'; FREE_BYTES + 1]), BODY_BYTES_MAX, &budget).await;
        assert!(large.expect("its turn comes").share.is_some());
        // Five rounds of four, each of the grace and of what their bytes earned.
        assert!(begun.elapsed() < Duration::from_secs(21), "{:?}", begun.elapsed());
        for stalled in stalled {
            assert_eq!(stalled.await.expect("no panic"), ProblemKind::RequestTimeout);
        }
    }
}
