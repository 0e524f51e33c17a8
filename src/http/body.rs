//! Request bodies: JSON by type, bounded in size and in time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::problem::{Problem, ProblemKind};

/// The bytes of a request whose Content-Type says JSON in UTF-8: at most 1 MiB, read within a
/// minute. They are not checked to be JSON.
pub(super) struct JsonBytes(pub Bytes);

/// Like [`JsonBytes`], but a request without a body needs no Content-Type.
pub(super) struct OptionalJsonBytes(pub Option<Bytes>);

/// The most that a request may hold.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A body has to be here by then.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_json(request, BODY_BYTES_MAX).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(body, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        demand_json(&head.headers)?;
        Ok(Self(Some(bytes)))
    }
}

/// The bytes of a request like [`JsonBytes`], with a bound of its own.
pub(super) async fn read_json(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let (head, body) = request.into_parts();
    demand_json(&head.headers)?;
    read(body, bytes_max).await
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A request is at most {} MiB.", bytes_max >> 20);
        Problem::new(ProblemKind::ContentTooLarge, detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(READ_TIME_MAX, reading).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("The body of the request is broken.")),
        Err(_) => {
            let detail = "The body of the request did not arrive within 60 seconds.";
            Err(Problem::new(ProblemKind::RequestTimeout, detail))
        }
    }
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
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
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
    use futures_util::stream;
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

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_a_timeout() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let kind = read(never, BODY_BYTES_MAX).await.expect_err("nothing came").kind();
        assert_eq!(kind, ProblemKind::RequestTimeout);
    }

    #[tokio::test]
    async fn a_body_of_more_than_a_mebibyte_is_refused_with_and_without_a_length() {
        let known = Body::from(vec![b'a'; BODY_BYTES_MAX + 1]);
        let kind = read(known, BODY_BYTES_MAX).await.expect_err("too large").kind();
        assert_eq!(kind, ProblemKind::ContentTooLarge);

        let chunk = Bytes::from(vec![b'a'; 64 << 10]);
        let endless = stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()));
        let kind =
            read(Body::from_stream(endless), BODY_BYTES_MAX).await.expect_err("too large").kind();
        assert_eq!(kind, ProblemKind::ContentTooLarge);

        assert!(read(Body::from(vec![b'a'; BODY_BYTES_MAX]), BODY_BYTES_MAX).await.is_ok());
    }
}
