//! Servers that promise what they do not keep: in EHLO, in the handshake, and between messages.

use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::AttemptOutcome::{
    self, Deferred, Delivered, Rejected, Unreachable,
};
use breakglass_mailer::core::outcome::Cause;
use breakglass_mailer::core::provider::Security;
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::SmtpTransport;

use super::{content, hurried, job, provider, send_once};
use crate::support::smtp::{Action, Certificate, Mode, Script, SmtpServer, Verb, say};

/// A server and the transport that speaks to it, from one send to the next.
struct Line {
    server: SmtpServer,
    transport: SmtpTransport,
    mode: Mode,
}

impl Line {
    async fn to(mode: Mode, script: Script) -> Self {
        let transport = SmtpTransport::new(hurried());
        Self { server: SmtpServer::start(script).await, transport, mode }
    }

    async fn send(&self) -> AttemptOutcome {
        let provider = Arc::new(provider(&self.server, self.mode));
        self.transport.send(&provider, &job("ada@example.com"), &content()).await.kind()
    }

    fn connections_count(&self) -> usize {
        self.server.seen().connections_count
    }
}

#[tokio::test]
async fn what_ehlo_promises_is_held_against_what_the_server_then_does() {
    let plain = |offers: &str| Script::plain().on(Verb::Ehlo, say(offers));
    let after_tls = |offers: &str| Script::starttls().on_nth(Verb::Ehlo, 2, say(offers));
    let small = "250-fake\r\n250 SIZE 100";
    let too_big = plain(small).on(Verb::Mail, say("552 5.3.4 too big"));
    let table = [
        // The word of MAIL counts, not the number: the server may take more for this sender.
        (Mode::Plain, plain(small), Delivered),
        (Mode::Plain, too_big, Rejected),
        (Mode::Plain, plain("250-fake\r\n250-SIZE\r\n250 SIZE lots"), Delivered),
        (Mode::Plain, plain("250 fake"), Delivered),
        (Mode::Plain, plain("250-STARTTLS\r\n250 AUTH"), Delivered),
        // Between two servers of one name, or an attacker's half and the real one's.
        (Mode::StartTls, after_tls("250-fake\r\n250-STARTTLS\r\n250 AUTH PLAIN"), Delivered),
        (Mode::StartTls, after_tls("250-fake\r\n250 STARTTLS"), Unreachable),
        (Mode::StartTls, after_tls("250-fake\r\n250 AUTH"), Unreachable),
        (
            Mode::StartTls,
            after_tls("250-fake\r\n250 AUTH GSSAPI XOAUTH2 SCRAM-SHA-256"),
            Unreachable,
        ),
        (Mode::StartTls, after_tls("550 who are you"), Unreachable),
    ];
    for (mode, script, kind) in table {
        let case = format!("{script:?}");
        let (outcome, seen) = send_once(mode, script, hurried()).await;
        assert_eq!(outcome.kind(), kind, "{outcome:?}: {case}");
        assert_eq!(seen.accepted.len(), usize::from(kind == Delivered), "{case}");
        assert_eq!(seen.count(Verb::Auth) > 0, kind == Delivered && mode != Mode::Plain, "{case}");
    }
}

