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
    let answer = async move |request: Request| -> Result<Json<Value>, Problem> {
        let bytes = read_json(request, BODY_BYTES_MAX).await?;
        let value = serde_json::from_slice(&bytes)
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
