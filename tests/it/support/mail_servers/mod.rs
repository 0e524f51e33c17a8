//! Real mail servers for tests: where each is found, what it offers and which faults it plays.
//!
//! Each started server has a loopback address, a folder and a certificate authority of its own, so
//! any number runs at once, and it is gone when it is dropped. They take mail for `example.com` and
//! `bücher.example`, whoever the recipient is, and nothing that they take leaves the machine.

mod aiosmtpd;
mod exim;
mod haraka;
mod maildev;
mod opensmtpd;
mod postfix;
mod site;
mod smtp_sink;

use std::path::PathBuf;

pub use aiosmtpd::aiosmtpd;
pub use exim::exim;
pub use haraka::haraka;
pub use maildev::maildev;
pub use opensmtpd::opensmtpd;
pub use postfix::{postfix, postfix_with_tokens};
pub use smtp_sink::smtp_sink;

use site::Site;

/// The only login.
pub const USER: &str = "breakglass";
/// Its password.
pub const PASSWORD: &str = "correct horse ü battery";

/// A way into a server, at the same port everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// STARTTLS is required, and a login.
    Submission,
    /// TLS from the first byte, and a login.
    Submissions,
    /// STARTTLS is offered; no login.
    Relay,
    /// There is no TLS, and no login is needed.
    Bare,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submission, Self::Submissions, Self::Relay, Self::Bare];

    /// Where it is.
    pub fn port(self) -> u16 {
        match self {
            Self::Submission => 587,
            Self::Submissions => 465,
            Self::Relay => 25,
            Self::Bare => 2525,
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Submission => "STARTTLS, login",
            Self::Submissions => "TLS, login",
            Self::Relay => "STARTTLS",
            Self::Bare => "no TLS",
        }
    }

    /// Whether one logs in here.
    pub fn has_login(self) -> bool {
        matches!(self, Self::Submission | Self::Submissions)
    }

    /// The word for how a message came through it (RFC 3848).
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Submission | Self::Submissions => "ESMTPSA",
            Self::Relay => "ESMTPS",
            Self::Bare => "ESMTP",
        }
    }
}

/// What a server does to the mail for the recipient of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A 4yz to RCPT.
    Deferred,
    /// A 550 5.1.1 to RCPT.
    Rejected,
    /// A 421 to RCPT or to the connection.
    Closing,
    /// A 4yz to RCPT, in words or with a code that say greylisting; see `Offer::has_greylist`.
    Greylisted,
    /// A 4yz after the dot.
    DotDeferred,
    /// A 5yz after the dot.
    DotRejected,
    /// The connection is cut after the dot.
    DotCut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Deferred,
        Self::Rejected,
        Self::Closing,
        Self::Greylisted,
        Self::DotDeferred,
        Self::DotRejected,
        Self::DotCut,
    ];

    /// The local part that asks for it.
    pub fn recipient(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::Closing => "closing",
            Self::Greylisted => "greylisted",
            Self::DotDeferred => "dot-deferred",
            Self::DotRejected => "dot-rejected",
            Self::DotCut => "dot-cut",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Deferred => "4yz",
            Self::Rejected => "5yz",
            Self::Closing => "421",
            Self::Greylisted => "greylisting",
            Self::DotDeferred => "4yz after the dot",
            Self::DotRejected => "5yz after the dot",
            Self::DotCut => "cut after the dot",
        }
    }

    /// The port where a server plays it to everybody when it cannot tell recipients apart.
    pub fn port(self) -> u16 {
        2530 + self as u16
    }
}

/// What a server is known to offer; its tests hold it to that.
pub struct Offer {
    /// As its makers write it.
    pub name: &'static str,
    pub doors: &'static [Door],
    pub faults: &'static [Fault],
    /// Each fault has a port of its own, instead of a recipient.
    pub has_fault_ports: bool,
    /// It takes addresses that are not ASCII (RFC 6531).
    pub has_smtputf8: bool,
    /// It offers AUTH at its bare door, where no password must go.
    pub has_bare_auth: bool,
    /// It keeps what it took before it cuts the connection.
    pub keeps_what_it_cuts: bool,
    /// What it put off as greylisted it takes the next time from that sender at that door.
    pub has_greylist: bool,
    /// It writes into each message how it came.
    pub writes_received: bool,
    /// What else it writes there of a message from a client that logged in.
    pub login_words: &'static [&'static str],
}

/// What most have.
pub const USUAL: Offer = Offer {
    name: "",
    doors: &[Door::Submission, Door::Submissions, Door::Relay],
    faults: &[
        Fault::Deferred,
        Fault::Rejected,
        Fault::Closing,
        Fault::Greylisted,
        Fault::DotDeferred,
        Fault::DotRejected,
    ],
    has_fault_ports: false,
    has_smtputf8: true,
    has_bare_auth: false,
    keeps_what_it_cuts: false,
    has_greylist: false,
    writes_received: true,
    login_words: &[],
};

/// A server that listens. It is stopped when it is dropped.
pub struct MailServer {
    pub offer: &'static Offer,
    pub version: String,
    site: Site,
}

impl MailServer {
    async fn listening(mut site: Site, offer: &'static Offer, version: &str) -> Self {
        let faults = offer.faults.iter().filter(|_| offer.has_fault_ports);
        let ports = offer.doors.iter().map(|door| door.port());
        for port in ports.chain(faults.map(|fault| fault.port())) {
            site.listens(port).await;
        }
        Self { offer, version: version.trim().to_owned(), site }
    }

    /// Its address.
    pub fn host(&self) -> &str {
        &self.site.host
    }

    /// The authority that signed its certificate, as PEM.
    pub fn ca(&self) -> &str {
        &self.site.ca
    }

    /// The messages that it keeps and that contain `words`.
    ///
    /// # Panics
    /// When its mail cannot be read.
    pub fn messages(&self, words: &str) -> Vec<Vec<u8>> {
        self.site.mail(words)
    }
}

/// Where `tests/run` puts what Debian has no installable package of.
pub fn cache(name: &str) -> PathBuf {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("breakglass-mailer-tests").join(name)
}
