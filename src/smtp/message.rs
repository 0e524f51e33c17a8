//! A content and a job to the bytes that go over the wire (RFC 5322, MIME).
//!
//! `Message-ID`, `Date` and content depend on the job alone, so they are the same over all attempts
//! and providers; only `From` is the provider's. The `Message-ID` is `<JOB@breakglass-mailer>`, on a
//! domain that no provider decides.
//!
//! Bodies are always encoded and headers ASCII, so nothing depends on what a relay does to 8-bit
//! bytes, bare line ends or lines that begin with a dot. Only a local part that is not ASCII goes
//! as UTF-8, to servers that offer SMTPUTF8. The finished bytes are checked before they are used.

use std::time::{Duration, SystemTime};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use lettre::message::header::{
    self, ContentTransferEncoding, ContentType, Headers, MIME_VERSION_1_0,
};
use lettre::message::{Body, Mailbox, Mailboxes, MultiPart, SinglePart};

use super::classify::Whose;
use super::header::{one_line, plain, subject};
use crate::core::job::Job;
use crate::core::notification::{Address, Content};
use crate::core::outcome::{Cause, Failure, Outcome, Stage};
use crate::core::provider::Provider;

/// The longest line without its line end (RFC 5322 2.1.1).
const LINE_BYTES_MAX: usize = 998;
/// 9999-12-31T23:59:59Z, the last second that a `Date` can show.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// An envelope and its message.
pub(super) struct Message<'a> {
    /// The envelope sender, with A-labels.
    pub(super) sender: lettre::Address,
    /// The envelope recipient, with A-labels.
    pub(super) recipient: lettre::Address,
    /// All forms of the recipient that a reply may echo.
    pub(super) recipient_words: [String; 2],
    /// What it was made from.
    pub(super) content: &'a Content,
    /// Whose address needs SMTPUTF8, if one does.
    pub(super) needs_utf8: Option<Whose>,
    /// Headers and body, not dot-stuffed, with CRLF between the lines; lettre writes the last one.
    pub(super) bytes: Vec<u8>,
}

/// Makes a job's message as `provider` sends it.
///
/// # Errors
/// The outcome of the attempt: an address that has no A-labels, or bytes that break the rules above.
pub(super) fn compose<'a>(
    provider: &Provider,
    job: &Job,
    content: &'a Content,
) -> Result<Message<'a>, Outcome> {
    let sender = with_a_labels(&provider.sender.address).ok_or_else(|| {
        let detail = "the domain of the sender's address is not a valid domain name";
        Outcome::Unreachable(failure(Cause::Protocol, detail))
    })?;
    let recipient = with_a_labels(&job.recipient).ok_or_else(|| {
        let detail = "the domain of the recipient's address is not a valid domain name";
        Outcome::Rejected(failure(Cause::Rejected, detail))
    })?;
    let reply_to = match &content.reply_to {
        None => None,
        Some(address) => Some(with_a_labels(address).ok_or_else(|| {
            let detail = "the domain of the reply-to address is not a valid domain name";
            Outcome::Rejected(failure(Cause::Rejected, detail))
        })?),
    };
    let needs_utf8 = [
        (Whose::Sender, Some(&provider.sender.address)),
        (Whose::Recipient, Some(&job.recipient)),
        (Whose::ReplyTo, content.reply_to.as_ref()),
    ]
    .into_iter()
    .find(|(_, address)| address.is_some_and(|address| !address.local().is_ascii()))
    .map(|(whose, _)| whose);

    let name = provider.sender.name.as_deref().map(one_line).filter(|name| !name.is_empty());
    // Not by lettre's builder: it reads the addresses back, and knows no marks and no symbols in
    // them, so without it also हिन्दी@example.com gets mail.
    let mut headers = Headers::new();
    headers.set(header::Date::from(date(job)));
    headers.insert_raw(plain("Message-ID", format!("<{}@breakglass-mailer>", job.id)));
    headers.set(header::From::from(Mailboxes::from(Mailbox::new(name, sender.clone()))));
    headers.set(header::To::from(Mailboxes::from(Mailbox::new(None, recipient.clone()))));
    headers.insert_raw(subject(&content.subject));
    // RFC 3834 5: no vacation notes in answer to a machine.
    headers.insert_raw(plain("Auto-Submitted", "auto-generated".to_owned()));
    if let Some(reply_to) = reply_to {
        headers.set(header::ReplyTo::from(Mailboxes::from(Mailbox::new(None, reply_to))));
    }
    headers.set(MIME_VERSION_1_0);
    let text = content.text.as_deref().and_then(|text| part(ContentType::TEXT_PLAIN, text));
    let html = content.html.as_deref().and_then(|html| part(ContentType::TEXT_HTML, html));
    let body = match (text, html) {
        // The plainest first (RFC 2046 5.1.4).
        (Some(text), Some(html)) => MultiPart::alternative()
            .boundary(boundary(job))
            .singlepart(text)
            .singlepart(html)
            .formatted(),
        (Some(one), None) | (None, Some(one)) => one.formatted(),
        (None, None) => return Err(internal("the message has no body")),
    };
    let mut bytes = headers.to_string().into_bytes();
    bytes.extend(body);
    // lettre's session writes the line end before the final dot, and its builder has one as well.
    if bytes.ends_with(b"\r\n") {
        bytes.truncate(bytes.len() - 2);
    }
    check(&bytes, needs_utf8.is_some()).map_err(internal)?;
    let recipient_words = [job.recipient.to_string(), recipient.to_string()];
    Ok(Message { sender, recipient, recipient_words, content, needs_utf8, bytes })
}

