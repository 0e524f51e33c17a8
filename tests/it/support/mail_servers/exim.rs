//! Exim, from Debian's packages but not installed: they conflict with Postfix's.

use super::site::Site;
use super::{MailServer, Offer, USUAL, cache};
use crate::support::wait::eventually;

const OFFER: Offer = Offer { name: "Exim", login_words: &["(TLS1.3)"], ..USUAL };

/// Starts it; needs `need("exim")`.
pub async fn exim() -> MailServer {
    let mut site = Site::new();
    site.write("exim.conf", include_str!("exim/exim.conf"));
    let binary = cache("exim/usr/sbin/exim4");
    // It starts itself anew without root, who alone may look into the cache.
    let shell = format!(
        "touch /run/exim\nmount --bind '{}' /run/exim\n\
         mkdir spool\ntouch exim-main.log exim-panic.log exim-reject.log\n\
         chown Debian-exim mail spool exim-*.log server.key\n\
         exec /run/exim -C \"$1/exim.conf\" -bdf\n",
        binary.display()
    );
    site.spawn_apart(&["Debian-exim"], &["/run"], &shell);
    let version = eventually("Exim says its version", async || {
        let log = std::fs::read_to_string(site.path("exim-main.log")).ok()?;
        Some(log.split_once(" exim ")?.1.split_once(" daemon started")?.0.to_owned())
    })
    .await;
    MailServer::listening(site, &OFFER, &version).await
}
