//! Replies by which a server says that it takes no more mail from us for now: they are about the
//! provider, and say nothing of the message.
//!
//! Only what a server's maker documents, or its source says, is taken for one: code, enhanced code and
//! words have all to agree. What speaks of a recipient's mailbox or rate, of greylisting, or of one
//! connection or login is none.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    /// Too much at once, or within a second.
    Burst,
    /// Too much of late.
    Rate,
    /// What may be sent within a day, or at all until somebody has looked.
    Day,
}

impl Quota {
    /// No hold is longer before the server is asked again.
    pub const HOLD_MAX: Duration = Duration::from_secs(3600);

    /// How long a provider is left alone that was told so for the `doublings` + 1st time: 1 minute
    /// for a burst, 5 for a rate (as for greylisting, which some of these are), doubled each time up
    /// to an hour; an hour each time for a day.
    #[must_use]
    pub fn hold(self, doublings: u16) -> Duration {
        let first = match self {
            Self::Burst => Duration::from_secs(60),
            Self::Rate => Duration::from_secs(300),
            Self::Day => Self::HOLD_MAX,
        };
        first.saturating_mul(1 << doublings.min(16)).min(Self::HOLD_MAX)
    }

    /// What the reply says is used up, if it is one of these.
    #[must_use]
    pub fn of(code: u16, enhanced: Option<[u16; 3]>, text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let is_it = |said: &&Said| {
            said.code == code
                && said.enhanced.as_ref().is_none_or(|(class_and_subject, details)| {
                    enhanced.is_some_and(|[class, subject, detail]| {
                        *class_and_subject == [class, subject] && details.contains(&detail)
                    })
                })
                && text.contains(said.words)
        };
        SAID.iter().find(is_it).map(|said| said.quota)
    }
}

struct Said {
    code: u16,
    /// `None` for a server that sends none.
    enhanced: Option<([u16; 2], RangeInclusive<u16>)>,
    /// Lower case; all texts have the empty one.
    words: &'static str,
    quota: Quota,
}

const fn said(
    code: u16,
    [class, subject, detail]: [u16; 3],
    words: &'static str,
    quota: Quota,
) -> Said {
    Said { code, enhanced: Some(([class, subject], detail..=detail)), words, quota }
}

