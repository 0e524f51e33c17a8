//! TLS of the calls that this program makes as an HTTP client: rustls, ring, and the roots of this
//! machine.

use std::sync::Arc;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// For an agent of ureq, which has no provider and no roots of its own here.
#[must_use]
pub fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = found.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}
