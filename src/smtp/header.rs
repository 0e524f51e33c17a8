//! Header values: folded and encoded, so that no caller's text can make a header of its own.

use std::fmt::Write as _;

use lettre::message::header::{HeaderName, HeaderValue};

/// The longest line with an encoded word, without the space that folds it (RFC 2047 2).
const ENCODED_LINE_BYTES_MAX: usize = 75;
/// A plain word longer than this does not fold well, so it is encoded.
const PLAIN_WORD_BYTES_MAX: usize = 60;

/// A header whose value is short ASCII of our own.
pub(super) fn plain(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(
        HeaderName::new_from_ascii_str(name),
        value.clone(),
        value,
    )
}

/// `Subject`, folded, and encoded where it is not plain ASCII or could be misread.
pub(super) fn subject(text: &str) -> HeaderValue {
    let text = one_line(text);
    let is_plain = text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !text.contains("=?")
        && text.split(' ').all(|word| (1..=PLAIN_WORD_BYTES_MAX).contains(&word.len()));
    if is_plain {
        // lettre folds it at its spaces.
        return HeaderValue::new(HeaderName::new_from_ascii_str("Subject"), text);
    }
    plain("Subject", encoded_words("Subject", &text))
}

/// `text`, the value of the header `name`, as RFC 2047 words in the Q encoding, one a line, each a whole number of characters.
fn encoded_words(name: &str, text: &str) -> String {
    const OPEN: &str = "=?utf-8?q?";
    const CLOSE: &str = "?=";
    let mut out = String::from(OPEN);
    let mut line_bytes = name.len() + ": ".len() + OPEN.len();
    for c in text.chars() {
        let mut encoded = String::new();
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            match byte {
                b' ' => encoded.push('_'),
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => encoded.push(char::from(byte)),
                // Writing to a string cannot fail.
                _ => drop(write!(encoded, "={byte:02X}")),
            }
        }
        if line_bytes + encoded.len() + CLOSE.len() > ENCODED_LINE_BYTES_MAX {
            out.push_str(CLOSE);
            out.push_str("\r\n ");
            out.push_str(OPEN);
            line_bytes = OPEN.len();
        }
        line_bytes += encoded.len();
        out.push_str(&encoded);
    }
    out + CLOSE
}

/// Control characters are refused at the door; what came through becomes a space.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut headers = lettre::message::header::Headers::new();
        headers.insert_raw(subject(text));
        headers.to_string()
    }

    #[test]
    fn a_short_plain_subject_stays_as_it_is() {
        assert_eq!(shown("Access to prod-1"), "Subject: Access to prod-1\r\n");
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(shown("für dich"), "Subject: =?utf-8?q?f=C3=BCr_dich?=\r\n");
        assert_eq!(shown("=?utf-8?q?x?="), "Subject: =?utf-8?q?=3D=3Futf=2D8=3Fq=3Fx=3F=3D?=\r\n");
        assert_eq!(shown("a\r\nBcc: b@c.de"), "Subject: =?utf-8?q?a__Bcc=3A_b=40c=2Ede?=\r\n");
    }

    #[test]
    fn no_line_is_longer_than_76() {
        for text in ["x".repeat(998), "😀".repeat(998), "word ".repeat(199), " ".repeat(998)] {
            assert!(shown(&text).lines().all(|line| line.len() <= 76), "{}", shown(&text));
        }
    }
}
