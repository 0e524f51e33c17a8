//! Postfix's `smtp-sink`, a test server without TLS. One process takes mail, and one more for each
//! fault plays it to everybody.

use std::process::Command;

use super::site::{Site, printed};
use super::{Door, Fault, MailServer, Offer, USUAL};

const OFFER: Offer = Offer {
    name: "smtp-sink",
    doors: &[Door::Bare],
    faults: &Fault::ALL,
    has_fault_ports: true,
    has_smtputf8: false,
    has_bare_auth: true,
    ..USUAL
};

/// Starts it; needs `need("smtp-sink")`.
pub async fn smtp_sink() -> MailServer {
    let mut site = Site::new();
    let mail = site.path("mail");
    run(&mut site, Door::Bare.port(), &["-R", &mail, "-d", "message."]);
    for fault in Fault::ALL {
        let args: &[&str] = match fault {
            Fault::Deferred => &["-r", "RCPT", "-b", "450 4.2.1 mailbox busy"],
            Fault::Rejected => &["-f", "RCPT", "-B", "550 5.1.1 no such user here"],
            Fault::Closing => &["-Q", "CONNECT"],
            Fault::Greylisted => &["-r", "RCPT", "-b", "451 4.7.1 try again later"],
            Fault::DotDeferred => &["-r", ".", "-b", "451 4.3.0 not now"],
            Fault::DotRejected => &["-f", ".", "-B", "554 5.6.0 not this message"],
            Fault::DotCut => &["-q", "."],
        };
        run(&mut site, fault.port(), args);
    }
    let version = printed(Command::new("/usr/sbin/postconf").args(["-d", "-h", "mail_version"]));
    MailServer::listening(site, &OFFER, &version).await
}

fn run(site: &mut Site, port: u16, args: &[&str]) {
    let address = format!("{}:{port}", site.host);
    let mut command = Command::new("/usr/sbin/smtp-sink");
    command.args(["-u", "nobody", "-h", "mail.example.com"]).args(args).args([&address, "64"]);
    site.spawn(command);
}