const SAID: [Said; 22] = [
    // Gmail and Google Workspace: https://support.google.com/a/answer/3726730
    said(550, [5, 4, 5], "", Quota::Day),
    said(550, [5, 7, 1], "daily smtp relay limit exceeded", Quota::Day),
    said(550, [5, 7, 1], "email quota exceeded", Quota::Day),
    said(450, [4, 2, 1], "peak smtp relay limit exceeded", Quota::Rate),
    said(421, [4, 7, 0], "unusual rate of unsolicited mail", Quota::Rate),
    said(421, [4, 7, 28], "unusual rate of unsolicited mail", Quota::Rate),
    said(454, [4, 7, 0], "too many login attempts", Quota::Rate),
    // Exchange Online: https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online/non-delivery-reports-in-exchange-online
    Said { code: 451, enhanced: Some(([4, 7], 500..=699)), words: "", quota: Quota::Rate },
    Said { code: 451, enhanced: Some(([4, 7], 850..=899)), words: "", quota: Quota::Rate },
    said(550, [5, 1, 90], "", Quota::Day),
    said(550, [5, 7, 232], "", Quota::Day),
    said(550, [5, 7, 233], "", Quota::Day),
    said(550, [5, 7, 705], "", Quota::Day),
    said(550, [5, 7, 708], "", Quota::Day),
    // SMTP AUTH submission: https://learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements
    said(432, [4, 3, 2], "", Quota::Burst),
    said(554, [5, 2, 0], "submissionquotaexceeded", Quota::Day),
    // Exchange Server, MessageRateLimit: https://learn.microsoft.com/exchange/mail-flow/message-rate-limits
    said(421, [4, 4, 2], "message submission rate for this client has exceeded", Quota::Burst),
    // Amazon SES: https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html
    Said { code: 454, enhanced: None, words: "daily message quota exceeded", quota: Quota::Day },
    Said { code: 454, enhanced: None, words: "maximum sending rate exceeded", quota: Quota::Burst },
    // Emailit: https://emailit.com/docs/smtp/troubleshooting/
    said(452, [4, 4, 5], "messages per second limit exceeded", Quota::Burst),
    said(452, [4, 5, 3], "daily message limit exceeded", Quota::Day),
    // Postfix, smtpd_client_message_rate_limit: src/smtpd/smtpd.c of its source
    said(450, [4, 7, 1], "too much mail from", Quota::Rate),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::outcome::Reply;

    fn told(code: u16, text: &str) -> Option<Quota> {
        let mut parts = text.splitn(2, ' ');
        let head: Vec<u16> = parts.next().unwrap_or("").split('.').flat_map(str::parse).collect();
        match <[u16; 3]>::try_from(head) {
            Ok(enhanced) => {
                let text = parts.next().unwrap_or_default().to_owned();
                Reply::new(code, Some(enhanced), text).quota()
            }
            Err(_) => Reply::new(code, None, text.to_owned()).quota(),
        }
    }

    #[test]
    fn what_providers_document_as_their_quota_is_told_from_what_is_about_the_message() {
        let busy = "Server busy. Please try again later from [192.0.2.1]. (S77719)";
        let table: [(u16, &str, Option<Quota>); 41] = [
            (550, "5.4.5 Daily user sending limit exceeded. gsmtp", Some(Quota::Day)),
            (550, "5.4.5 Daily user sending quota exceeded. gsmtp", Some(Quota::Day)),
            (550, "5.4.5 Daily SMTP relay limit exceeded for user. gsmtp", Some(Quota::Day)),
            (550, "5.7.1 Daily SMTP relay limit exceeded for customer.", Some(Quota::Day)),
            (550, "5.7.1 Email quota exceeded.", Some(Quota::Day)),
            (450, "4.2.1 Peak SMTP relay limit exceeded for customer.", Some(Quota::Rate)),
            (
                421,
                "4.7.0 Our system has detected an unusual rate of unsolicited mail",
                Some(Quota::Rate),
            ),
            (
                421,
                "4.7.28 Our system has detected an unusual rate of unsolicited mail",
                Some(Quota::Rate),
            ),
            (454, "4.7.0 Too many login attempts, please try again later.", Some(Quota::Rate)),
            (451, &format!("4.7.500 {busy}"), Some(Quota::Rate)),
            (451, "4.7.651 Access denied, please try again later", Some(Quota::Rate)),
            (451, "4.7.850 Access denied, please try again later", Some(Quota::Rate)),
            (
                550,
                "5.1.90 Your message can't be sent: daily limit for recipients",
                Some(Quota::Day),
            ),
            (550, "5.7.233 your tenant has exceeded its daily limit", Some(Quota::Day)),
            (550, "5.7.705 Access denied, tenant has exceeded threshold", Some(Quota::Day)),
            (
                550,
                "5.7.708 Service unavailable. Access denied, traffic not accepted from this IP",
                Some(Quota::Day),
            ),
            (432, "4.3.2 Concurrent connections limit exceeded.", Some(Quota::Burst)),
            (432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Some(Quota::Burst)),
            (
                554,
                "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
                Some(Quota::Day),
            ),
            (
                421,
                "4.4.2 Message submission rate for this client has exceeded the configured limit",
                Some(Quota::Burst),
            ),
            (454, "Throttling failure: Daily message quota exceeded.", Some(Quota::Day)),
            (454, "Throttling failure: Maximum sending rate exceeded.", Some(Quota::Burst)),
            (452, "4.4.5 Messages per second limit exceeded", Some(Quota::Burst)),
            (452, "4.5.3 Daily message limit exceeded", Some(Quota::Day)),
            (450, "4.7.1 Error: too much mail from 192.0.2.1", Some(Quota::Rate)),
            // About a recipient.
            (452, "4.2.2 The email account that you tried to reach is over quota.", None),
            (552, "5.2.2 Over quota", None),
            (450, "4.2.1 The user you are trying to contact is receiving mail too quickly.", None),
            (550, "5.2.122 The recipient has exceeded their limit for messages per hour", None),
            (452, "4.5.3 Your message has too many recipients.", None),
            // About one connection, or the server.
            (421, "4.7.0 too many connections", None),
            (421, "4.3.2 closing", None),
            (451, "4.7.1 too many messages in this session", None),
            (454, "4.7.0 Temporary authentication failure", None),
            (432, "4.7.12 A password transition is needed", None),
            // Greylisting.
            (451, "4.7.1 Greylisted, please try again in 300 seconds", None),
            (450, "4.7.1 try again later", None),
            (451, "4.7.500 greylisted", None),
            // About the message; and words alone are none.
            (550, "5.7.1 This message violates our policy.", None),
            (550, "5.1.1 Daily message quota exceeded", None),
            (250, "5.4.5 fine", None),
        ];
        for (code, text, expected) in table {
            assert_eq!(told(code, text), expected, "{code} {text}");
        }
    }

    /// What may be greylisting is never asked again sooner than greylisting allows.
    #[test]
    fn a_4_7_x_holds_for_five_minutes_at_least() {
        let is_4_7 = |said: &&Said| {
            said.code < 500 && said.enhanced.as_ref().is_some_and(|(class, _)| *class == [4, 7])
        };
        for said in SAID.iter().filter(is_4_7) {
            assert!(Duration::from_secs(300) <= said.quota.hold(0), "{} {}", said.code, said.words);
        }
    }

    #[test]
    fn a_hold_doubles_up_to_an_hour_and_a_day_is_asked_after_each_hour() {
        let minutes = |quota: Quota| [0, 1, 2, 3, 9].map(|n| quota.hold(n).as_secs() / 60);
        assert_eq!(minutes(Quota::Burst), [1, 2, 4, 8, 60]);
        assert_eq!(minutes(Quota::Rate), [5, 10, 20, 40, 60]);
        assert_eq!(minutes(Quota::Day), [60; 5]);
        assert_eq!(Quota::Rate.hold(u16::MAX), Quota::HOLD_MAX);
    }
}
