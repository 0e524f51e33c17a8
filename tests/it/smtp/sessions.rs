//! How connections are made, kept, used again and closed.

use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::AttemptOutcome::{Delivered, Rejected, Unreachable};
use breakglass_mailer::core::outcome::{Cause, Outcome};
use breakglass_mailer::core::provider::{Provider, Security};
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};

use super::{content, hurried, job, provider, send_once};
use crate::support::smtp::{Action, Certificate, Mode, Script, SmtpServer, Verb, say};

/// A server, a transport and a provider that keep what they have from one send to the next.
struct Line {
    server: SmtpServer,
    transport: SmtpTransport,
    provider: Arc<Provider>,
}

impl Line {
    async fn to(mode: Mode, script: Script) -> Self {
        let server = SmtpServer::start(script).await;
        let provider = Arc::new(provider(&server, mode));
        Self { server, transport: SmtpTransport::new(hurried()), provider }
    }

    async fn send(&self) -> Outcome {
        self.transport.send(&self.provider, &job("ada@example.com"), &content()).await
    }

    /// Connections made and messages taken.
    fn counts(&self) -> (usize, usize) {
        let seen = self.server.seen();
        (seen.connections_count, seen.accepted.len())
    }
}

#[tokio::test]
async fn a_message_arrives_as_it_was_written_over_every_kind_of_connection() {
    for mode in [Mode::Plain, Mode::StartTls, Mode::Tls] {
        let (outcome, seen) = send_once(mode, Script::new(mode), hurried()).await;
        assert_eq!(outcome.kind(), Delivered, "{mode:?}: {outcome:?}");
        let [accepted] = &seen.accepted[..] else { panic!("one message, not {seen:?}") };
        assert_eq!(accepted.sender, "alerts@example.com");
        assert_eq!(accepted.recipients, ["ada@example.com"]);
        assert_eq!(accepted.is_encrypted, mode != Mode::Plain);
        let text = String::from_utf8_lossy(&accepted.bytes);
        assert!(text.ends_with("\r\n\r\nfirst\r\n.\r\n..\r\nlast\r\n"), "{text}");
        assert_eq!(seen.count(Verb::Auth), usize::from(mode != Mode::Plain));
    }
}

#[tokio::test]
async fn a_relay_gets_tls_when_it_offers_it_and_plaintext_when_not() {
    for (script, is_encrypted) in [(Script::starttls(), true), (Script::plain(), false)] {
        let server = SmtpServer::start(script).await;
        let mut relay = provider(&server, Mode::Plain);
        relay.smtp.security = Security::Opportunistic;
        let transport = SmtpTransport::new(hurried());
        let outcome = transport.send(&Arc::new(relay), &job("ada@example.com"), &content()).await;
        assert_eq!(outcome.kind(), Delivered, "{outcome:?}");
        assert_eq!(server.accepted()[0].is_encrypted, is_encrypted);
    }
}

#[tokio::test]
async fn any_certificate_will_do_when_verification_is_skipped_on_purpose() {
    for certificate in [Certificate::Expired, Certificate::UnknownCa, Certificate::WrongName] {
        let server = SmtpServer::start(Script::tls().certificate(certificate)).await;
        let mut provider = provider(&server, Mode::Tls);
        provider.smtp.insecure_skip_verify = true;
        let transport = SmtpTransport::new(hurried());
        let outcome =
            transport.send(&Arc::new(provider), &job("ada@example.com"), &content()).await;
        assert_eq!(outcome.kind(), Delivered, "{outcome:?}");
    }
}

#[tokio::test]
async fn the_login_uses_the_mechanism_that_is_offered_in_plaintext_only_when_tls_is_disabled() {
    let server =
        SmtpServer::start(Script::plain().on(Verb::Ehlo, say("250-fake\r\n250 AUTH login"))).await;
    let mut disabled_tls = provider(&server, Mode::StartTls);
    disabled_tls.smtp.security = Security::Plaintext;
    let transport = SmtpTransport::new(hurried());
    let outcome =
        transport.send(&Arc::new(disabled_tls), &job("ada@example.com"), &content()).await;
    assert_eq!(outcome.kind(), Delivered, "{outcome:?}");
    let lines = server.seen().lines;
    let login = lines.iter().position(|line| line == "AUTH LOGIN").expect("a login");
    assert_eq!(lines[login + 1..login + 3], ["bWFpbGVy", "Y29ycmVjdCBob3JzZQ=="]);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let line = Line::to(Mode::StartTls, Script::starttls()).await;
    for _ in 0..3 {
        assert_eq!(line.send().await.kind(), Delivered);
    }
    assert_eq!(line.counts(), (1, 3));
    assert_eq!(line.server.seen().count(Verb::Auth), 1);
}

