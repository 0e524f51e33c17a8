//! What must come of peers that refuse, hang, lie or disappear.

use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::AttemptOutcome::{
    self, Deferred, Delivered, Rejected, Unreachable,
};
use breakglass_mailer::core::outcome::{Cause, Outcome, Stage};
use breakglass_mailer::core::provider::{CertificateAuthority, Login, Password, Security};
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};

use super::{content, hurried, job, provider, send_once};
use crate::support::smtp::{Action, Certificate, Mode, Script, SmtpServer, Verb, say};

fn close() -> Action {
    Action::Close(Vec::new())
}

fn reset() -> Action {
    Action::Reset(Vec::new())
}

/// The kind, cause and sentence of an attempt.
fn told(outcome: &Outcome) -> (AttemptOutcome, Cause, &str) {
    let failure = outcome.failure().expect("a failure");
    (outcome.kind(), failure.cause, &failure.detail)
}

#[tokio::test]
async fn a_peer_that_fails_before_mail_is_unreachable_and_gets_neither_login_nor_mail() {
    let starttls = |action| Script::starttls().on(Verb::StartTls, action);
    let shows = |certificate| Script::starttls().certificate(certificate);
    let injected =
        b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 ok\r\n\
        250 queued by an attacker\r\n";
    let stripped = "250-fake\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME";
    let greets = |action| Script::plain().on(Verb::Greeting, action);
    let table = [
        (Mode::Plain, greets(say("554 5.7.1 go away")), Cause::Protocol, "554 5.7.1 go away"),
        (Mode::Plain, greets(say("421 busy")), Cause::Protocol, "421 busy"),
        (Mode::Plain, greets(close()), Cause::ConnectionRefused, "without a greeting"),
        (Mode::Plain, greets(reset()), Cause::ConnectionRefused, "without a greeting"),
        (Mode::Plain, greets(say("SSH-2.0-OpenSSH")), Cause::Protocol, "not SMTP"),
        (Mode::Plain, greets(Action::Flood(b"2".to_vec(), 64 << 20)), Cause::Protocol, "too long"),
        (
            Mode::Plain,
            Script::plain().on(Verb::Ehlo, say("421 4.7.0 rate")),
            Cause::Protocol,
            "EHLO",
        ),
        (Mode::Plain, Script::plain().on(Verb::Ehlo, say("550 no")), Cause::Protocol, "EHLO"),
        (Mode::StartTls, Script::starttls().on(Verb::Ehlo, say(stripped)), Cause::Tls, "STARTTLS"),
        (Mode::StartTls, starttls(say("454 not now")), Cause::Tls, "STARTTLS"),
        (Mode::StartTls, starttls(close()), Cause::Tls, "STARTTLS"),
        (Mode::StartTls, starttls(Action::Say(injected.to_vec())), Cause::Protocol, "STARTTLS"),
        (Mode::StartTls, shows(Certificate::Expired), Cause::Tls, "expired"),
        (Mode::StartTls, shows(Certificate::UnknownCa), Cause::Tls, "unknown authority"),
        (Mode::StartTls, shows(Certificate::WrongName), Cause::Tls, "another host name"),
        (Mode::Tls, Script::plain(), Cause::Tls, "TLS"),
    ];
    for (mode, script, cause, words) in table {
        let (outcome, seen) = send_once(mode, script, hurried()).await;
        let (kind, shown_cause, detail) = told(&outcome);
        assert_eq!((kind, shown_cause), (Unreachable, cause), "{detail}");
        assert!(detail.contains(words), "{detail}");
        assert_eq!((seen.count(Verb::Auth), seen.count(Verb::Data)), (0, 0), "{detail}");
        assert_eq!(seen.accepted.len(), 0, "{detail}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_or_not_offered_is_unreachable() {
    for action in [say("535 5.7.8 bad credentials"), say("454 4.7.0 later"), say("334 more?")] {
        let script = Script::starttls().on(Verb::Auth, action);
        let (outcome, seen) = send_once(Mode::StartTls, script, hurried()).await;
        assert_eq!(outcome.kind(), Unreachable);
        assert_eq!((seen.count(Verb::Auth), seen.count(Verb::Mail)), (1, 0));
    }
    let script = Script::tls().on(Verb::Ehlo, say("250-fake\r\n250 AUTH CRAM-MD5"));
    let (outcome, seen) = send_once(Mode::Tls, script, hurried()).await;
    assert_eq!(told(&outcome).1, Cause::AuthFailed);
    assert_eq!(seen.count(Verb::Auth), 0);
}

#[tokio::test]
async fn a_peer_that_never_answers_is_left_at_the_deadline() {
    let drip = Action::Drip(b"2".to_vec(), Duration::from_millis(20));
    let plain = |verb, action| (Mode::Plain, Script::plain().on(verb, action));
    let no_handshake = Script::tls().certificate(Certificate::Hang);
    let table = [
        (plain(Verb::Greeting, Action::Hang), Unreachable, "no greeting within 2s"),
        (plain(Verb::Greeting, drip), Unreachable, "no greeting within 2s"),
        (plain(Verb::Ehlo, Action::Hang), Unreachable, "did not answer EHLO within 2s"),
        ((Mode::Tls, no_handshake), Unreachable, "did not agree on TLS within 2s"),
        (
            (Mode::StartTls, Script::starttls().on(Verb::Auth, Action::Hang)),
            Unreachable,
            "did not answer AUTH within 2s",
        ),
        (plain(Verb::Mail, Action::Hang), Unreachable, "did not answer MAIL within 2s"),
        (plain(Verb::Rcpt, Action::Hang), Unreachable, "did not answer RCPT within 2s"),
        (plain(Verb::Data, Action::Hang), Unreachable, "did not answer DATA within 2s"),
        (plain(Verb::Dot, Action::Hang), Deferred, "did not answer the end of the message"),
    ];
    let attempts = table.map(|((mode, script), kind, words)| async move {
        let (outcome, seen) = send_once(mode, script, hurried()).await;
        let (shown, cause, detail) = told(&outcome);
        assert_eq!((shown, cause), (kind, Cause::ConnectionTimeout), "{detail}");
        assert!(detail.contains(words), "{detail}");
        assert_eq!(seen.accepted.len(), 0, "{detail}");
    });
    futures_util::future::join_all(attempts).await;
}

#[tokio::test]
async fn a_refusal_within_the_transaction_is_about_the_message() {
    let loud = format!("550 5.7.1 \x1b[2J\x1b]0;pwn\x07{}", "A".repeat(900));
    let latin1 = Action::Say(b"550 5.7.1 geht nicht f\xfcr\r\n".to_vec());
    let table = [
        (Verb::Mail, say("421 4.3.2 shutting down"), Unreachable, 0),
        (Verb::Mail, say("530 5.7.0 authentication required"), Unreachable, 0),
        (Verb::Mail, say("451 4.3.0 later"), Deferred, 0),
        (Verb::Mail, say("550 5.7.1 sender not allowed"), Rejected, 0),
        (Verb::Mail, say("552 5.3.4 too big"), Rejected, 0),
        (Verb::Mail, latin1, Rejected, 0),
        (Verb::Mail, reset(), Deferred, 0),
        (Verb::Mail, say("gibberish"), Deferred, 0),
        (Verb::Rcpt, say("550 5.1.1 no such user"), Rejected, 0),
        (Verb::Rcpt, say("550 5.7.1 relaying denied"), Rejected, 0),
        (Verb::Rcpt, say("450 4.2.1 later"), Deferred, 0),
        (Verb::Rcpt, say("421 4.3.2 shutting down"), Unreachable, 0),
        (Verb::Rcpt, reset(), Deferred, 0),
        (Verb::Rcpt, close(), Deferred, 0),
        (Verb::Data, say("451 4.3.0 later"), Deferred, 1),
        (Verb::Data, say("250 ok"), Deferred, 1),
        (Verb::Data, say("554 5.5.1 no"), Rejected, 1),
        (Verb::Data, Action::ResetInBody(10), Deferred, 1),
        (Verb::Dot, say("354 more"), Deferred, 1),
        (Verb::Dot, say("452 4.3.1 insufficient system storage"), Deferred, 1),
        (Verb::Dot, say("421 4.3.2 shutting down"), Deferred, 1),
        (Verb::Dot, say("550 5.7.1 <script>alert(1)</script>"), Rejected, 1),
        (Verb::Dot, say(&loud), Rejected, 1),
        (Verb::Dot, close(), Deferred, 1),
    ];
    for (verb, action, kind, datas_count) in table {
        let case = format!("{verb:?} {action:?}");
        let script = Script::plain().on(verb, action);
        let (outcome, seen) = send_once(Mode::Plain, script, hurried()).await;
        let (shown, _, detail) = told(&outcome);
        assert_eq!(shown, kind, "{case}: {detail}");
        assert_eq!((seen.accepted.len(), seen.count(Verb::Data)), (0, datas_count), "{case}");
        assert!(detail.bytes().all(|b| matches!(b, b' '..=b'~')), "{case}");
        assert!(detail.len() < 600, "{case}");
    }
}

#[tokio::test]
async fn a_two_hundred_to_the_dot_is_delivered_whatever_its_form_and_whatever_follows() {
    let dot = |action| Script::plain().on(Verb::Dot, action);
    let table = [
        Script::plain(),
        dot(say("250")),
        dot(say("250 ")),
        dot(say("250-2.0.0 queued\r\n250 2.0.0 as 1")),
        dot(say("250 queued\r\n421 4.3.2 bye")),
        dot(Action::Reset(b"250 queued\r\n".to_vec())),
        dot(Action::Close(b"250 queued\r\n".to_vec())),
        Script::plain().on(Verb::Mail, say("260 ok")),
        Script::plain().on(Verb::Ehlo, say("250-\r\n250-   \r\n250 ")),
        Script::plain().on(Verb::Greeting, say("220")),
    ];
    for script in table {
        let (outcome, seen) = send_once(Mode::Plain, script, hurried()).await;
        assert_eq!((outcome.kind(), seen.accepted.len()), (Delivered, 1), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_copy_taken_without_an_answer_has_the_message_id_of_the_next() {
    let hangs = Script::plain().taking_before_reply().on(Verb::Dot, Action::Hang);
    let server = SmtpServer::start(hangs).await;
    let provider = Arc::new(provider(&server, Mode::Plain));
    let transport = SmtpTransport::new(hurried());
    let (job, content) = (job("ada@example.com"), content());
    let first = transport.send(&provider, &job, &content).await;
    assert_eq!(first.kind(), Deferred);
    server.follow(Script::plain());
    assert_eq!(transport.send(&provider, &job, &content).await.kind(), Delivered);
    let accepted = server.accepted();
    assert_eq!(accepted.len(), 2);
    assert_eq!(accepted[0].bytes, accepted[1].bytes);
    assert_eq!(accepted[0].message_id, format!("<{}@breakglass-mailer>", job.id));
}

#[tokio::test]
async fn neither_a_port_without_server_nor_a_name_without_address_is_reached() {
    let mut server = SmtpServer::start(Script::plain()).await;
    server.refuse().await;
    let mut provider = provider(&server, Mode::Plain);
    let transport = SmtpTransport::new(hurried());
    let refused =
        transport.send(&Arc::new(provider.clone()), &job("ada@example.com"), &content()).await;
    assert_eq!(told(&refused), (Unreachable, Cause::ConnectionRefused, "connection refused"));
    provider.smtp.host = "no-such-host.invalid".into();
    let unknown = transport.send(&Arc::new(provider), &job("ada@example.com"), &content()).await;
    assert_eq!(told(&unknown).1, Cause::Dns);
}

#[tokio::test]
async fn a_provider_without_its_password_or_with_an_unreadable_ca_is_not_dialled() {
    let server = SmtpServer::start(Script::starttls()).await;
    let transport = SmtpTransport::new(Timeouts::default());
    let mut no_password = provider(&server, Mode::StartTls);
    if let Some(credentials) = &mut no_password.smtp.credentials {
        credentials.login = Login::Password(Password::SecretNotFound("default/smtp".into()));
    }
    let outcome = transport.send(&Arc::new(no_password), &job("ada@example.com"), &content()).await;
    let failure = outcome.failure().expect("a failure");
    assert_eq!((failure.cause, failure.stage), (Cause::PasswordUnavailable, Stage::Prepare));
    assert_eq!(server.seen().connections_count, 0);

    // Not even where no certificate would be looked at.
    for security in [Security::StartTls, Security::Opportunistic, Security::Plaintext] {
        let mut bad_ca = provider(&server, Mode::Plain);
        bad_ca.smtp.security = security;
        bad_ca.smtp.certificate_authority = Some(CertificateAuthority::Unreadable);
        let outcome = transport.send(&Arc::new(bad_ca), &job("ada@example.com"), &content()).await;
        assert_eq!((outcome.kind(), told(&outcome).1), (Unreachable, Cause::Tls));
        assert_eq!(server.seen().connections_count, 0);
    }
}

#[tokio::test]
async fn a_relay_that_breaks_tls_is_not_spoken_to_in_plaintext() {
    let server = SmtpServer::start(Script::starttls().certificate(Certificate::UnknownCa)).await;
    let mut relay = provider(&server, Mode::StartTls);
    relay.smtp.security = Security::Opportunistic;
    relay.smtp.credentials = None;
    let transport = SmtpTransport::new(hurried());
    let outcome = transport.send(&Arc::new(relay), &job("ada@example.com"), &content()).await;
    assert_eq!(told(&outcome).1, Cause::Tls);
    assert_eq!(server.seen().count(Verb::Mail), 0);
}

#[tokio::test]
async fn an_echo_of_recipient_or_password_is_not_repeated() {
    let rcpt = say("550 5.1.1 <Ada@example.com>: correct horse Y29ycmVjdCBob3JzZQ== unknown");
    let login = "250-fake\r\n250 AUTH LOGIN";
    let script = Script::tls().on(Verb::Rcpt, rcpt).on(Verb::Ehlo, say(login));
    let (outcome, _) = send_once(Mode::Tls, script, hurried()).await;
    let (_, _, detail) = told(&outcome);
    let shown = "550 5.1.1 <<recipient>>: <password> <credentials> unknown";
    assert_eq!(detail, format!("the server refused the recipient: {shown}"));
}
