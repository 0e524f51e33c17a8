//! The steps of a dialogue, the ways in which a peer can fail at one, and what must come of it.

use std::time::Duration;

use breakglass_mailer::core::job::AttemptOutcome::{
    self, Deferred, Delivered, Rejected, Unreachable,
};
use breakglass_mailer::core::outcome::Stage;

use crate::support::smtp::{Action, Mode, Script, Verb, say};

/// One answer of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Step {
    Greeting,
    Ehlo,
    StartTls,
    /// EHLO once more, after the handshake.
    EhloAgain,
    /// AUTH PLAIN.
    Plain,
    /// AUTH LOGIN, then the name, then the password.
    Login,
    Username,
    Password,
    Mail,
    Rcpt,
    Data,
    Dot,
}

impl Step {
    /// Those of a dialogue over `mode`. A login is made where there is TLS.
    pub fn of(mode: Mode) -> Vec<Self> {
        use Step::{
            Data, Dot, Ehlo, EhloAgain, Greeting, Login, Mail, Password, Plain, Rcpt, StartTls,
            Username,
        };
        let login = [Plain, Login, Username, Password];
        let transaction = [Mail, Rcpt, Data, Dot];
        match mode {
            Mode::Plain => [&[Greeting, Ehlo][..], &transaction].concat(),
            Mode::StartTls => {
                [&[Greeting, Ehlo, StartTls, EhloAgain][..], &login, &transaction].concat()
            }
            Mode::Tls => [&[Greeting, Ehlo][..], &login, &transaction].concat(),
        }
    }

    pub fn stage(self) -> Stage {
        match self {
            Self::Greeting => Stage::Greeting,
            Self::Ehlo | Self::EhloAgain => Stage::Ehlo,
            Self::StartTls => Stage::Tls,
            Self::Plain | Self::Login | Self::Username | Self::Password => Stage::Auth,
            Self::Mail => Stage::Mail,
            Self::Rcpt => Stage::Rcpt,
            Self::Data => Stage::Data,
            Self::Dot => Stage::Dot,
        }
    }

    /// A server that does `action` at this step, and at all others what it should.
    pub fn script(self, mode: Mode, action: Action) -> Script {
        let script = Script::new(mode);
        match self {
            Self::Greeting => script.on(Verb::Greeting, action),
            Self::Ehlo => script.on_nth(Verb::Ehlo, 1, action),
            Self::StartTls => script.on(Verb::StartTls, action),
            Self::EhloAgain => script.on_nth(Verb::Ehlo, 2, action),
            Self::Plain => script.on(Verb::Auth, action),
            Self::Login => only_login(script).on(Verb::AuthLogin, action),
            Self::Username => only_login(script).on(Verb::Username, action),
            Self::Password => only_login(script).on(Verb::Auth, action),
            Self::Mail => script.on(Verb::Mail, action),
            Self::Rcpt => script.on(Verb::Rcpt, action),
            Self::Data => script.on(Verb::Data, action),
            Self::Dot => script.on(Verb::Dot, action),
        }
    }

    /// The good answer, without its last line end.
    fn usual(self, mode: Mode) -> &'static str {
        match self {
            Self::Greeting => "220 fake ESMTP",
            Self::Ehlo if mode == Mode::StartTls => "250-fake\r\n250-SIZE 10485760\r\n250 STARTTLS",
            Self::Ehlo | Self::EhloAgain => "250-fake\r\n250-SIZE 10485760\r\n250 AUTH PLAIN LOGIN",
            Self::StartTls => "220 go ahead",
            Self::Plain | Self::Password => "235 2.7.0 welcome",
            Self::Login => "334 VXNlcm5hbWU6",
            Self::Username => "334 UGFzc3dvcmQ6",
            Self::Data => "354 go ahead",
            Self::Mail | Self::Rcpt | Self::Dot => "250 2.0.0 ok",
        }
    }

    /// A positive answer, but to another question.
    fn out_of_turn(self) -> &'static str {
        match self {
            Self::Login | Self::Username | Self::Data => "250 ok",
            _ => "354 go on",
        }
    }

    /// Whether a message can be taken by what is answered here.
    fn is_transaction(self) -> bool {
        Self::Mail <= self
    }
}

/// A server that takes no AUTH but LOGIN.
fn only_login(script: Script) -> Script {
    script.on(Verb::Ehlo, say("250-fake\r\n250-STARTTLS\r\n250 AUTH LOGIN"))
}

/// What a peer's behaviour comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// An odd form of the good answer.
    Fine,
    /// No whole answer in time.
    Silence,
    /// The connection is lost.
    Gone,
    /// No SMTP, or not an answer to what was asked.
    Nonsense,
    /// 4yz.
    PutOff,
    /// 5yz.
    Refused,
    /// 421.
    Leaving,
    /// The good answer, and more that was not asked for.
    TalksOn,
}

impl Sense {
    pub fn outcome(self, step: Step) -> AttemptOutcome {
        match (step.is_transaction(), self) {
            (_, Self::Fine) => Delivered,
            (false, _) => Unreachable,
            // It said that it has the message; what it says then is no answer.
            (true, Self::TalksOn) if step == Step::Dot => Delivered,
            (true, Self::Refused) => Rejected,
            // It may have the message, so that it must not look as if none had been sent.
            (true, Self::Silence | Self::Leaving) if step == Step::Dot => Deferred,
            (true, Self::Silence | Self::Leaving) => Unreachable,
            (true, Self::Gone | Self::Nonsense | Self::PutOff | Self::TalksOn) => Deferred,
        }
    }