fn failure(cause: Cause, detail: &str) -> Failure {
    Failure { cause, stage: Stage::Prepare, reply: None, detail: detail.to_owned() }
}

fn internal(detail: &str) -> Outcome {
    Outcome::Internal(failure(Cause::Internal, detail))
}

/// The address with its domain as A-labels (RFC 5890); `None` when the domain has none.
fn with_a_labels(address: &Address) -> Option<lettre::Address> {
    let domain = address.domain();
    let domain = if domain.is_ascii() {
        domain.into()
    } else {
        let uts46 = Uts46::new();
        let (deny, hyphens, length) = (AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Verify);
        uts46.to_ascii(domain.as_bytes(), deny, hyphens, length).ok()?
    };
    // An Address holds a dot-atom and a domain name, which is stricter than lettre's own check.
    Some(lettre::Address::new_dangerous(address.local(), &*domain))
}

fn date(job: &Job) -> SystemTime {
    let seconds = (job.accepted_at.0 / 1000).min(DATE_SECONDS_MAX);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Never inside a part: quoted-printable puts hexadecimal digits or a line end behind each `=`,
/// and base64 has no underscore.
fn boundary(job: &Job) -> String {
    format!("=_{}", job.id.0.simple())
}

fn part(kind: ContentType, text: &str) -> Option<SinglePart> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
    // Quoted-printable writes three bytes for each that is not plain, base64 four for each three.
    let encoded_count = text.bytes().filter(|b| !matches!(b, b' '..=b'~' | b'\r' | b'\n')).count();
    let encoding = if encoded_count * 6 > text.len() {
        ContentTransferEncoding::Base64
    } else {
        ContentTransferEncoding::QuotedPrintable
    };
    let body = Body::new_with_encoding(text, encoding).ok()?;
    Some(SinglePart::builder().header(kind).body(body))
}

