//! Postfix, with logins by dovecot.

use std::fs;
use std::process::Command;

use super::site::{Site, printed};
use super::{MailServer, Offer, USUAL};
use crate::support::wait::eventually;

const OFFER: Offer = Offer {
    name: "Postfix",
    login_words: &["Authenticated sender: breakglass", "using TLSv1.3"],
    ..USUAL
};

/// It asks with the token in a header, and is told whose it is.
const TOKENS: &str = "introspection_mode = auth\nusername_attribute = username\n";

/// Starts it; needs `need("postfix")`.
pub async fn postfix() -> MailServer {
    start(None).await
}

/// The same, where a login may also be an access token that whoever answers at this URL vouches for.
pub async fn postfix_with_tokens(introspection_url: &str) -> MailServer {
    start(Some(introspection_url)).await
}

async fn start(introspection_url: Option<&str>) -> MailServer {
    let mut site = Site::new();
    let id = printed(Command::new("id").args(["-u", "postfix"]));
    let user: u32 = id.trim().parse().expect("the user postfix");
    for folder in ["state", "spool/private"] {
        site.folder(folder, user);
    }
    site.write("etc/main.cf", include_str!("postfix/main.cf"));
    site.write("etc/master.cf", include_str!("postfix/master.cf"));
    site.write("etc/at-rcpt", include_str!("postfix/at-rcpt"));
    site.write("etc/at-dot", include_str!("postfix/at-dot"));
    let mut dovecot = include_str!("postfix/dovecot.conf").to_owned();
    if let Some(url) = introspection_url {
        dovecot += include_str!("postfix/dovecot-tokens.conf");
        site.write("tokens.conf", &format!("introspection_url = {url}\n{TOKENS}"));
    }
    site.write("dovecot.conf", &dovecot);
    site.write("users", "@USER@:{PLAIN}@PASSWORD@\n");

    let command = |program: &str, args: [&str; 3]| {
        let mut command = Command::new(program);
        command.args(args);
        command
    };
    site.spawn(command("/usr/sbin/dovecot", ["-F", "-c", &site.path("dovecot.conf")]));
    let socket = site.path("spool/private/auth");
    eventually("dovecot is there", async || fs::exists(&socket).ok()?.then_some(())).await;
    let etc = site.path("etc");
    site.at_end(command("/usr/sbin/postfix", ["-c", &etc, "abort"]));
    site.run(command("/usr/sbin/postfix", ["-c", &etc, "start"]));
    let version = printed(Command::new("/usr/sbin/postconf").args(["-d", "-h", "mail_version"]));
    MailServer::listening(site, &OFFER, &version).await
}
