//! Servers that take several commands at once (RFC 2920).

use std::sync::Arc;

use breakglass_mailer::core::job::AttemptOutcome::{Delivered, Rejected};
use breakglass_mailer::core::outcome::{Outcome, Stage};
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};

use super::{content, job, provider};
use crate::support::smtp::{Action, Mode, Script, SmtpServer, Verb, say};

/// A server and the transport that speaks to it.
struct Line {
    server: SmtpServer,
    transport: SmtpTransport,
}

impl Line {
    async fn to(script: Script) -> Self {
        let server = SmtpServer::start(script.pipelining()).await;
        Self { server, transport: SmtpTransport::new(Timeouts::default()) }
    }

    async fn send(&self) -> Outcome {
        let provider = Arc::new(provider(&self.server, Mode::Plain));
        self.transport.send(&provider, &job("ada@example.com"), &content()).await
    }

    /// What was said outside of messages, after EHLO, by the first word.
    fn words(&self) -> Vec<String> {
        let seen = self.server.seen();
        let words = seen.lines.iter().map(|line| line.split([' ', ':']).next().unwrap_or_default());
        words.filter(|word| *word != "EHLO").map(str::to_owned).collect()
    }

    fn counts(&self) -> (usize, usize) {
        let seen = self.server.seen();
        (seen.connections_count, seen.accepted.len())
    }
}

#[tokio::test]
async fn mail_rcpt_and_data_go_out_before_the_first_of_them_is_answered() {
    let silent = Action::Say(Vec::new());
    let script = Script::plain()
        .on(Verb::Mail, silent.clone())
        .on(Verb::Rcpt, silent)
        .on(Verb::Data, say("250 2.1.0 ok\r\n250 2.1.5 ok\r\n554 5.3.0 not today"));
    let line = Line::to(script).await;
    let outcome = line.send().await;
    assert_eq!(outcome.failure().map(|failure| failure.stage), Some(Stage::Data), "{outcome:?}");
    assert_eq!(line.words(), ["MAIL", "RCPT", "DATA"]);
}

#[tokio::test]
async fn messages_go_out_over_one_connection() {
    let line = Line::to(Script::plain()).await;
    for sent_count in 1..=3 {
        let outcome = line.send().await;
        assert_eq!(outcome.kind(), Delivered, "{outcome:?}");
        assert_eq!(line.counts(), (1, sent_count));
    }
    assert_eq!(line.words(), ["MAIL", "RCPT", "DATA"].repeat(3));
    let bytes = &line.server.accepted()[2].bytes;
    assert!(String::from_utf8_lossy(bytes).contains("first\r\n.\r\n..\r\nlast"));
}

#[tokio::test]
async fn a_refused_recipient_decides_and_no_message_follows_whatever_data_is_answered() {
    let refused = Script::reply_to_rcpt(550, "5.1.1 no such user");
    let rightly = refused.clone();
    // RFC 2920 3.1 allows it; an empty message would be taken for one.
    let all_the_same = refused.on(Verb::Data, say("354 go ahead"));
    for (script, connections_count) in [(rightly, 1), (all_the_same, 2)] {
        let line = Line::to(script).await;
        let outcome = line.send().await;
        assert_eq!(outcome.kind(), Rejected);
        let failure = outcome.failure().expect("a failure");
        assert_eq!(failure.stage, Stage::Rcpt);
        assert_eq!(failure.reply.as_ref().map(|reply| reply.code), Some(550));
        assert_eq!(line.counts(), (1, 0));

        line.server.follow(Script::plain().pipelining());
        assert_eq!(line.send().await.kind(), Delivered);
        assert_eq!(line.counts(), (connections_count, 1));
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_gone_is_replaced_and_nothing_is_sent_twice() {
    let line = Line::to(Script::plain().on_nth(Verb::Mail, 2, Action::Close(Vec::new()))).await;
    assert_eq!(line.send().await.kind(), Delivered);
    assert_eq!(line.send().await.kind(), Delivered);
    assert_eq!(line.counts(), (2, 2));
}
