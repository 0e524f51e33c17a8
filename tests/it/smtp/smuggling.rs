//! Whatever a caller writes, one message with one envelope leaves us, and reads as it was written.
//!
//! Held against the bytes on the wire, with a reading of RFC 5321 4.5.2 and RFC 5322 2.1.1 of its
//! own, and mail-parser.

use std::sync::Arc;

use breakglass_mailer::core::job::AttemptOutcome::Delivered;
use breakglass_mailer::core::notification::{Address, Content};
use breakglass_mailer::core::provider::{Provider, Sender};
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};
use mail_parser::MessageParser;

use super::{address, job, provider};
use crate::support::smtp::{Mode, Script, SmtpServer};
use crate::support::{lots, nightly};

/// The pieces of hostile texts: ends of messages and of lines in every form, headers, commands,
/// and what could pass for the message's own parts.
const PIECES: [&str; 44] = [
    "\r\n.\r\n",
    "\n.\n",
    "\r.\r",
    "\n.\r\n",
    "\r\n.\n",
    "\r\n.\r",
    "\r\n..\r\n",
    ".\r\n",
    ".",
    "..",
    "\r\n",
    "\n",
    "\r",
    "\r\r\n",
    "\n\r",
    "\r\n\r\n",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{b}",
    "\u{c}",
    "\u{feff}",
    "\u{202e}",
    "\t",
    " ",
    "  \r\n ",
    "=",
    "=0D=0A.=0D=0A",
    "=?utf-8?q?=0D=0A?=",
    "é",
    "😀",
    "\u{fffd}",
    "plain words",
    "--=_00000000000000000000000000000007",
    "--=_00000000000000000000000000000007--\r\n",
    "MAIL FROM:<eve@example.net>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\n",
    "Bcc: eve@example.net\r\n",
    "\r\nSubject: another\r\n\r\n",
    "QUIT\r\n",
    "<script>\"'&",
    "%0d%0a.%0d%0a",
];

/// The pieces of addresses that would like to be more than one.
const ADDRESS_PIECES: [&str; 25] = [
    "a",
    "eve",
    "@",
    "@",
    "example.com",
    "example.com",
    ".",
    "<",
    ">",
    " ",
    "\r\n",
    "\n",
    "\0",
    "\"",
    "\\",
    ",",
    "(x)",
    "> SIZE=1",
    ">\r\nRCPT TO:<eve@example.net",
    "ü",
    "\u{2028}",
    "＞",
    "。",
    "%",
    "+-=",
];

#[tokio::test]
async fn a_caller_cannot_make_a_second_message_or_envelope_of_one() {
    let rounds_count = if nightly() { 50_000 } else { 1_500 };
    let mut lots = lots();
    let server = SmtpServer::start(Script::plain()).await;
    let transport = SmtpTransport::new(Timeouts::default());
    let base = provider(&server, Mode::Plain);
    for round in 0..rounds_count {
        // As long as a manifest may have it.
        let name = lots.bool().then(|| text(&mut lots).chars().take(100).collect());
        let body = lots.u8(0..3);
        let content = Content {
            subject: text(&mut lots),
            html: (body != 0).then(|| text(&mut lots)),
            text: (body != 1).then(|| text(&mut lots)),
            reply_to: lots.bool().then(|| any_address(&mut lots)).flatten(),
        };
        let recipient = any_address(&mut lots).unwrap_or_else(|| address("ada@example.com"));
        let sender = Sender { name, ..base.sender.clone() };
        let provider = Arc::new(Provider { sender, ..base.clone() });
        let outcome = transport.send(&provider, &job(recipient.as_str()), &content).await;
        let Content { subject, html, text, reply_to } = &content;
        let name = &provider.sender.name;
        let shown = format!(
            "round {round}: to {recipient}, reply to {reply_to:?}, from {name:?}: {subject:?}, {text:?}, {html:?}"
        );
        let heard = server.take_heard().plaintext;
        if outcome.kind() != Delivered {
            // Only a domain that no letter can go to, and then nothing was said.
            let detail = outcome.failure().map(|failure| failure.detail.as_str());
            let is_no_domain =
                detail.is_some_and(|detail| detail.ends_with("not a valid domain name"));
            assert!(is_no_domain, "{outcome:?} {}: {shown}", heard.escape_ascii());
            assert!(heard.is_empty(), "{shown}");
            continue;
        }
        let message =
            one_message(&heard, &recipient).unwrap_or_else(|wrong| panic!("{wrong}: {shown}"));
        assert_reads_as_written(&message, &provider, &content, &shown);
    }
    let seen = server.seen();
    assert!(seen.accepted.len() > rounds_count / 2, "{} of {rounds_count}", seen.accepted.len());
    assert_eq!(seen.connections_count, 1 + seen.accepted.len().saturating_sub(1) / 100);
}

