//! What an SMTP dialogue came to: from (stage, what ended it) to an [`Outcome`].
//!
//! A quota that is used up is the provider's, whatever the stage and the code. Of the rest, before MAIL
//! everything is the provider's fault. From MAIL on a 5yz is about the message, a 4yz or a lost connection
//! puts it off, and a 421 or a silence is the provider again, except to the final dot: there the message
//! may have been taken, so it must not look as if nothing had been tried.

use std::time::Duration;

use super::transcript::Fault;
use crate::core::outcome::{Cause, Failure, Outcome, Reply, Stage, Wording};

/// What ended an attempt before its message was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A reply other than the one that goes on.
    Reply(Reply),
    /// The guard ended the connection.
    Fault(Fault),
    /// No whole reply within this time.
    Timeout(Duration),
    /// An address needs SMTPUTF8 (RFC 6531), which the server does not offer.
    NoSmtpUtf8(Whose),
    /// Anything else, with its sentence; only before MAIL.
    Other(Cause, String),
}

/// Whose address is not ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The provider's: every message would fail, so the provider is at fault.
    Sender,
    /// The job's.
    Recipient,
    /// The content's.
    ReplyTo,
}

/// The outcome of an attempt that ended at `stage`.
pub(super) fn classify(stage: Stage, end: End) -> Outcome {
    if let End::Reply(reply) = &end
        && let Some(quota) = reply.quota()
    {
        return Outcome::Held(quota, failure(stage, end));
    }
    let outcome: fn(Failure) -> Outcome = match (is_transaction(stage), &end) {
        (false, _) | (_, End::NoSmtpUtf8(Whose::Sender)) => Outcome::Unreachable,
        (true, End::Reply(reply)) if is_about_provider(stage, reply) => Outcome::Unreachable,
        // A server that says nothing says nothing of the message; after the dot it may have it.
        (true, End::Timeout(_)) if stage != Stage::Dot => Outcome::Unreachable,
        // Found before MAIL goes out: no transaction has begun.
        (true, End::Fault(Fault::Unasked)) if stage == Stage::Mail => Outcome::Unreachable,
        (true, End::Reply(reply)) if is_rejection(stage, reply) => Outcome::Rejected,
        (true, End::NoSmtpUtf8(_)) => Outcome::Rejected,
        (true, _) => Outcome::Deferred,
    };
    outcome(failure(stage, end))
}

/// The same as a failure, for whom the kind of outcome does not matter.
pub(super) fn failure(stage: Stage, end: End) -> Failure {
    let (cause, detail) = (cause(stage, &end), detail(stage, &end));
    let reply = if let End::Reply(reply) = end { Some(reply) } else { None };
    Failure { cause, stage, reply, detail }
}

/// From MAIL on, what goes wrong can be about the message.
fn is_transaction(stage: Stage) -> bool {
    matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot)
}

fn is_about_provider(stage: Stage, reply: &Reply) -> bool {
    match reply.code {
        421 => stage != Stage::Dot,
        // Our login or its encryption is missing, too weak or not valid any more (RFC 4954 6,
        // RFC 3207 4): said of us, whatever the message.
        530 | 534 | 535 | 538 => true,
        _ => false,
    }
}

/// Whether a reply within the transaction refuses this message or recipient for good.
pub(super) fn is_rejection(stage: Stage, reply: &Reply) -> bool {
    is_for_good(stage, reply) && !is_about_provider(stage, reply) && reply.quota().is_none()
}

fn is_for_good(stage: Stage, reply: &Reply) -> bool {
    // RFC 5321 4.5.3.1.10: a client treats 552 for too many recipients as 452.
    let is_too_many = stage == Stage::Rcpt
        && reply.code == 552
        && (reply.enhanced == Some([5, 5, 3]) || reply.wording == Wording::TooManyRecipients);
    reply.code >= 500 && !is_too_many
}

