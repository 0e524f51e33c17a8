//! What a scripted SMTP server says and does, verb by verb.

use std::time::Duration;

/// What the client said, or what the server says unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// AUTH PLAIN, the password of AUTH LOGIN, or the token of AUTH XOAUTH2.
    Auth,
    /// AUTH LOGIN, upon which the server asks for the name.
    AuthLogin,
    /// The name of AUTH LOGIN, upon which the server asks for the password.
    Username,
    /// AUTH XOAUTH2 without its token, upon which the server asks for that.
    AuthXoauth2,
    /// What the client says to a 334 after its token.
    AuthRefused,
    Mail,
    Rcpt,
    Data,
    /// The final dot of a message.
    Dot,
    Noop,
    Rset,
    Quit,
    Unknown,
}

/// What the server does then.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends these bytes. A reply that begins with 2 or 3 goes on as a real server would.
    Say(Vec<u8>),
    /// The same, byte by byte.
    SayInPieces(Vec<u8>),
    /// Says this after a while.
    Delay(Duration, Vec<u8>),
    /// Sends these bytes now and then, without end.
    Drip(Vec<u8>, Duration),
    /// Sends these bytes again and again, so many in all.
    Flood(Vec<u8>, usize),
    /// Says nothing any more and keeps the connection open.
    Hang,
    /// Says this, if anything, and closes.
    Close(Vec<u8>),
    /// Says this, if anything, and resets the connection.
    Reset(Vec<u8>),
    /// At DATA: says 354, takes so many bytes and resets the connection.
    ResetInBody(usize),
}

/// A reply line; the line end is added.
pub fn say(reply: &str) -> Action {
    Action::Say(format!("{reply}\r\n").into_bytes())
}

/// When a rule counts.
#[derive(Clone, Debug)]
enum When {
    Always,
    /// The line contains this.
    Line(String),
    /// The n-th time that the server hears the verb, counted from 1 over all connections.
    Nth(usize),
}

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// Which certificate the server shows. The first three are for
/// `localhost`, `127.0.0.1`, `::1` and `PKI.own_address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    Good,
    Expired,
    UnknownCa,
    WrongName,
    /// None: takes the ClientHello and says nothing.
    Hang,
    /// None: answers the ClientHello with these bytes and closes.
    Not(&'static [u8]),
}

/// A server that takes everything, but for the rules. Of the rules that fit the last one counts.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) mode: Mode,
    pub(super) certificate: Certificate,
    pub(super) takes_before_reply: bool,
    pub(super) offers_pipelining: bool,
    rules: Vec<(Verb, When, Action)>,
}

impl Script {
    pub fn new(mode: Mode) -> Self {
        let certificate = Certificate::Good;
        Self {
            mode,
            certificate,
            takes_before_reply: false,
            offers_pipelining: false,
            rules: Vec::new(),
        }
    }

    pub fn plain() -> Self {
        Self::new(Mode::Plain)
    }

    pub fn starttls() -> Self {
        Self::new(Mode::StartTls)
    }

    pub fn tls() -> Self {
        Self::new(Mode::Tls)
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn reply_to_rcpt(code: u16, text: &str) -> Self {
        Self::plain().on(Verb::Rcpt, say(&format!("{code} {text}")))
    }

    #[must_use]
    pub fn certificate(self, certificate: Certificate) -> Self {
        Self { certificate, ..self }
    }

    /// A message counts as accepted at its final dot, whatever is said to it.
    #[must_use]
    pub fn taking_before_reply(self) -> Self {
        Self { takes_before_reply: true, ..self }
    }

    /// Offers to take several commands at once (RFC 2920).
    #[must_use]
    pub fn pipelining(self) -> Self {
        Self { offers_pipelining: true, ..self }
    }

    #[must_use]
    pub fn on(self, verb: Verb, action: Action) -> Self {
        self.rule(verb, When::Always, action)
    }

    #[must_use]
    pub fn on_line(self, verb: Verb, part: &str, action: Action) -> Self {
        self.rule(verb, When::Line(part.to_owned()), action)
    }

    #[must_use]
    pub fn on_nth(self, verb: Verb, nth: usize, action: Action) -> Self {
        self.rule(verb, When::Nth(nth), action)
    }

    fn rule(mut self, verb: Verb, when: When, action: Action) -> Self {
        self.rules.push((verb, when, action));
        self
    }

    pub(super) fn action(&self, verb: Verb, line: &str, nth: usize) -> Option<Action> {
        let fits = |when: &When| match when {
            When::Always => true,
            When::Line(part) => line.contains(part.as_str()),
            When::Nth(n) => *n == nth,
        };
        let rule = self.rules.iter().rev().find(|(v, when, _)| *v == verb && fits(when));
        rule.map(|(_, _, action)| action.clone())
    }
}
