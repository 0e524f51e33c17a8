//! Every misdeed at every step, in plaintext, over STARTTLS and over TLS.

use std::sync::Arc;

use breakglass_mailer::core::job::AttemptOutcome::Delivered;
use breakglass_mailer::core::notification::Content;
use breakglass_mailer::core::outcome::Stage;
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};
use futures_util::{StreamExt, stream};

use super::misdeeds::{Sense, Step, misdeeds};
use super::{hurried, job, provider};
use crate::support::smtp::{Action, Mode, Script, SmtpServer};
use crate::support::wait::LIMIT;

/// More than a peer gets rid of into the buffers of the kernel.
const FLOOD_BYTES_MAX: usize = 32 << 20;
/// What must not be heard where there was no step for it: `\0mailer\0correct horse` and its parts as
/// AUTH writes them, and a word of the message.
const LOGIN: &str = "AG1haWxlcgBjb3JyZWN0IGhvcnNl";
const USERNAME: &str = "bWFpbGVy";
const PASSWORD: &str = "Y29ycmVjdCBob3JzZQ==";
const CONTENT: &str = "nobody else may read this";

struct Row {
    mode: Mode,
    is_pipelined: bool,
    step: Step,
    sense: Sense,
    action: Action,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misdeed_has_its_outcome_and_harms_no_later_message_in_plaintext() {
    hold(Mode::Plain, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misdeed_has_its_outcome_and_harms_no_later_message_where_commands_go_out_together() {
    hold(Mode::Plain, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misdeed_has_its_outcome_and_harms_no_later_message_over_starttls() {
    hold(Mode::StartTls, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_misdeed_has_its_outcome_and_harms_no_later_message_over_tls() {
    hold(Mode::Tls, false).await;
}

async fn hold(mode: Mode, is_pipelined: bool) {
    // Before MAIL nothing is different.
    let steps = Step::of(mode).into_iter().filter(|step| !is_pipelined || Step::Mail <= *step);
    let rows = steps.flat_map(|step| {
        let row = move |(sense, action)| Row { mode, is_pipelined, step, sense, action };
        misdeeds(step, mode).into_iter().map(row)
    });
    // Those that wait for a deadline are few at a time, so that they are late for no other reason.
    let (silent, swift): (Vec<_>, Vec<_>) = rows.partition(|row| row.sense == Sense::Silence);
    let rows_count = silent.len() + swift.len();
    let hold = async |rows: Vec<Row>, timeouts: Timeouts| {
        let each =
            stream::iter(rows).map(|row| tokio::spawn(async move { row.hold(timeouts).await }));
        let held: Vec<_> = each.buffer_unordered(16).collect().await;
        held.into_iter().filter_map(|held| held.expect("no panic").err()).collect::<Vec<_>>()
    };
    let mut wrong = hold(silent, hurried()).await;
    wrong.extend(hold(swift, Timeouts::default()).await);
    assert!(wrong.is_empty(), "{} of {rows_count}:\n{}", wrong.len(), wrong.join("\n"));
}

impl Row {
    async fn hold(self, timeouts: Timeouts) -> Result<(), String> {
        let shown =
            format!("{:?} {:?} {:?} {:.80}", self.mode, self.step, self.sense, show(&self.action));
        let wrong = |what: String| Err(format!("{shown}: {what}"));
        let script = self.step.script(self.mode, self.action.clone());
        let server = SmtpServer::start(self.offering(script)).await;
        let provider = Arc::new(provider(&server, self.mode));
        let transport = SmtpTransport::new(timeouts);
        let content = Content {
            subject: "Breakglass".into(),
            html: None,
            text: Some(CONTENT.into()),
            reply_to: None,
        };
        let job = job("ada@example.com");
        let sent = tokio::time::timeout(LIMIT, transport.send(&provider, &job, &content)).await;
        let Ok(outcome) = sent else { return wrong("it holds its worker".into()) };

        let kind = self.sense.outcome(self.step);
        if outcome.kind() != kind {
            return wrong(format!("not {kind:?} but {outcome:?}"));
        }
        if let Some(failure) = outcome.failure() {
            // What came unasked is found at the next step, and an early end while connecting; a reset
            // takes back the replies to earlier commands that were not read yet.
            let is_reset = matches!(self.action, Action::Reset(_));
            let may_be_elsewhere = self.sense == Sense::TalksOn
                || (self.sense == Sense::Gone && failure.stage == Stage::Connect)
                || (self.is_pipelined && is_reset && is_command(failure.stage));
            if failure.stage != self.step.stage() && !may_be_elsewhere {
                return wrong(format!("it is said to be {:?}", failure.stage));
            }
            if failure.detail.len() > 600
                || !failure.detail.bytes().all(|b| (b' '..=b'~').contains(&b))
            {
                return wrong(format!("it says {:?}", failure.detail));
            }
        }
        let seen = server.seen();
        let copies = seen.accepted.len();
        let may_be_taken = self.step == Step::Dot;
        if copies > 1 || (kind == Delivered) != (copies == 1) && !may_be_taken {
            return wrong(format!("{copies} copies"));
        }
        if seen.flood_bytes > FLOOD_BYTES_MAX {
            return wrong(format!("it read on and on, {} bytes", seen.flood_bytes));
        }
        if let Some(word) = self.leaked(&server, kind == Delivered) {
            return wrong(format!("{word:?} was heard"));
        }

        server.follow(self.offering(Script::new(self.mode)));
        let next = transport.send(&provider, &job, &content).await;
        if next.kind() != Delivered {
            return wrong(format!("the next message: {next:?}"));
        }
        let (was_kept, keeps) =
            (server.seen().connections_count == 1, self.sense.keeps_connection(self.step));
        if was_kept != keeps {
            return wrong(format!("the connection was{} kept", if was_kept { "" } else { " not" }));
        }
        Ok(())
    }

    fn offering(&self, script: Script) -> Script {
        if self.is_pipelined { script.pipelining() } else { script }
    }

    /// A secret that was heard without TLS, or before its step.
    fn leaked(&self, server: &SmtpServer, is_delivered: bool) -> Option<&'static str> {
        let heard = server.take_heard();
        let holds = |bytes: &[u8], word: &&str| {
            bytes.windows(word.len()).any(|window| window == word.as_bytes())
        };
        let all = [LOGIN, USERNAME, PASSWORD, CONTENT];
        let in_plaintext = if self.mode == Mode::Plain { &all[..3] } else { &all[..] };
        let mut early = Vec::new();
        if !is_delivered {
            early.extend((self.step < Step::Plain).then_some(LOGIN));
            early.extend((self.step <= Step::Login).then_some(USERNAME));
            early.extend((self.step <= Step::Username).then_some(PASSWORD));
            // Upon a 354 a message begins, whatever stands behind it.
            let has_begun = self.step == Step::Data && self.sense == Sense::TalksOn;
            early.extend((self.step <= Step::Data && !has_begun).then_some(CONTENT));
        }
        let found = in_plaintext.iter().copied().find(|word| holds(&heard.plaintext, word));
        let whole = [heard.plaintext, heard.encrypted].concat();
        found.or_else(|| early.into_iter().find(|word| holds(&whole, word)))
    }
}

fn is_command(stage: Stage) -> bool {
    matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Data)
}

fn show(action: &Action) -> String {
    match action {
        Action::Say(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}"),
    }
}