fn cause(stage: Stage, end: &End) -> Cause {
    match end {
        End::Timeout(_) => Cause::ConnectionTimeout,
        End::Fault(Fault::Lost) if is_transaction(stage) => Cause::Deferred,
        End::Fault(Fault::Lost) if stage == Stage::Tls => Cause::Tls,
        End::Fault(Fault::Lost) => Cause::ConnectionRefused,
        End::Fault(_) => Cause::Protocol,
        End::NoSmtpUtf8(Whose::Sender) => Cause::Protocol,
        End::NoSmtpUtf8(_) => Cause::Rejected,
        End::Other(cause, _) => *cause,
        End::Reply(reply) => match (stage, reply.code) {
            (_, 530 | 538) | (Stage::Auth, 422..500) => Cause::AuthFailed,
            (Stage::Auth, 500..) => Cause::LoginRefused,
            (Stage::Tls, _) => Cause::Tls,
            (Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot, 534 | 535) => Cause::AuthFailed,
            (Stage::Mail | Stage::Rcpt | Stage::Data, 421) => Cause::Protocol,
            (Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot, 400..) => {
                if is_for_good(stage, reply) { Cause::Rejected } else { Cause::Deferred }
            }
            _ => Cause::Protocol,
        },
    }
}

/// One sentence that stays the same while the fault does: no port, no id of the peer.
fn detail(stage: Stage, end: &End) -> String {
    let asked = asked(stage);
    match end {
        End::Reply(reply) => {
            let verb = match reply.code {
                421 | 500.. => "refused",
                400.. if is_transaction(stage) => "put off",
                400.. => "refused",
                _ => return format!("the server answered {asked} out of turn: {}", said(reply)),
            };
            format!("the server {verb} {}: {}", subject(stage), said(reply))
        }
        End::Fault(Fault::Lost) => match stage {
            Stage::Greeting => "the server closed the connection without a greeting".to_owned(),
            _ => format!("the connection was lost before the answer to {asked}"),
        },
        End::Fault(Fault::TooLong) => format!("the server's answer to {asked} is too long"),
        End::Fault(Fault::NotSmtp) => format!("the server's answer to {asked} is not SMTP"),
        End::Fault(Fault::Unasked) => format!("the server spoke out of turn at {asked}"),
        End::Timeout(limit) => {
            // Tests use limits below a second.
            let limit = match limit.as_secs() {
                0 => format!("{}ms", limit.as_millis()),
                seconds => format!("{seconds}s"),
            };
            match stage {
                // Nothing else is waited for before a connection.
                Stage::Prepare => format!("the token server did not answer within {limit}"),
                Stage::Connect => format!("no connection within {limit}"),
                Stage::Greeting => format!("the server sent no greeting within {limit}"),
                Stage::Tls => format!("the server did not agree on TLS within {limit}"),
                _ => format!("the server did not answer {asked} within {limit}"),
            }
        }
        End::NoSmtpUtf8(whose) => {
            let address = match whose {
                Whose::Sender => "the sender's address",
                Whose::Recipient => "the recipient's address",
                Whose::ReplyTo => "the reply-to address",
            };
            format!("the server does not offer SMTPUTF8, which {address} needs")
        }
        End::Other(_, sentence) => sentence.clone(),
    }
}

fn asked(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepare | Stage::Connect | Stage::Greeting => "the connection",
        Stage::Ehlo => "EHLO",
        Stage::Tls => "STARTTLS",
        Stage::Auth => "AUTH",
        Stage::Mail => "MAIL",
        Stage::Rcpt => "RCPT",
        Stage::Data => "DATA",
        Stage::Dot => "the end of the message",
    }
}

fn subject(stage: Stage) -> &'static str {
    match stage {
        Stage::Auth => "the login",
        Stage::Mail => "the sender",
        Stage::Rcpt => "the recipient",
        Stage::Dot => "the message",
        _ => asked(stage),
    }
}