    /// Whether the connection carries the next message.
    pub fn keeps_connection(self, step: Step) -> bool {
        self == Self::Fine || (self == Self::Refused && step == Step::Rcpt)
    }
}

/// All ways to answer at a step.
pub fn misdeeds(step: Step, mode: Mode) -> Vec<(Sense, Action)> {
    let usual = step.usual(mode);
    let mut all: Vec<(Sense, Action)> = Vec::new();
    all.extend(fine(step, usual).map(|action| (Sense::Fine, action)));
    all.extend(silence().map(|action| (Sense::Silence, action)));
    all.extend(gone().map(|action| (Sense::Gone, action)));
    all.extend(nonsense(step, usual).map(|action| (Sense::Nonsense, action)));
    let loud = format!("550 5.7.1 \x1b[2J\x1b]0;pwn\x07{}", "A".repeat(900));
    let refusals =
        ["501 5.5.4 no", "550 5.7.1 no", "550", "552 5.3.4 too big", "554-no\r\n554 no", "599 x"];
    all.extend(refusals.map(|reply| (Sense::Refused, say(reply))));
    all.push((Sense::Refused, say(&loud)));
    all.push((Sense::Refused, bytes(b"550 5.7.1 geht nicht f\xfcr\x00 dich\r\n")));
    all.push((Sense::Refused, Action::SayInPieces(b"550-5.7.1 n\r\n550 o\r\n".to_vec())));
    let put_off = ["450", "451 4.3.0 later", "452 4.3.1 no room", "432-a\r\n432 b", "499 x"];
    all.extend(put_off.map(|reply| (Sense::PutOff, say(reply))));
    all.extend(["421", "421-4.3.2 bye\r\n421 bye"].map(|reply| (Sense::Leaving, say(reply))));
    all.push((Sense::Leaving, Action::Close(b"421 4.3.2 bye\r\n".to_vec())));
    let more = ["250 ok\r\n", "\r\n", "250-and\r\n250 on\r\n354 go\r\n250 queued by another\r\n"];
    all.extend(more.map(|more| (Sense::TalksOn, bytes(format!("{usual}\r\n{more}").as_bytes()))));
    all
}

fn bytes(reply: &[u8]) -> Action {
    Action::Say(reply.to_vec())
}

fn fine(step: Step, usual: &str) -> impl Iterator<Item = Action> {
    let whole = format!("{usual}\r\n");
    let (code, text) = usual.split_at(3);
    let mut replies = vec![
        whole.replace("\r\n", "\n"),
        whole.replace("\r\n", "\r\r\n"),
        format!("{code}-\r\n{whole}"),
        format!("{code}-{}\r\n{whole}", "x".repeat(2000)),
    ];
    if !matches!(step, Step::Ehlo | Step::EhloAgain) {
        replies.extend([format!("{code}\r\n"), format!("{code} \r\n")]);
    }
    if !matches!(step, Step::StartTls | Step::Login | Step::Username | Step::Data) {
        // The first digit decides (RFC 5321 4.3.2).
        replies.push(whole.replace(code, "269"));
    }
    let noise = [code.as_bytes(), b"-\x1b[2J\x00\xff\xfe\r\n", code.as_bytes(), text.as_bytes()];
    let noise = [&noise.concat()[..], b"\r\n"].concat();
    let pieces = Action::SayInPieces(whole.into_bytes());
    replies.into_iter().map(String::into_bytes).chain([noise]).map(Action::Say).chain([pieces])
}

fn silence() -> [Action; 3] {
    let every = Duration::from_millis(20);
    [Action::Hang, Action::Drip(b"2".to_vec(), every), Action::Drip(b"250-x\r\n".to_vec(), every)]
}

fn gone() -> impl Iterator<Item = Action> {
    let said = [&b""[..], b"25", b"250-more\r\n"];
    said.into_iter().flat_map(|said| [Action::Close(said.to_vec()), Action::Reset(said.to_vec())])
}

fn nonsense(step: Step, usual: &str) -> impl Iterator<Item = Action> {
    const FLOOD_BYTES: usize = 64 << 20;
    let code = &usual[..3];
    let replies = [
        "",
        "ok",
        "25 ok",
        "2500 ok",
        "25O ok",
        "000 what",
        "150 wait",
        "650 what",
        "999 what",
        "250_ok",
        " 250 ok",
        "HTTP/1.1 400 Bad Request",
        // One that agrees and refuses.
        "250-ok\r\n550 no",
        "550-no\r\n250 ok",
        "354-go\r\n450 later",
        step.out_of_turn(),
    ];
    let too_long = format!("{code} {}", "x".repeat(4000));
    let too_many = format!("{code}-x\r\n").repeat(257) + usual;
    replies.into_iter().map(say).chain([
        say(&too_long),
        say(&too_many),
        bytes(b"\x16\x03\x03\x00\x02\x02\x28\n"),
        bytes(&[&[0; 100][..], b"\n"].concat()),
        Action::Flood(b"2".to_vec(), FLOOD_BYTES),
        Action::Flood(b"250-x\r\n".to_vec(), FLOOD_BYTES),
    ])
}
