//! The admission webhook's side of HTTP: one path, over TLS. What is judged, and how, is not known
//! here.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::routing::post;
use axum::{Json, Router};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::body::read_json;
use super::budget::BodyBudget;
use super::problem::Problem;
use super::server::Limits;
use super::{method_not_allowed, no_such_path};

/// A review holds the new object and the old one, and etcd takes 1.5 MiB of each.
const BODY_BYTES_MAX: usize = 3 << 20;

/// The bounds of the webhook's server.
pub const LIMITS: Limits = Limits {
    // The API server keeps idle connections for 90 seconds. Were we to close one first, a review
    // that is on its way just then would be lost.
    header_time_max: Duration::from_secs(120),
    connections_count_max: 256,
    header_bytes_max: 64 << 10,
};

/// Takes reviews at `path`. `review` answers one, or says why it is none.
pub fn router<F, A>(path: &str, review: F) -> Router
where
    F: Fn(Value) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Value, String>> + Send + 'static,
{
    let budget = BodyBudget::default();
    let answer = async move |request: Request| -> Result<Json<Value>, Problem> {
        // Its share is held until it is answered.
        let body = read_json(request, BODY_BYTES_MAX, &budget).await?;
        let value = serde_json::from_slice(&body.bytes)
            .map_err(|_| Problem::bad_request("The body is not JSON."))?;
        review(value).await.map(Json).map_err(Problem::bad_request)
    };
    Router::new()
        .route(path, post(answer))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_path)
}

/// TLS 1.2 or newer with the certificate of the moment. While there is none, handshakes fail.
///
/// # Errors
/// When TLS is not available.
pub fn acceptor(
    certificate: watch::Receiver<Option<Arc<CertifiedKey>>>,
) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Current(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Debug)]
struct Current(watch::Receiver<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::response::Response;
    use tower::ServiceExt;

    use super::*;

    async fn answered(method: &str, path: &str, body: impl Into<Body>) -> Response {
        let review = async |value: Value| match value["uid"].as_str() {
            Some(uid) => Ok(uid.into()),
            None => Err("it has no uid".to_owned()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(body.into())
            .expect("a request");
        router("/review", review).oneshot(request).await.expect("an answer")
    }

    #[tokio::test]
    async fn a_review_is_answered_at_its_path_and_nothing_else_is() {
        let status = async |method: &str, path: &str, body: &str| {
            answered(method, path, body.to_owned()).await.status()
        };
        let good = r#"{"uid": "u"}"#;
        assert_eq!(status("POST", "/review?timeout=10s", good).await, StatusCode::OK);
        assert_eq!(status("POST", "/review", "{}").await, StatusCode::BAD_REQUEST);
        assert_eq!(status("POST", "/review", "nonsense").await, StatusCode::BAD_REQUEST);
        assert_eq!(status("GET", "/review", "").await, StatusCode::METHOD_NOT_ALLOWED);
        for path in ["/", "/review/", "/readyz", "/notify"] {
            assert_eq!(status("POST", path, good).await, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn a_review_of_two_objects_as_large_as_they_get_is_read_and_a_larger_one_is_not() {
        let review = |bytes_count: usize| {
            let filler = "x".repeat(bytes_count);
            format!(r#"{{"uid": "u", "object": "{filler}"}}"#)
        };
        let fits = answered("POST", "/review", review(BODY_BYTES_MAX - 100)).await;
        assert_eq!(fits.status(), StatusCode::OK);
        let large = answered("POST", "/review", review(BODY_BYTES_MAX)).await;
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
