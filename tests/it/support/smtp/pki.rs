//! Certificates for the scripted servers, made once for all tests.

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

use super::script::Certificate;

/// The CA that a provider may trust.
pub struct Pki {
    pub ca_pem: String,
    /// An address of this machine for which the certificates are too, where port 465 is free.
    pub own_address: Ipv4Addr,
    good: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    unknown_ca: Arc<ServerConfig>,
    wrong_name: Arc<ServerConfig>,
}

pub static PKI: LazyLock<Pki> = LazyLock::new(|| {
    let (ca, other_ca) = (issuer("a CA"), issuer("another CA"));
    let [a, b, c] = [(); 3].map(|()| fastrand::u8(1..255));
    let own_address = Ipv4Addr::new(127, a, b, c);
    let ours = ["localhost", "127.0.0.1", "::1", &own_address.to_string()];
    Pki {
        ca_pem: ca.pem(),
        own_address,
        good: server(&ours, false, &ca),
        expired: server(&ours, true, &ca),
        unknown_ca: server(&ours, false, &other_ca),
        wrong_name: server(&["elsewhere.example"], false, &ca),
    }
});

impl Pki {
    pub fn server_config(&self, certificate: Certificate) -> Option<Arc<ServerConfig>> {
        match certificate {
            Certificate::Good => Some(self.good.clone()),
            Certificate::Expired => Some(self.expired.clone()),
            Certificate::UnknownCa => Some(self.unknown_ca.clone()),
            Certificate::WrongName => Some(self.wrong_name.clone()),
            Certificate::Hang | Certificate::Not(_) => None,
        }
    }
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a CA")
}

fn server(
    names: &[&str],
    has_expired: bool,
    ca: &CertifiedIssuer<'static, KeyPair>,
) -> Arc<ServerConfig> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    if has_expired {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    }
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate that fits its key");
    Arc::new(config)
}
