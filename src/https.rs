//! The calls that this program makes as an HTTP client: where they go, and whom they trust.
//!
//! No redirect is followed and no proxy used: a secret goes to the server that was named, and nowhere
//! else. TLS is that of rustls with ring, by the roots of this machine.

use std::sync::{Arc, LazyLock};

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// The roots of this machine are read once.
static TLS: LazyLock<TlsConfig> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = found.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
});

/// The settings of an agent for `url` and what is below it. Any status is an answer. Its time is for
/// the caller to bound.
#[must_use]
pub fn agent_for(url: &str) -> ConfigBuilder<AgentScope> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("breakglass-mailer/", env!("CARGO_PKG_VERSION")));
    // ureq has no provider and no roots of its own here, and plain HTTP needs none.
    if url.starts_with("https://") { config.tls_config(TLS.clone()) } else { config }
}
