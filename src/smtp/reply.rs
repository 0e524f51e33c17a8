//! One SMTP reply (RFC 5321 4.2): read from hostile bytes, shown without secrets.
//!
//! Everything that leaves here is printable ASCII: a peer's text goes to logs, status and pages.

use super::redaction::Redaction;
use crate::core::outcome::{Reply, Wording};

/// The most of a reply's text that is kept.
const TEXT_CHARS_MAX: usize = 500;
/// The most of one line that lettre is shown; it gives up beyond 1,000.
const LETTRE_LINE_BYTES_MAX: usize = 900;

/// A whole reply: its code and the text of each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawReply {
    /// 200 to 599: that of the last line, which decides.
    pub(super) code: u16,
    /// What stood behind the code, line by line, printable. Never empty.
    pub(super) lines: Vec<String>,
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) code: u16,
    pub(super) is_last: bool,
    pub(super) text: String,
}

impl Line {
    /// Reads `250 text`, `250-text` or a bare `250` (RFC 5321 4.2 asks clients to take it), with or
    /// without its line end; `None` for what is not SMTP.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let (digits, rest) = line[..end].split_at_checked(3)?;
        if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
            return None;
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let (is_last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return None,
        };
        Some(Self { code, is_last, text: printable(text) })
    }
}

impl RawReply {
    /// The parameters of an EHLO keyword, when it is offered (RFC 5321 4.1.1.1).
    pub(super) fn offer(&self, keyword: &str) -> Option<impl Iterator<Item = &str>> {
        // The first line is the server's name, not a keyword.
        self.lines.iter().skip(1).find_map(|line| {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            words.next()?.eq_ignore_ascii_case(keyword).then_some(words)
        })
    }

    /// The reply in a form that lettre reads without error, panic (RUSTSEC-2026-0562) or delay.
    pub(super) fn for_lettre(&self) -> Vec<u8> {
        let [class, category, detail] = [self.code / 100, self.code / 10 % 10, self.code % 10];
        // lettre knows second digits up to 5 only; the first one decides (RFC 5321 4.3.2).
        let category = if category > 5 { 0 } else { category };
        let last = self.lines.len().saturating_sub(1);
        let mut out = Vec::new();
        for (n, text) in self.lines.iter().enumerate() {
            let text = if text.trim().is_empty() { "-" } else { text };
            let text = &text[..text.len().min(LETTRE_LINE_BYTES_MAX)];
            let separator = if n == last { ' ' } else { '-' };
            out.extend_from_slice(
                format!("{class}{category}{detail}{separator}{text}\r\n").as_bytes(),
            );
        }
        out
    }

    /// What is kept and shown of it.
    pub(super) fn to_reply(&self, redaction: &Redaction<'_>) -> Reply {
        let enhanced = self.lines.first().and_then(|line| self.enhanced(line));
        let texts: Vec<&str> = self
            .lines
            .iter()
            .map(|line| match self.enhanced(line) {
                // Servers repeat the enhanced code on each line; it is shown once.
                Some(code) if Some(code) == enhanced => {
                    line.split_once(' ').map_or("", |(_, text)| text).trim()
                }
                _ => line.trim(),
            })
            .filter(|text| !text.is_empty())
            .collect();
        let whole = texts.join(" ");
        let text = redaction.apply(&whole, TEXT_CHARS_MAX);
        let wording = Wording::of(self.code, enhanced, &whole);
        Reply { code: self.code, enhanced, text, wording }
    }

