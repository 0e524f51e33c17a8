//! maildev, from npm: one process with TLS and a login, one with neither.

use super::haraka::{node, npm_version};
use super::site::Site;
use super::{Door, MailServer, Offer, PASSWORD, USER, USUAL, cache};

const OFFER: Offer = Offer {
    name: "maildev",
    doors: &[Door::Submissions, Door::Bare],
    faults: &[],
    writes_received: false,
    ..USUAL
};

/// Starts it; needs `need("maildev")`.
pub async fn maildev() -> MailServer {
    let mut site = Site::new();
    let (cert, key) = (site.path("server.pem"), site.path("server.key"));
    let login = ["--incoming-user", USER, "--incoming-pass", PASSWORD];
    let tls = ["--incoming-secure", "--incoming-cert", &cert, "--incoming-key", &key];
    run(&mut site, Door::Submissions, &[&login[..], &tls].concat());
    run(&mut site, Door::Bare, &[]);
    let version = npm_version(&cache("maildev/node_modules/maildev/package.json"));
    MailServer::listening(site, &OFFER, &version).await
}

fn run(site: &mut Site, door: Door, args: &[&str]) {
    let port = door.port().to_string();
    let mail = site.path(&format!("mail/{port}"));
    let mut command = node();
    command.arg(cache("maildev/node_modules/.bin/maildev")).args(args);
    command.args(["--ip", &site.host, "--smtp", &port, "--disable-web", "--mail-directory", &mail]);
    site.spawn(command);
}
