//! Haraka, from npm.

use std::process::Command;

use super::site::Site;
use super::{Door, Fault, MailServer, Offer, USUAL, cache};

const OFFER: Offer = Offer {
    name: "Haraka",
    doors: &Door::ALL,
    faults: &Fault::ALL,
    has_bare_auth: true,
    keeps_what_it_cuts: true,
    has_greylist: true,
    login_words: &["tls TLS_AES_", "authenticated"],
    ..USUAL
};

/// Starts it; needs `need("haraka")`.
pub async fn haraka() -> MailServer {
    let mut site = Site::new();
    let ports = Door::ALL.map(|door| format!("@HOST@:{}", door.port())).join(",");
    let smtp = format!("listen={ports}\nsmtps_port=465\nnodes=0\ndaemonize=false\n");
    site.write("config/smtp.ini", &smtp);
    site.write("config/me", "mail.example.com\n");
    site.write("config/loglevel", "notice\n");
    site.write("config/plugins", "tls\nauth/flat_file\nmailbox\n");
    site.write("config/tls.ini", include_str!("haraka/tls.ini"));
    site.write("config/auth_flat_file.ini", include_str!("haraka/auth_flat_file.ini"));
    site.write("plugins/mailbox.js", include_str!("haraka/mailbox.js"));
    let package = cache("haraka/node_modules/Haraka");
    // It cannot greet without its own defaults.
    let defaults = std::fs::read_to_string(package.join("config/connection.ini"));
    site.write("config/connection.ini", &defaults.expect("the defaults"));
    let mut command = node();
    command.arg(package.join("bin/haraka")).args(["-c", &site.path("")]);
    command.env("MAIL", site.path("mail"));
    site.spawn(command);
    let version = npm_version(&package.join("package.json"));
    MailServer::listening(site, &OFFER, &version).await
}

/// Node.js as it was installed beside it.
pub fn node() -> Command {
    Command::new(cache("node/node_modules/.bin/node"))
}

/// The version in a `package.json`.
pub fn npm_version(package: &std::path::Path) -> String {
    let text = std::fs::read(package).expect("a package.json");
    let package: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    package["version"].as_str().expect("a version").to_owned()
}
