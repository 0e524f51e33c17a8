//! The real API server over HTTP, as the administrator: for what is too much or too fast for
//! kubectl.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the API server is, and who asks.
#[derive(Clone)]
pub struct Upstream {
    host: String,
    tls: TlsConnector,
}

impl Upstream {
    /// All but the host is PEM.
    ///
    /// # Panics
    /// When it is not.
    pub fn new(host: &str, authority: &[u8], certificate: &[u8], key: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("an authority");
        let certificate = CertificateDer::from_pem_slice(certificate).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key).expect("PEM");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .expect("a certificate that fits its key");
        Self { host: host.to_owned(), tls: TlsConnector::from(Arc::new(config)) }
    }

    /// A connection of its own. It ends when the sender is dropped.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        let tcp = TcpStream::connect((self.host.as_str(), 6443)).await?;
        let name = ServerName::try_from(self.host.clone()).expect("an address");
        let tls = self.tls.connect(name, tcp).await?;
        let (sender, connection) =
            handshake(TokioIo::new(tls)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One exchange over a connection of its own; the body may go on for long.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> std::io::Result<Response<Incoming>> {
        let host = self.host.parse().expect("an address is a header");
        request.headers_mut().insert("host", host);
        let mut connection = self.connect().await?;
        connection.send_request(request).await.map_err(std::io::Error::other)
    }

    /// Merges this into a MailProvider.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn patch(&self, provider: &str, patch: &Value) {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("/apis/breakglass.t-caas.telekom.com/v1alpha1/mailproviders/{provider}"))
            .header("content-type", "application/merge-patch+json")
            .body(Full::new(patch.to_string().into()))
            .expect("a valid request");
        let answer = self.send(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("an answer").to_bytes();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    }
}
