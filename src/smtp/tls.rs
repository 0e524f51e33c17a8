//! TLS for SMTP connections: which certificates are taken, and what a failed handshake says.
//!
//! A provider's own CA stands instead of the system's roots, never beside them, and one that cannot
//! be read is a failure: there is no way back to the system's roots.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use crate::core::provider::{CertificateAuthority, Smtp};

/// A connector for TLS 1.2 or newer that takes the certificates the provider asks for.
///
/// # Errors
/// One sentence: there is nothing to trust.
pub(super) fn connector(smtp: &Smtp) -> Result<TlsConnector, String> {
    // Read first even when nothing is verified: a broken CA means no send.
    let roots = match &smtp.certificate_authority {
        Some(authority) => Some(own_roots(authority)?),
        None if smtp.insecure_skip_verify => None,
        None => Some(system_roots()?),
    };
    // Passed by hand, so that no process-wide default is needed or disturbed.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS is not available".to_owned())?;
    let config = match roots.filter(|_| !smtp.insecure_skip_verify) {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the certificate must carry: a host name or an IP address.
///
/// # Errors
/// One sentence: `host` is neither.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(host.trim_end_matches('.').to_owned())
        .map_err(|_| "the host name is not one that a certificate can carry".to_owned())
}

/// What a failed handshake says: stable, and nothing that the peer chose.
pub(super) fn handshake_error(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return "the connection was lost during the TLS handshake".to_owned();
    };
    let reason = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::UnknownIssuer => "its certificate is from an unknown authority",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another host name"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _ => "its certificate is not valid",
        },
        rustls::Error::AlertReceived(_) => "it ended the handshake with an alert",
        rustls::Error::PeerIncompatible(_) => "it does not speak TLS 1.2 or newer",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        _ => "the handshake went wrong",
    };
    format!("TLS with the server failed: {reason}")
}

fn own_roots(authority: &CertificateAuthority) -> Result<Arc<RootCertStore>, String> {
    let unreadable = || CertificateAuthority::UNREADABLE.to_owned();
    let CertificateAuthority::Pem(pem) = authority else { return Err(unreadable()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
    }
    if roots.is_empty() { Err(unreadable()) } else { Ok(Arc::new(roots)) }
}

/// The system's roots, read at the first use and kept.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One that cannot be read trusts nobody; the others still count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("the system has no trusted certificate authorities".to_owned());
    }
    Ok(roots.clone())
}

/// `insecureSkipVerify`: any certificate will do, but the peer must still hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provider::Security;

    fn connector_with(pem: &str, insecure_skip_verify: bool) -> Option<String> {
        let smtp = Smtp {
            insecure_skip_verify,
            certificate_authority: Some(CertificateAuthority::Pem(pem.into())),
            ..Smtp::new("localhost", 25, Security::StartTls)
        };
        connector(&smtp).err()
    }

    #[test]
    fn a_certificate_authority_that_cannot_be_read_is_never_replaced_by_the_systems() {
        let truncated = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        for pem in ["", "nonsense", truncated] {
            assert!(connector_with(pem, false).is_some(), "{pem:?}");
            assert!(connector_with(pem, true).is_some(), "{pem:?}");
        }
        let good = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        assert_eq!(connector_with(&good.cert.pem(), false), None);
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["mail.example.com", "mail.example.com.", "127.0.0.1", "::1", "[::1]"] {
            assert!(server_name(good).is_ok(), "{good}");
        }
        assert!(server_name("not a host").is_err());
    }
}
