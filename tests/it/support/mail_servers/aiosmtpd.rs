//! aiosmtpd, a server in Python: the one of ours that plays every fault.

use std::process::Command;

use super::site::{Site, printed};
use super::{Door, Fault, MailServer, Offer, USUAL};

const OFFER: Offer = Offer {
    name: "aiosmtpd",
    doors: &Door::ALL,
    faults: &Fault::ALL,
    has_bare_auth: true,
    keeps_what_it_cuts: true,
    has_greylist: true,
    login_words: &["TLSv1.3", "login breakglass"],
    ..USUAL
};

const PYTHON: &str = "/usr/bin/python3";

/// Starts it; needs `need("aiosmtpd")`.
pub async fn aiosmtpd() -> MailServer {
    let mut site = Site::new();
    site.write("server.py", include_str!("aiosmtpd/server.py"));
    let mut command = Command::new(PYTHON);
    command.arg(site.path("server.py"));
    site.spawn(command);
    let version = "import aiosmtpd; print(aiosmtpd.__version__)";
    let version = printed(Command::new(PYTHON).args(["-c", version]));
    MailServer::listening(site, &OFFER, &version).await
}