#[tokio::test]
async fn a_server_that_knows_no_ehlo_is_greeted_with_helo_and_offers_nothing() {
    for refusal in ["500 5.5.1 what?", "502 5.5.1 not implemented", "504 no"] {
        let old = Script::plain().on(Verb::Ehlo, say(refusal));
        let (outcome, seen) = send_once(Mode::Plain, old, hurried()).await;
        assert_eq!(outcome.kind(), Delivered, "{refusal}: {outcome:?}");
        assert_eq!(seen.count(Verb::Helo), 1, "{refusal}");
        assert!(seen.lines.iter().any(|line| line == "MAIL FROM:<alerts@example.com>"));

        // Not a way around STARTTLS, whatever it says.
        let offers = say("250-fake\r\n250-STARTTLS\r\n250 AUTH PLAIN");
        let old = Script::starttls().on(Verb::Ehlo, say(refusal)).on(Verb::Helo, offers);
        let (outcome, seen) = send_once(Mode::StartTls, old, hurried()).await;
        let cause = outcome.failure().expect("a failure").cause;
        assert_eq!((outcome.kind(), cause), (Unreachable, Cause::Tls), "{refusal}");
        assert_eq!((seen.count(Verb::Auth), seen.count(Verb::Mail)), (0, 0), "{refusal}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_in_any_way_is_about_the_provider_and_nothing_is_said_in_plaintext()
{
    // A ServerHello of TLS 1.0, whole and in half.
    const TLS_1_0: &[u8] = b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01\
        0123456789abcdef0123456789abcdef\x00\x00\x2f\x00";
    let handshakes = [
        Certificate::Expired,
        Certificate::UnknownCa,
        Certificate::WrongName,
        Certificate::Hang,
        Certificate::Not(b""),
        Certificate::Not(b"220 fake ESMTP\r\n"),
        Certificate::Not(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Certificate::Not(TLS_1_0),
        Certificate::Not(TLS_1_0.split_at(20).0),
        // Alerts: handshake failure, protocol version, close notify.
        Certificate::Not(b"\x15\x03\x03\x00\x02\x02\x28"),
        Certificate::Not(b"\x15\x03\x01\x00\x02\x02\x46"),
        Certificate::Not(b"\x15\x03\x03\x00\x02\x01\x00"),
        // A record longer than any may be.
        Certificate::Not(b"\x16\x03\x03\xff\xff\x02"),
    ];
    let ways = [(Mode::StartTls, false), (Mode::StartTls, true), (Mode::Tls, false)];
    let all = handshakes.into_iter().flat_map(|handshake| {
        ways.map(|(mode, is_relay)| check_failed_handshake(handshake, mode, is_relay))
    });
    futures_util::future::join_all(all).await;
}

async fn check_failed_handshake(handshake: Certificate, mode: Mode, is_relay: bool) {
    let case = format!("{handshake:?} over {mode:?}, relay: {is_relay}");
    let server = SmtpServer::start(Script::new(mode).certificate(handshake)).await;
    let mut provider = provider(&server, mode);
    if is_relay {
        provider.smtp.security = Security::Opportunistic;
        provider.smtp.credentials = None;
    }
    let provider = Arc::new(provider);
    let transport = SmtpTransport::new(hurried());
    let job = job("ada@example.com");
    let outcome = transport.send(&provider, &job, &content()).await;
    let failure = outcome.failure().expect("a failure");
    assert_eq!(outcome.kind(), Unreachable, "{case}: {failure:?}");
    let is_late = handshake == Certificate::Hang;
    let cause = if is_late { Cause::ConnectionTimeout } else { Cause::Tls };
    assert_eq!(failure.cause, cause, "{case}: {failure:?}");
    let seen = server.seen();
    for verb in [Verb::Auth, Verb::AuthLogin, Verb::Mail, Verb::Data, Verb::Unknown] {
        assert_eq!(seen.count(verb), 0, "{case}");
    }

    server.follow(Script::new(mode));
    let next = transport.send(&provider, &job, &content()).await;
    assert_eq!(next.kind(), Delivered, "{case}: {next:?}");
    assert!(server.accepted()[0].is_encrypted, "{case}");
}

#[tokio::test]
async fn a_relay_that_offers_starttls_and_refuses_it_gets_no_mail_in_plaintext() {
    for refusal in ["454 4.7.0 not now", "502 5.5.1 not implemented", "421 bye", "250 ok"] {
        let server = SmtpServer::start(Script::starttls().on(Verb::StartTls, say(refusal))).await;
        let mut relay = provider(&server, Mode::Plain);
        relay.smtp.security = Security::Opportunistic;
        let transport = SmtpTransport::new(hurried());
        let outcome = transport.send(&Arc::new(relay), &job("ada@example.com"), &content()).await;
        assert_eq!(outcome.kind(), Unreachable, "{refusal}: {outcome:?}");
        assert_eq!(server.seen().count(Verb::Mail), 0, "{refusal}");
    }
}

#[tokio::test]
async fn a_server_that_takes_one_connection_takes_all_messages_over_it() {
    let one = Script::plain().on(Verb::Greeting, say("421 4.7.0 too many connections")).on_nth(
        Verb::Greeting,
        1,
        say("220 fake"),
    );
    let line = Line::to(Mode::Plain, one).await;
    let (first, second) = tokio::join!(line.send(), line.send());
    let mut kinds = [first, second];
    kinds.sort_by_key(|kind| *kind == Unreachable);
    assert_eq!(kinds, [Delivered, Unreachable]);
    assert_eq!(line.send().await, Delivered);
    assert_eq!(line.connections_count(), 2);
}

#[tokio::test]
async fn what_is_put_off_is_tried_next_over_another_connection() {
    let put_off = [
        (Verb::Rcpt, "552 5.5.3 too many recipients"),
        (Verb::Rcpt, "452 4.5.3 too many recipients"),
        (Verb::Rcpt, "450 4.7.1 too much from this connection"),
        (Verb::Mail, "451 4.7.1 too many messages in this session"),
    ];
    for (verb, reply) in put_off {
        let line = Line::to(Mode::Plain, Script::plain().on_nth(verb, 2, say(reply))).await;
        let kinds = [line.send().await, line.send().await, line.send().await];
        assert_eq!(kinds, [Delivered, Deferred, Delivered], "{reply}");
        assert_eq!(line.connections_count(), 2, "{reply}");
    }
}

#[tokio::test]
async fn a_sender_is_refused_by_a_new_connection_and_not_by_one_that_came_once_too_often() {
    let refusal = say("550 5.7.0 too many messages in this session");
    let line = Line::to(Mode::Plain, Script::plain().on_nth(Verb::Mail, 2, refusal)).await;
    let kinds = [line.send().await, line.send().await];
    assert_eq!((kinds, line.connections_count()), ([Delivered, Delivered], 2));

    line.server.follow(Script::plain().on(Verb::Mail, say("550 5.7.1 not you")));
    assert_eq!((line.send().await, line.connections_count()), (Rejected, 3));
}

#[tokio::test]
async fn a_connection_that_cannot_be_reset_is_replaced() {
    let resets = [
        say("500 what"),
        say("250-ok\r\n550 no"),
        say("250 ok\r\n250 ok"),
        say("421 bye"),
        Action::Hang,
        Action::Close(Vec::new()),
        Action::Reset(Vec::new()),
        Action::Flood(b"2".to_vec(), 1 << 20),
        Action::Drip(b"2".to_vec(), Duration::from_millis(20)),
    ];
    for reset in resets {
        let case = format!("{reset:?}");
        let script = Script::reply_to_rcpt(550, "5.1.1 no such user").on(Verb::Rset, reset.clone());
        let line = Line::to(Mode::Plain, script).await;
        assert_eq!(line.send().await, Rejected, "{case}");
        line.server.follow(Script::plain().on(Verb::Rset, reset));
        assert_eq!((line.send().await, line.connections_count()), (Delivered, 2), "{case}");
    }
}

#[tokio::test]
async fn a_check_needs_an_answer_to_noop_and_none_to_quit() {
    let probe = async |script: Script| {
        let server = SmtpServer::start(script).await;
        let provider = Arc::new(provider(&server, Mode::StartTls));
        SmtpTransport::new(hurried()).probe(&provider).await
    };
    let answers = || {
        [
            say("500 what"),
            say("421 bye"),
            say("what"),
            Action::Close(Vec::new()),
            Action::Reset(Vec::new()),
            Action::Hang,
            Action::Flood(b"250-x\r\n".to_vec(), 1 << 20),
        ]
    };
    for answer in answers() {
        let case = format!("{answer:?}");
        let failed = probe(Script::starttls().on(Verb::Noop, answer)).await.expect_err(&case);
        assert_eq!(failed.detail, "the server did not answer NOOP with 250", "{case}");
    }
    for answer in answers() {
        let case = format!("{answer:?}");
        probe(Script::starttls().on(Verb::Quit, answer)).await.expect(&case);
    }
}