#[tokio::test]
async fn a_connection_carries_a_hundred_messages_and_says_goodbye() {
    let line = Line::to(Mode::Plain, Script::plain()).await;
    for _ in 0..101 {
        assert_eq!(line.send().await.kind(), Delivered);
    }
    assert_eq!(line.counts(), (2, 101));
    line.server.wait_until(|seen| seen.count(Verb::Quit) == 1).await;
}

#[tokio::test]
async fn a_connection_that_said_more_than_it_was_asked_is_not_used_again() {
    let talks = Script::plain().on(Verb::Dot, say("250 queued\r\n421 4.3.2 bye"));
    let line = Line::to(Mode::Plain, talks).await;
    for _ in 0..2 {
        assert_eq!(line.send().await.kind(), Delivered);
    }
    assert_eq!(line.counts(), (2, 2));
}

#[tokio::test]
async fn a_refused_recipient_leaves_the_connection_good_for_the_next_after_a_reset() {
    let line = Line::to(Mode::Plain, Script::reply_to_rcpt(550, "5.1.1 no such user")).await;
    assert_eq!(line.send().await.kind(), Rejected);
    line.server.follow(Script::plain());
    assert_eq!(line.send().await.kind(), Delivered);
    assert_eq!(line.counts(), (1, 1));
    assert_eq!(line.server.seen().count(Verb::Rset), 1);
}

#[tokio::test]
async fn one_refused_recipient_holds_up_no_other() {
    let refuses_bob = say("550 5.1.1 no such user");
    let script = Script::plain().on_line(Verb::Rcpt, "bob@", refuses_bob);
    let line = Line::to(Mode::Plain, script).await;
    let mut kinds = Vec::new();
    for recipient in ["ada@example.com", "bob@example.com", "cyd@example.com"] {
        let outcome = line.transport.send(&line.provider, &job(recipient), &content()).await;
        kinds.push(outcome.kind());
    }
    assert_eq!(kinds, [Delivered, Rejected, Delivered]);
    assert_eq!(line.counts(), (1, 2));
}