    /// The enhanced code at the head of a line, when its class agrees with the code's (RFC 2034 4).
    fn enhanced(&self, line: &str) -> Option<[u16; 3]> {
        let mut parts = line.split(' ').next()?.split('.').map(|part| {
            let is_number =
                (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if is_number { part.parse().ok() } else { None }
        });
        let code = [parts.next()??, parts.next()??, parts.next()??];
        (parts.next().is_none() && code[0] == self.code / 100).then_some(code)
    }
}

fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|b| if matches!(b, b' '..=b'~') { char::from(*b) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notification::Content;
    use lettre::transport::smtp::extension::ServerInfo;
    use lettre::transport::smtp::response::Response;
    use proptest::prelude::*;

    fn raw(text: &str) -> RawReply {
        let lines: Vec<_> =
            text.lines().map(|line| Line::parse(line.as_bytes()).expect("SMTP")).collect();
        let code = lines.last().expect("at least one line").code;
        RawReply { code, lines: lines.into_iter().map(|line| line.text).collect() }
    }

    #[test]
    fn a_line_is_three_digits_and_a_space_a_hyphen_or_nothing() {
        let line = |code, is_last, text: &str| Some(Line { code, is_last, text: text.into() });
        assert_eq!(Line::parse(b"250 ok\r\n"), line(250, true, "ok"));
        assert_eq!(Line::parse(b"250-ok\n"), line(250, false, "ok"));
        assert_eq!(Line::parse(b"250\r\n"), line(250, true, ""));
        assert_eq!(Line::parse(b"250 \r\n"), line(250, true, ""));
        assert_eq!(Line::parse(b"550 \x1b[2J\xfc\r\n"), line(550, true, "?[2J?"));
        for bad in [&b"\r\n"[..], b"25", b"25x ok", b"150 ok", b"650 ok", b"250_ok", b"HTTP/1.1"] {
            assert_eq!(Line::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_a_reply_says_is_told_from_its_whole_text() {
        let content = Content { subject: "s".into(), html: None, text: None, reply_to: None };
        let connection = Redaction::default();
        let redaction = connection.about(&["greylisted@example.com".to_owned()], &content);
        let reply = raw("450 Greylisted, come again").to_reply(&redaction);
        assert_eq!(reply.wording, Wording::Greylisting);
        assert!(!reply.text.contains("Greylisted"), "{}", reply.text);
    }

    #[test]
    fn an_enhanced_code_counts_only_when_its_class_agrees() {
        let reply = |text| raw(text).to_reply(&Redaction::default());
        assert_eq!(reply("550 5.1.1 no such user").enhanced, Some([5, 1, 1]));
        assert_eq!(reply("550 5.1.1 no such user").text, "no such user");
        assert_eq!(reply("250 5.1.1 odd").enhanced, None);
        assert_eq!(reply("550 5.1 odd").enhanced, None);
        assert_eq!(reply("550 192.0.2.1 blocked").enhanced, None);
        assert_eq!(reply("550-5.7.1 first\n550 5.7.1 second").text, "first second");
    }

    #[test]
    fn a_text_is_cut_at_500_characters() {
        let long = format!("550 {}", "A".repeat(900));
        assert_eq!(raw(&long).to_reply(&Redaction::default()).text.len(), 500);
    }

    #[test]
    fn a_keyword_is_found_in_any_case_but_never_in_the_server_name() {
        let ehlo = raw("250-STARTTLS\n250-auth plain LOGIN\n250-\n250 size 100");
        assert!(ehlo.offer("STARTTLS").is_none());
        let offered: Vec<_> = ehlo.offer("AUTH").expect("offered").collect();
        assert_eq!(offered, ["plain", "LOGIN"]);
        assert!(ehlo.offer("SIZE").is_some());
    }

    #[test]
    fn lettre_is_shown_no_blank_line_no_odd_digit_and_one_code() {
        let shown = |text| String::from_utf8(raw(text).for_lettre()).expect("ASCII");
        assert_eq!(shown("250-\n250   "), "250--\r\n250 -\r\n");
        assert_eq!(shown("264 ok"), "204 ok\r\n");
        assert_eq!(shown("251-a\n250 b"), "250-a\r\n250 b\r\n");
    }

    proptest! {
        #[test]
        fn lettre_reads_whatever_is_shown_to_it_to_the_end(
            code in 200u16..600, texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1200), 1..20),
        ) {
            let lines = texts.iter().filter_map(|text| {
                let line = [code.to_string().as_bytes(), b" ", text].concat();
                Line::parse(&line).map(|line| line.text)
            });
            let raw = RawReply { code, lines: lines.collect() };
            let shown = String::from_utf8(raw.for_lettre()).expect("ASCII");
            let read: Response = shown.parse().expect("a reply that lettre reads");
            prop_assert_eq!(u16::from(read.code()) / 100, code / 100);
            prop_assert_eq!(read.message().count(), raw.lines.len());
            prop_assert!(ServerInfo::from_response(&read).is_ok());
        }
    }
}
