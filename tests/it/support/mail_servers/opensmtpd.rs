//! OpenSMTPD, from Debian's package but not installed: it conflicts with Postfix's.

use std::process::Command;

use super::site::{Site, printed};
use super::{MailServer, Offer, USUAL, cache};

const OFFER: Offer =
    Offer { name: "OpenSMTPD", has_smtputf8: false, login_words: &["(TLSv1.3:"], ..USUAL };

/// The paths that are compiled in.
const EMPTIED: &[&str] = &["/run", "/var/spool", "/var/lib", "/usr/libexec"];

/// Starts it; needs `need("opensmtpd")`.
pub async fn opensmtpd() -> MailServer {
    let mut site = Site::new();
    site.write("smtpd.conf", include_str!("opensmtpd/smtpd.conf"));
    site.write("users", include_str!("opensmtpd/users"));
    site.write("recipients", "@ nobody\n");
    let root = cache("opensmtpd");
    let shell = format!(
        "mkdir -p /etc/ssl/certs\ncp server.pem /etc/ssl/certs/ca-certificates.crt\n\
         mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd /usr/libexec/opensmtpd\n\
         chmod 711 /var/spool/smtpd\n\
         mount --bind '{root}/usr/libexec/opensmtpd' /usr/libexec/opensmtpd\n\
         exec '{root}/usr/sbin/smtpd' -d -f smtpd.conf\n",
        root = root.display()
    );
    site.spawn_apart(&["opensmtpd", "opensmtpq"], EMPTIED, &shell);
    let said = printed(Command::new(root.join("usr/sbin/smtpd")).arg("-h"));
    let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_numeric()));
    MailServer::listening(site, &OFFER, version.expect("a version")).await
}