#[tokio::test]
async fn a_slow_answer_to_the_final_dot_is_waited_for() {
    let slow = Action::Delay(Duration::from_millis(300), b"250 queued\r\n".to_vec());
    let line = Line::to(Mode::Plain, Script::plain().on(Verb::Dot, slow)).await;
    assert_eq!(line.send().await.kind(), Delivered);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_within_the_attempt_and_only_once() {
    let stale = [
        (Script::plain().on(Verb::Dot, Action::Close(b"250 queued\r\n".to_vec())), 2),
        (Script::plain().on_nth(Verb::Mail, 2, say("421 4.4.2 idle too long")), 2),
        (Script::plain().on_nth(Verb::Mail, 2, Action::Close(Vec::new())), 2),
        (Script::plain().on_nth(Verb::Mail, 2, Action::Reset(Vec::new())), 2),
    ];
    for (script, connections_count) in stale {
        let line = Line::to(Mode::Plain, script).await;
        for _ in 0..2 {
            let outcome = line.send().await;
            assert_eq!(outcome.kind(), Delivered, "{outcome:?}");
        }
        assert_eq!(line.counts(), (connections_count, 2));
    }
    let line = Line::to(Mode::Plain, Script::plain()).await;
    assert_eq!(line.send().await.kind(), Delivered);
    line.server.follow(Script::plain().on(Verb::Mail, say("421 4.3.2 shutting down")));
    assert_eq!(line.send().await.kind(), Unreachable);
    assert_eq!(line.counts(), (2, 1));
}

#[tokio::test]
async fn a_reused_connection_lost_after_mail_was_accepted_is_not_replaced() {
    let line = Line::to(Mode::Plain, Script::plain()).await;
    assert_eq!(line.send().await.kind(), Delivered);
    line.server.follow(Script::plain().on(Verb::Dot, Action::Close(Vec::new())));
    assert!(matches!(line.send().await, Outcome::Deferred(_)));
    assert_eq!(line.counts(), (1, 1));
}

#[tokio::test]
async fn changed_settings_get_a_new_connection() {
    let mut line = Line::to(Mode::Tls, Script::tls()).await;
    assert_eq!(line.send().await.kind(), Delivered);
    let mut changed = (*line.provider).clone();
    if let Some(credentials) = &mut changed.smtp.credentials {
        credentials.username = "someone else".into();
    }
    line.provider = Arc::new(changed);
    assert_eq!(line.send().await.kind(), Delivered);
    assert_eq!(line.counts(), (2, 2));
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_quit() {
    let mut line = Line::to(Mode::Plain, Script::plain()).await;
    let idle = Duration::from_millis(50);
    line.transport = SmtpTransport::new(Timeouts { idle, ..hurried() });
    assert_eq!(line.send().await.kind(), Delivered);
    let seen = line.server.wait_until(|seen| seen.open_count == 0).await;
    assert_eq!(seen.count(Verb::Quit), 1);
}

#[tokio::test]
async fn a_send_that_is_dropped_closes_its_connection() {
    let script = Script::plain().on(Verb::Dot, Action::Hang);
    let line = Line::to(Mode::Plain, script).await;
    tokio::select! {
        outcome = line.send() => panic!("the server never answers, but: {outcome:?}"),
        _ = line.server.wait_until(|seen| seen.count(Verb::Dot) == 1) => {}
    }
    line.server.wait_until(|seen| seen.open_count == 0).await;
}

#[tokio::test]
async fn an_address_that_is_not_ascii_needs_smtputf8_and_a_domain_does_not() {
    let no_utf8 = Script::plain().on(Verb::Ehlo, say("250 fake"));
    let line = Line::to(Mode::Plain, no_utf8).await;
    let (greta, info, content) = (job("грета@example.com"), job("info@пример.рф"), content());
    let refused = line.transport.send(&line.provider, &greta, &content).await;
    assert_eq!((refused.kind(), line.server.seen().count(Verb::Mail)), (Rejected, 0));
    let sent = line.transport.send(&line.provider, &info, &content).await;
    assert_eq!(sent.kind(), Delivered, "{sent:?}");
    assert_eq!(line.server.accepted()[0].recipients, ["info@xn--e1afmkfd.xn--p1ai"]);

    let line = Line::to(Mode::Plain, Script::plain()).await;
    let sent = line.transport.send(&line.provider, &greta, &content).await;
    assert_eq!(sent.kind(), Delivered, "{sent:?}");
    let seen = line.server.seen();
    assert!(seen.lines.iter().any(|l| l.starts_with("MAIL") && l.ends_with("8BITMIME SMTPUTF8")));
    assert_eq!(seen.accepted[0].recipients, ["грета@example.com"]);
}

#[tokio::test]
async fn a_probe_logs_in_says_noop_and_quit_and_sends_nothing() {
    let line = Line::to(Mode::StartTls, Script::starttls()).await;
    line.transport.probe(&line.provider).await.expect("a good server");
    let seen = line.server.seen();
    let counts = [Verb::Auth, Verb::Noop, Verb::Quit, Verb::Mail].map(|verb| seen.count(verb));
    assert_eq!(counts, [1, 1, 1, 0]);
}

#[tokio::test]
async fn a_probe_names_what_is_wrong() {
    let probe = async |script: Script| {
        let line = Line::to(Mode::StartTls, script).await;
        line.transport.probe(&line.provider).await.expect_err("a bad server")
    };
    let hangs = probe(Script::starttls().on(Verb::Auth, Action::Hang)).await;
    assert_eq!(hangs.cause, Cause::ConnectionTimeout);
    assert_eq!(hangs.detail, "the server did not answer AUTH within 2s");
    let refuses = probe(Script::starttls().on(Verb::Auth, say("535 5.7.8 no"))).await;
    assert_eq!(refuses.cause, Cause::LoginRefused);
    assert_eq!(refuses.detail, "the server refused the login: 535 5.7.8 no");
}