/// Whether the bytes can go through any server unchanged; the error says what is wrong.
fn check(message: &[u8], may_have_utf8_headers: bool) -> Result<(), &'static str> {
    let mut is_header = true;
    let mut lines = message.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if lines.peek().is_none() => line,
            None => return Err("the message has a bare line feed"),
        };
        is_header &= !line.is_empty();
        if line.len() > LINE_BYTES_MAX {
            return Err("the message has a line that is too long");
        }
        let may_be_8_bit = is_header && may_have_utf8_headers;
        let is_clean =
            |byte: &u8| matches!(byte, b'\t' | b' '..=b'~') || (may_be_8_bit && *byte > 127);
        if !line.iter().all(is_clean) {
            return Err("the message has a byte that is not plain text");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::{JobId, Progress};
    use crate::core::notification::NotificationId;
    use crate::core::provider::{ProviderName, Security, Sender, Smtp};
    use crate::core::time::Time;
    use mail_parser::{MessageParser, MimeHeaders};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("a valid address")
    }

    fn provider(sender: &str, name: Option<&str>) -> Provider {
        let sender = Sender { address: address(sender), name: name.map(str::to_owned) };
        let name = ProviderName::new("p").expect("a valid name");
        Provider::new(name, Smtp::new("localhost", 25, Security::Plaintext), sender)
    }

    fn job(recipient: &str) -> Job {
        let chain = [ProviderName::new("p").expect("a valid name")].into();
        Job {
            id: JobId(Uuid::from_u128(7)),
            notification: NotificationId(Uuid::from_u128(1)),
            recipient: address(recipient),
            accepted_at: Time(1_700_000_000_123),
            trace: None,
            progress: Progress::fresh(chain, Time(0), Time(u64::MAX)),
        }
    }

    fn content(subject: &str, text: &str, html: &str) -> Content {
        let body = |body: &str| (!body.is_empty()).then(|| body.to_owned());
        Content { subject: subject.into(), html: body(html), text: body(text), reply_to: None }
    }

    fn composed(name: Option<&str>, content: &Content) -> Vec<u8> {
        let provider = provider("s@example.com", name);
        let message = compose(&provider, &job("ada@example.com"), content);
        message.map(|message| message.bytes).expect("a message")
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        let bytes = composed(Some("Break \"Glass\""), &content("Hi", "plain\n.\ndot", "<p>é</p>"));
        let written = String::from_utf8(bytes).expect("ASCII").replace("\r\n", "\n");
        insta::assert_snapshot!(written, @r#"
        Date: Tue, 14 Nov 2023 22:13:20 +0000
        Message-ID: <00000000-0000-0000-0000-000000000007@breakglass-mailer>
        From: "Break \"Glass\"" <s@example.com>
        To: ada@example.com
        Subject: Hi
        Auto-Submitted: auto-generated
        MIME-Version: 1.0
        Content-Type: multipart/alternative;
         boundary="=_00000000000000000000000000000007"

        --=_00000000000000000000000000000007
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: quoted-printable

        plain
        .
        dot
        --=_00000000000000000000000000000007
        Content-Type: text/html; charset=utf-8
        Content-Transfer-Encoding: base64

        PHA+w6k8L3A+
        --=_00000000000000000000000000000007--
        "#);
    }

    #[test]
    fn only_from_differs_between_providers_and_nothing_between_attempts() {
        let content = content("s", "t", "h");
        let job = job("ada@example.com");
        let bytes = |sender| {
            let message = compose(&provider(sender, None), &job, &content).map(|m| m.bytes);
            String::from_utf8(message.expect("a message")).expect("ASCII")
        };
        assert_eq!(bytes("a@example.com"), bytes("a@example.com"));
        let from = |sender: &str| format!("From: {sender}\r\n");
        let (a, b) = (bytes("a@example.com"), bytes("b@example.net"));
        assert_eq!(a.replace(&from("a@example.com"), ""), b.replace(&from("b@example.net"), ""));
    }

    #[test]
    fn an_internationalised_domain_goes_as_a_labels() {
        let content = content("s", "t", "");
        let message = compose(&provider("s@example.com", None), &job("info@пример.рф"), &content);
        let message = message.map_err(|_| ()).expect("a message");
        assert_eq!(message.recipient.to_string(), "info@xn--e1afmkfd.xn--p1ai");
        assert_eq!(message.needs_utf8, None);
        assert!(message.bytes.is_ascii());
    }

    #[test]
    fn a_local_part_that_is_not_ascii_needs_smtputf8() {
        let compose = |sender, recipient| {
            let content = content("s", "t", "");
            let message = compose(&provider(sender, None), &job(recipient), &content);
            message.map_err(|_| ()).expect("a message").needs_utf8
        };
        assert_eq!(compose("s@example.com", "грета@example.com"), Some(Whose::Recipient));
        assert_eq!(compose("грета@example.com", "a@example.com"), Some(Whose::Sender));
        assert_eq!(compose("s@example.com", "a@example.com"), None);
    }

    #[test]
    fn a_local_part_may_be_of_any_script_and_of_symbols() {
        for address in
            ["हिन्दी@example.com", "ภาษาไทย@example.com", "😀@example.com", "┨@example.com"]
        {
            let content = content("s", "t", "");
            let message = compose(&provider(address, None), &job(address), &content);
            let message = message.map_err(|outcome| format!("{outcome:?}")).expect(address);
            let text = String::from_utf8(message.bytes).expect("UTF-8");
            assert!(text.contains(&format!("\r\nFrom: {address}\r\nTo: {address}\r\n")), "{text}");
        }
    }

    #[test]
    fn bytes_that_a_server_could_change_are_refused() {
        assert_eq!(check(b"A: b\r\n\r\nbody", false), Ok(()));
        for bad in [&b"A: b\n\r\nbody"[..], b"A: b\r\n\r\nbo\rdy", b"A: b\r\n\r\nbo\x00dy"] {
            assert!(check(bad, true).is_err(), "{bad:?}");
        }
        assert!(check("A: é\r\n\r\nbody\r\n".as_bytes(), false).is_err());
        assert!(check("A: é\r\n\r\nbody\r\n".as_bytes(), true).is_ok());
        assert!(check("A: b\r\n\r\né\r\n".as_bytes(), true).is_err());
        assert!(check(format!("A: {}\r\n\r\n\r\n", "x".repeat(999)).as_bytes(), true).is_err());
    }

    proptest! {
        #[test]
        fn any_content_arrives_unchanged(
            subject in "[ -~é€😀]{0,200}|[a-z]{998}|(=\\?utf-8\\?q\\?x\\?= ?){1,3}",
            text in "(?s).{1,200}", html in "(?s)(.{0,80}|\\.\r?\n){1,3}",
            name in proptest::option::of("[^\\p{C}]{1,100}"),
        ) {
            let bytes = composed(name.as_deref(), &content(&subject, &text, &html));
            let parsed = MessageParser::default().parse(&bytes).expect("a message");
            let normal = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(parsed.subject().unwrap_or_default().trim(), one_line(&subject));
            let shown = parsed.from().and_then(|from| from.first()).and_then(|from| from.name());
            let name = name.as_deref().map(one_line).filter(|name| !name.is_empty());
            prop_assert_eq!(shown.map(str::to_owned), name);
            let bodies: Vec<_> = parsed.parts.iter()
                .filter(|part| part.content_type().is_none_or(|kind| kind.ctype() == "text"))
                .filter_map(|part| part.text_contents()).map(normal).collect();
            let written: Vec<_> = [normal(&text), normal(&html)]
                .into_iter().filter(|body| !body.is_empty()).collect();
            prop_assert_eq!(bodies, written);
        }
    }
}
