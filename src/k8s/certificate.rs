//! The webhook's certificate: read from PEM, made anew, and checked as the API server checks it.
//!
//! No error shows a key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

/// For how long a certificate that we make is valid.
const LIFETIME: Duration = Duration::from_hours(365 * 24);
/// How long before its end it is renewed.
pub const RENEWED_BEFORE_END: Duration = Duration::from_hours(365 * 24 / 3);
/// The clock of the API server may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// A certificate and what belongs to it, each as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// `tls.crt`: the certificate, and what is between it and its authority.
    pub chain: Vec<u8>,
    /// `tls.key`.
    pub key: Vec<u8>,
    /// `ca.crt`: the authorities that the API server is to trust.
    pub authorities: Vec<u8>,
}

/// The certificate and key to serve with.
///
/// # Errors
/// One sentence: one of them cannot be read, or they do not belong together.
pub fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain = certificates(chain).filter(|chain| !chain.is_empty());
    let chain = chain.ok_or("tls.crt holds no PEM certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no PEM private key")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|_| "tls.crt and tls.key do not belong together".to_owned())
}

impl Pem {
    /// A new certificate for `names`, from a new authority whose key is not kept: the next
    /// certificate has another one. `trusted` before, it stays trusted until the renewal after
    /// this, because not all replicas change over at once.
    ///
    /// # Errors
    /// When one of the names is no DNS name.
    pub fn make(
        names: Vec<String>,
        trusted: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, rcgen::Error> {
        let authority = CertifiedIssuer::self_signed(authority_params(now), KeyPair::generate()?)?;
        let mut params = CertificateParams::new(names)?;
        (params.not_before, params.not_after) = validity(now);
        params.distinguished_name.push(DnType::CommonName, "breakglass-mailer webhook");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let mut authorities = authority.pem();
        authorities.extend(trusted.and_then(Self::newest_authority));
        Ok(Self {
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authorities: authorities.into_bytes(),
        })
    }

    /// The certificate to serve with, if the API server accepts it for `name` at `time`.
    #[must_use]
    pub fn accepted(&self, name: &str, time: SystemTime) -> Option<CertifiedKey> {
        let key = certified_key(&self.chain, &self.key).ok()?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities)? {
            roots.add(authority).ok()?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from(name).ok()?;
        let time = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let time = UnixTime::since_unix_epoch(time);
        let (first, between) = key.cert.split_first()?;
        let verified = verifier.build().ok()?.verify_server_cert(first, between, &name, &[], time);
        verified.is_ok().then_some(key)
    }

    /// The first of the authorities, which is the one that this certificate is from.
    fn newest_authority(&self) -> Option<String> {
        const END: &str = "-----END CERTIFICATE-----";
        let text = std::str::from_utf8(&self.authorities).ok()?;
        let end = text.find(END)? + END.len();
        certificates(text.as_bytes()).map(|_| format!("{}\n", &text[..end]))
    }
}

/// All certificates of a PEM text; nothing when one is broken.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
}

fn authority_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "breakglass-mailer webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = validity(now);
    params
}

/// From when until when. `T` is a time of rcgen's.
fn validity<T: From<SystemTime>>(now: SystemTime) -> (T, T) {
    ((now - CLOCK_SKEW).into(), (now + LIFETIME).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "webhook.mail.svc";
    const BROKEN: &[u8] = b"-----BEGIN CERTIFICATE-----\n!";

    fn made(trusted: Option<&Pem>, now: SystemTime) -> Pem {
        Pem::make(vec![NAME.to_owned()], trusted, now).expect("a certificate")
    }

    #[test]
    fn a_new_certificate_is_accepted_for_its_name_until_it_ends() {
        let now = SystemTime::now();
        let pem = made(None, now);
        for at in [now, now + LIFETIME - RENEWED_BEFORE_END, now + LIFETIME - CLOCK_SKEW] {
            assert!(pem.accepted(NAME, at).is_some());
        }
        assert!(pem.accepted(NAME, now + LIFETIME + CLOCK_SKEW).is_none());
        assert!(pem.accepted(NAME, now - 2 * CLOCK_SKEW).is_none());
        assert!(pem.accepted("other.mail.svc", now).is_none());
    }

    #[test]
    fn a_renewal_leaves_the_certificate_before_it_trusted_and_no_older_one() {
        let now = SystemTime::now();
        let first = made(None, now);
        let second = made(Some(&first), now);
        let third = made(Some(&second), now);
        let trusted = |pem: &Pem, authorities: &Pem| {
            let authorities = authorities.authorities.clone();
            Pem { authorities, ..pem.clone() }.accepted(NAME, now).is_some()
        };
        assert!(trusted(&first, &second) && trusted(&second, &second));
        assert!(trusted(&second, &third) && trusted(&third, &third));
        assert!(!trusted(&first, &third));
    }

    #[test]
    fn what_cannot_be_served_or_trusted_is_refused() {
        let now = SystemTime::now();
        let (good, other) = (made(None, now), made(None, now));
        let bad = [
            Pem { key: other.key.clone(), ..good.clone() },
            Pem { authorities: other.authorities.clone(), ..good.clone() },
            Pem { authorities: vec![], ..good.clone() },
            Pem { chain: vec![], ..good.clone() },
            Pem { key: b"nonsense".to_vec(), ..good.clone() },
            Pem { authorities: [&good.authorities[..], BROKEN].concat(), ..good },
        ];
        for (nth, pem) in bad.iter().enumerate() {
            assert!(pem.accepted(NAME, now).is_none(), "number {nth}");
        }
    }

    #[test]
    fn a_refusal_names_the_file_and_shows_no_key() {
        let now = SystemTime::now();
        let (good, other) = (made(None, now), made(None, now));
        let refusal = |chain: &[u8], key: &[u8]| certified_key(chain, key).unwrap_err();
        assert_eq!(refusal(b"", &good.key), "tls.crt holds no PEM certificate");
        assert_eq!(refusal(&good.chain, b"secret"), "tls.key holds no PEM private key");
        let mixed = refusal(&good.chain, &other.key);
        assert_eq!(mixed, "tls.crt and tls.key do not belong together");
    }
}