fn said(reply: &Reply) -> String {
    let enhanced = reply.enhanced.map_or_else(String::new, |[a, b, c]| format!(" {a}.{b}.{c}"));
    let space = if reply.text.is_empty() { "" } else { " " };
    format!("{}{enhanced}{space}{}", reply.code, reply.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::AttemptOutcome::{self, Deferred, Rejected, Unreachable};

    fn reply(code: u16) -> End {
        End::Reply(Reply::new(code, None, "said so".into()))
    }

    #[test]
    fn each_end_at_each_stage_has_its_outcome_and_cause() {
        let lost = End::Fault(Fault::Lost);
        let late = End::Timeout(Duration::from_secs(60));
        let table: [(Stage, End, AttemptOutcome, Cause); 34] = [
            (Stage::Greeting, reply(554), Unreachable, Cause::Protocol),
            (Stage::Greeting, reply(421), Unreachable, Cause::Protocol),
            (Stage::Greeting, lost.clone(), Unreachable, Cause::ConnectionRefused),
            (Stage::Greeting, late.clone(), Unreachable, Cause::ConnectionTimeout),
            (Stage::Greeting, End::Fault(Fault::TooLong), Unreachable, Cause::Protocol),
            (Stage::Ehlo, reply(550), Unreachable, Cause::Protocol),
            (Stage::Ehlo, reply(421), Unreachable, Cause::Protocol),
            (Stage::Tls, reply(454), Unreachable, Cause::Tls),
            (Stage::Tls, lost.clone(), Unreachable, Cause::Tls),
            (Stage::Tls, End::Fault(Fault::Unasked), Unreachable, Cause::Protocol),
            (Stage::Auth, reply(535), Unreachable, Cause::LoginRefused),
            (Stage::Auth, reply(454), Unreachable, Cause::AuthFailed),
            (Stage::Auth, reply(421), Unreachable, Cause::Protocol),
            (Stage::Mail, reply(421), Unreachable, Cause::Protocol),
            (Stage::Mail, reply(451), Deferred, Cause::Deferred),
            (Stage::Mail, reply(550), Rejected, Cause::Rejected),
            (Stage::Mail, reply(530), Unreachable, Cause::AuthFailed),
            (Stage::Mail, lost.clone(), Deferred, Cause::Deferred),
            (Stage::Mail, late.clone(), Unreachable, Cause::ConnectionTimeout),
            (Stage::Mail, End::Fault(Fault::Unasked), Unreachable, Cause::Protocol),
            (Stage::Rcpt, End::Fault(Fault::Unasked), Deferred, Cause::Protocol),
            (Stage::Dot, late.clone(), Deferred, Cause::ConnectionTimeout),
            (Stage::Mail, End::NoSmtpUtf8(Whose::Recipient), Rejected, Cause::Rejected),
            (Stage::Mail, End::NoSmtpUtf8(Whose::Sender), Unreachable, Cause::Protocol),
            (Stage::Rcpt, reply(421), Unreachable, Cause::Protocol),
            (Stage::Rcpt, reply(450), Deferred, Cause::Deferred),
            (Stage::Rcpt, reply(552), Rejected, Cause::Rejected),
            (Stage::Data, reply(421), Unreachable, Cause::Protocol),
            (Stage::Data, reply(250), Deferred, Cause::Protocol),
            (Stage::Data, reply(554), Rejected, Cause::Rejected),
            (Stage::Dot, reply(354), Deferred, Cause::Protocol),
            (Stage::Dot, reply(421), Deferred, Cause::Deferred),
            (Stage::Dot, reply(554), Rejected, Cause::Rejected),
            (Stage::Dot, lost, Deferred, Cause::Deferred),
        ];
        for (stage, end, kind, cause) in table {
            let outcome = classify(stage, end.clone());
            let failure = outcome.failure().expect("an end is a failure");
            assert_eq!((outcome.kind(), failure.cause), (kind, cause), "{stage:?} {end:?}");
            assert_eq!(failure.stage, stage);
        }
    }

    #[test]
    fn a_quota_is_about_the_provider_at_every_stage_and_whatever_the_code() {
        for (code, enhanced, text) in [
            (421, [4, 7, 28], "Our system has detected an unusual rate of unsolicited mail"),
            (432, [4, 3, 2], "Concurrent connections limit exceeded"),
            (451, [4, 7, 500], "Server busy. Please try again later"),
            (550, [5, 4, 5], "Daily user sending limit exceeded"),
        ] {
            let reply = Reply::new(code, Some(enhanced), text.into());
            for stage in Stage::ALL {
                let outcome = classify(stage, End::Reply(reply.clone()));
                assert!(matches!(outcome, Outcome::Held(..)), "{code} to {stage:?}");
                assert_eq!(outcome.kind(), Deferred);
            }
            assert!(!is_rejection(Stage::Rcpt, &reply), "the connection is not kept for it");
        }
    }

    #[test]
    fn what_real_servers_say_has_the_outcome_that_the_operator_needs() {
        use Stage::{Data, Dot, Greeting, Mail, Rcpt, Tls};
        let table = [
            // The provider refuses us: no message of ours fares better, and none is given up.
            (Greeting, 554, "5.7.1 Service unavailable; Client host blocked", Unreachable),
            (Greeting, 421, "4.7.0 Too many concurrent connections from your IP", Unreachable),
            (Tls, 454, "4.7.0 TLS not available due to local problem", Unreachable),
            (Tls, 502, "5.5.1 Command not implemented", Unreachable),
            (Stage::Auth, 534, "5.7.9 Application-specific password required", Unreachable),
            (Stage::Auth, 535, "5.7.8 Username and Password not accepted", Unreachable),
            (
                Stage::Auth,
                535,
                "5.7.139 Authentication unsuccessful, basic auth is off",
                Unreachable,
            ),
            (Stage::Auth, 538, "5.7.11 Encryption required for this mechanism", Unreachable),
            (Stage::Auth, 454, "4.7.0 Temporary authentication failure", Unreachable),
            (Mail, 530, "5.7.0 Must issue a STARTTLS command first", Unreachable),
            (Mail, 530, "5.7.57 Client not authenticated to send mail", Unreachable),
            (Mail, 534, "5.7.9 Please log in with your web browser", Unreachable),
            (Mail, 535, "5.7.8 Authentication credentials invalid", Unreachable),
            (Rcpt, 530, "5.7.1 Authentication required", Unreachable),
            (Data, 538, "5.7.11 Encryption required", Unreachable),
            (Dot, 535, "5.7.3 Authentication unsuccessful", Unreachable),
            (Mail, 421, "4.3.2 Service shutting down", Unreachable),
            // It puts this message off.
            (Mail, 452, "4.3.1 Insufficient system storage", Deferred),
            (Mail, 451, "4.7.1 Sender rate limit exceeded", Deferred),
            (Rcpt, 450, "4.2.0 Recipient address rejected: Greylisted", Deferred),
            (Rcpt, 452, "4.2.2 Mailbox full", Deferred),
            (Rcpt, 452, "4.5.3 Too many recipients", Deferred),
            (Rcpt, 552, "5.5.3 Too many recipients", Deferred),
            (Dot, 421, "4.7.0 Try again later, closing connection", Deferred),
            // It refuses this message, sender or recipient.
            (Mail, 550, "5.7.1 Sender address rejected: not owned by user", Rejected),
            (Mail, 550, "5.7.60 Client does not have permissions to send as this sender", Rejected),
            (Mail, 552, "5.3.4 Message size exceeds fixed limit", Rejected),
            (Mail, 553, "5.1.8 Domain of sender address does not exist", Rejected),
            (Rcpt, 550, "5.1.1 User unknown", Rejected),
            (Rcpt, 554, "5.7.1 Relay access denied", Rejected),
            (Rcpt, 552, "5.2.2 Over quota", Rejected),
            (Data, 554, "5.5.1 No valid recipients", Rejected),
            (Dot, 554, "5.7.1 Message contains spam or virus", Rejected),
            (Dot, 550, "5.7.60 Client does not have permissions to send as this sender", Rejected),
        ];
        for (stage, code, text, kind) in table {
            let (enhanced, words) = text.split_once(' ').expect("an enhanced code and words");
            let numbers: Vec<u16> =
                enhanced.split('.').map(|number| number.parse().expect("a number")).collect();
            let reply = Reply::new(code, numbers.try_into().ok(), words.to_owned());
            let outcome = classify(stage, End::Reply(reply));
            assert_eq!(outcome.kind(), kind, "{code} {text} to {stage:?}");
            let cause = outcome.failure().expect("a failure").cause;
            assert!(kind != Unreachable || !matches!(cause, Cause::Rejected | Cause::Deferred));
        }
    }

    #[test]
    fn too_many_recipients_is_put_off() {
        let text = "Too many recipients".into();
        let too_many = End::Reply(Reply::new(552, None, text));
        assert_eq!(classify(Stage::Rcpt, too_many).kind(), Deferred);
    }

    #[test]
    fn a_detail_is_a_sentence_that_names_the_stage() {
        let detail = |stage, end| failure(stage, end).detail;
        let text = "no such user".into();
        let refused = End::Reply(Reply::new(550, Some([5, 1, 1]), text));
        assert_eq!(
            detail(Stage::Rcpt, refused),
            "the server refused the recipient: 550 5.1.1 no such user"
        );
        let late = End::Timeout(Duration::from_secs(60));
        assert_eq!(detail(Stage::Ehlo, late), "the server did not answer EHLO within 60s");
        assert_eq!(detail(Stage::Mail, reply(451)), "the server put off the sender: 451 said so");
    }
}