#[test]
fn an_address_that_would_be_more_than_a_path_is_none() {
    for text in [
        "eve@example.com>\r\nRCPT TO:<ada@example.com",
        "eve@example.com\r\nDATA",
        "eve@example.com> SIZE=1",
        "eve@example.com SIZE=1",
        "<eve@example.com>",
        "eve@example.com>",
        "\"eve\r\n\"@example.com",
        "\"eve ada\"@example.com",
        "eve@example.com,ada@example.com",
        "eve\0@example.com",
        "eve@exam\u{2028}ple.com",
        "eve\u{85}@example.com",
        "eve@[127.0.0.1]",
        "@example.net:eve@example.com",
    ] {
        assert!(Address::parse(text).is_err(), "{text:?}");
    }
}

fn text(lots: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..lots.usize(1..12) {
        text.push_str(lots.choice(PIECES).unwrap_or_default());
        if lots.u8(..) < 8 {
            text.push_str(&lots.choice(["a", ".", "ü", " ", "="]).unwrap_or_default().repeat(2500));
        }
    }
    text
}

/// What the door would let in, from pieces that it should keep out.
fn any_address(lots: &mut fastrand::Rng) -> Option<Address> {
    let text: String = (0..lots.usize(3..8)).filter_map(|_| lots.choice(ADDRESS_PIECES)).collect();
    let text = if lots.bool() { text } else { format!("{text}@example.com") };
    Address::parse(&text).ok()
}

/// The message, without dot-stuffing, when nothing else was said than one transaction.
fn one_message(heard: &[u8], recipient: &Address) -> Result<Vec<u8>, &'static str> {
    let mut rest = heard;
    let mut line = || -> Result<&str, &'static str> {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("no line end")?;
        let (line, after) = rest.split_at(end);
        rest = &after[2..];
        std::str::from_utf8(line).map_err(|_| "a command that is not UTF-8")
    };
    let mut mail = line()?;
    // A new connection, and the goodbye to the one before it.
    while ["EHLO ", "QUIT"].iter().any(|verb| mail.starts_with(verb)) {
        mail = line()?;
    }
    let parameters = mail.strip_prefix("MAIL FROM:<alerts@example.com> SIZE=").ok_or("not MAIL")?;
    let size = parameters.strip_suffix(" BODY=8BITMIME SMTPUTF8").unwrap_or(parameters);
    let path = line()?.strip_prefix("RCPT TO:<").and_then(|path| path.strip_suffix('>'));
    let path = path.ok_or("not RCPT")?;
    if path.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\"\\,()".contains(c)) {
        return Err("not one path");
    }
    if recipient.as_str().is_ascii() && path != recipient.as_str() {
        return Err("another recipient");
    }
    if line()? != "DATA" {
        return Err("not DATA");
    }
    let mut message = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("no final dot")?;
        let (whole, after) = rest.split_at(end + 1);
        rest = after;
        let line = whole.strip_suffix(b"\r\n").ok_or("a bare line feed")?;
        if line == b"." {
            break;
        }
        let line = line.strip_prefix(b".").unwrap_or(line);
        if line.len() > 998 {
            return Err("a line that is too long");
        }
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 127) {
            return Err("a control character or a bare carriage return");
        }
        if parameters == size && !line.is_ascii() {
            return Err("8-bit bytes");
        }
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    if size.parse() != Ok(message.len()) {
        return Err("another size");
    }
    if rest.is_empty() { Ok(message) } else { Err("more behind the final dot") }
}

fn assert_reads_as_written(bytes: &[u8], provider: &Provider, content: &Content, shown: &str) {
    let message = MessageParser::default().parse(bytes).expect("a message");
    let mut names: Vec<String> =
        message.headers().iter().map(|header| header.name().to_lowercase()).collect();
    names.sort_unstable();
    let is_whole = content.html.is_some() && content.text.is_some();
    let mut wanted = vec!["auto-submitted"];
    wanted.extend((!is_whole).then_some("content-transfer-encoding"));
    wanted.extend(["content-type", "date", "from", "message-id", "mime-version"]);
    wanted.extend(content.reply_to.as_ref().map(|_| "reply-to"));
    wanted.extend(["subject", "to"]);
    assert_eq!(names, wanted, "{shown}");

    assert_eq!(message.subject().unwrap_or_default().trim(), one_line(&content.subject), "{shown}");
    let from = message.from().and_then(|from| from.first()).expect("From");
    assert_eq!(from.address(), Some("alerts@example.com"), "{shown}");
    let name = provider.sender.name.as_deref().map(one_line).unwrap_or_default();
    assert_eq!(from.name().unwrap_or_default().trim(), name, "{shown}");
    if let Some(text) = &content.text {
        let arrived = message.body_text(0).expect("a text");
        assert!(is_same(&arrived, text), "{arrived:?}: {shown}");
    }
    if let Some(html) = &content.html {
        let arrived = message.body_html(0).expect("an HTML body");
        assert!(is_same(&arrived, html), "{arrived:?}: {shown}");
    }
    assert_eq!(message.attachment_count(), 0, "{shown}");
}

/// Control characters become spaces in a header.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// But for the line end with which a message ends.
fn is_same(arrived: &str, written: &str) -> bool {
    lines(arrived).strip_prefix(&lines(written)).is_some_and(|end| matches!(end, "" | "\n"))
}

/// With one form of line end.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}
