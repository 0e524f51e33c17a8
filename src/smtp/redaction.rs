//! What a server may echo and nobody may read is taken out of its replies before they are kept.
//!
//! A server has heard the login, and in a transaction the addresses and the message. Each word is
//! found in any case and in the encodings of RFC 3461 4 (`+40`), URLs (`%40`) and quoted-printable
//! (`=40`). Of the bodies only long words are: links and tokens, not the words of a sentence.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;

use crate::core::notification::{Address, Content};
use crate::core::provider::{Credentials, Smtp};

/// Shorter words of a content may stand in any reply.
const CONTENT_WORD_BYTES_MIN: usize = 12;
/// A part of a token that is shorter tells nothing.
const PART_BYTES_MIN: usize = 8;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Redaction<'a> {
    words: Vec<Word>,
    /// In lower case, and what stands for a part of it.
    long: Vec<(String, &'static str)>,
    content: Option<&'a Content>,
}

#[derive(Clone)]
struct Word {
    /// In lower case; a reply holds `?` for what is not ASCII, so an echo does too.
    folded: Vec<u8>,
    stand_in: &'static str,
    /// Only where no letter or digit touches it: it may be short, or a part of plain words.
    is_whole: bool,
}

impl Redaction<'_> {
    /// For a connection to this server: hides the login, plain and as AUTH writes it.
    pub(super) fn of(smtp: &Smtp) -> Redaction<'static> {
        let mut redaction = Redaction::default();
        if let Some(credentials) = &smtp.credentials {
            let Credentials { username, .. } = credentials;
            for (purpose, secret) in credentials.secrets() {
                let Some(secret) = secret.loaded() else { continue };
                let secret = secret.expose_secret();
                let plain = format!("\0{username}\0{secret}");
                redaction.hide_encoded(&plain);
                redaction.hide_encoded(secret);
                redaction.hide(secret, purpose.stand_in, false);
            }
            redaction.hide_encoded(username);
            redaction.hide(username, "<username>", true);
        }
        redaction
    }

    /// For a transaction on that connection. `recipients` are the forms of the one recipient.
    pub(super) fn about<'c>(&self, recipients: &[String], content: &'c Content) -> Redaction<'c> {
        let (words, long) = (self.words.clone(), self.long.clone());
        let mut redaction = Redaction { words, long, content: Some(content) };
        let reply_to = content.reply_to.as_ref().map(Address::as_str);
        let recipients = recipients.iter().map(|address| (address.as_str(), "<recipient>"));
        for (address, stand_in) in recipients.chain(reply_to.map(|address| (address, "<reply-to>")))
        {
            redaction.hide(address, stand_in, false);
            let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
            redaction.hide(local, stand_in, true);
        }
        redaction.hide(&content.subject, "<subject>", true);
        redaction
    }

    /// The first so many characters of `text`, which is printable ASCII, without what is hidden.
    pub(super) fn apply(&self, text: &str, chars_max: usize) -> String {
        let mut text = self.words.iter().fold(text.to_owned(), |text, word| {
            let text = word.replaced(&text, false);
            word.replaced(&text, true)
        });
        text = self.without_parts(text);
        // Behind the words, so that none is cut in half; before the search of a large content.
        text.truncate(chars_max);
        self.without_content(text)
    }

    fn hide(&mut self, word: &str, stand_in: &'static str, is_whole: bool) {
        let folded: Vec<u8> = word.trim().bytes().map(fold).collect();
        if !folded.is_empty() {
            self.words.push(Word { folded, stand_in, is_whole });
        }
    }

    /// Hides what is longer than a server may quote it: any part of it, up to the next character that
    /// neither a token nor base64 has.
    pub(super) fn hide_parts(&mut self, long: &str, stand_in: &'static str) {
        self.long.push((long.to_ascii_lowercase(), stand_in));
    }

    fn without_parts(&self, text: String) -> String {
        if self.long.is_empty() {
            return text;
        }
        let is_of_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let mut shown = String::with_capacity(text.len());
        for piece in text.split_inclusive(|c| !is_of_token(c)) {
            let (run, end) =
                piece.split_at(piece.rfind(|c| !is_of_token(c)).unwrap_or(piece.len()));
            let folded = run.to_ascii_lowercase();
            let is_part = |long: &str| {
                let parts = folded.as_bytes().windows(PART_BYTES_MIN);
                parts.flat_map(str::from_utf8).any(|part| long.contains(part))
            };
            let found = self.long.iter().find(|(long, _)| is_part(long));
            shown.push_str(found.map_or(run, |(_, stand_in)| stand_in));
            shown.push_str(end);
        }
        shown
    }

    fn hide_encoded(&mut self, word: &str) {
        let encoded = STANDARD.encode(word);
        self.hide(&encoded, "<credentials>", false);
        self.hide(encoded.trim_end_matches('='), "<credentials>", true);
    }

    fn without_content(&self, text: String) -> String {
        let Some(content) = self.content else { return text };
        let places = [Some(&content.subject), content.text.as_ref(), content.html.as_ref()];
        let echoes = |word: &&str| {
            let is_at = |place: &String| {
                place
                    .as_bytes()
                    .windows(word.len())
                    .any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
            };
            word.len() >= CONTENT_WORD_BYTES_MIN && places.into_iter().flatten().any(is_at)
        };
        let ends_word = |c: char| c.is_whitespace() || "<>()[]\"',;".contains(c);
        let words = text.split(ends_word).map(|word| word.trim_end_matches(['.', ':', '!', '?']));
        let echoed: Vec<&str> = words.filter(echoes).collect();
        echoed.into_iter().fold(text.clone(), |text, word| text.replace(word, "<content>"))
    }
}

impl Word {
    fn replaced(&self, text: &str, is_encoded: bool) -> String {
        let letters = letters(text, is_encoded);
        let is_open = |letter: Option<&(u8, usize)>| {
            letter.is_none_or(|(byte, _)| !byte.is_ascii_alphanumeric())
        };
        let count = self.folded.len();
        let (mut shown, mut shown_to, mut at) = (String::with_capacity(text.len()), 0, 0);
        while let Some(window) = letters.get(at..at + count) {
            let is_here = window.iter().map(|(byte, _)| byte).eq(&self.folded);
            let is_whole = || is_open(letters[..at].last()) && is_open(letters.get(at + count));
            if is_here && (!self.is_whole || is_whole()) {
                let begin = at.checked_sub(1).map_or(0, |before| letters[before].1);
                shown.push_str(&text[shown_to..begin]);
                shown.push_str(self.stand_in);
                shown_to = window[count - 1].1;
                at += count;
            } else {
                at += 1;
            }
        }
        shown.push_str(&text[shown_to..]);
        shown
    }
}

/// Each letter of `text`, folded, and where it ends. With `is_encoded` a sign and two hexadecimal
/// digits are the one letter that they stand for.
fn letters(text: &str, is_encoded: bool) -> Vec<(u8, usize)> {
    let bytes = text.as_bytes();
    let mut letters = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| is_encoded && b"%+=".contains(byte));
        let decoded = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if decoded.is_some() { 3 } else { 1 };
        letters.push((fold(decoded.unwrap_or(*byte)), at));
    }
    letters
}

fn fold(byte: u8) -> u8 {
    if matches!(byte, b' '..=b'~') { byte.to_ascii_lowercase() } else { b'?' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::provider::{Password, Security};
    use proptest::prelude::*;

    fn smtp(username: &str, password: &str) -> Smtp {
        let password = Password::Loaded(password.to_owned().into());
        let credentials = Some(Credentials::with_password(username, password));
        Smtp { credentials, ..Smtp::new("localhost", 25, Security::Plaintext) }
    }

    fn content() -> Content {
        Content {
            subject: "Access to prod-1".into(),
            html: Some("<a href=\"https://example.com/approve/8c1f\">Approve</a>".into()),
            text: Some("Alice asks for cluster-admin.".into()),
            reply_to: Some(Address::parse("sec@example.com").expect("valid")),
        }
    }

    fn shown(text: &str) -> String {
        let content = content();
        let recipients = ["ada@example.com".to_owned(), "грета@example.com".to_owned()];
        Redaction::of(&smtp("mailer", "s3cret=")).about(&recipients, &content).apply(text, 500)
    }

    #[test]
    fn an_address_is_hidden_in_any_case_and_encoding() {
        for echo in [
            "<Ada@EXAMPLE.com>",
            "<ada%40example.com>",
            "<ada+40Example.com>",
            "<ada=40example.com>",
            "<%61%64%61@example.com>",
            "<??????????@example.com>",
            "<ADA>",
        ] {
            assert_eq!(shown(&format!("{echo}: no")), "<<recipient>>: no", "{echo}");
        }
        assert_eq!(shown("SEC@example.com is unknown"), "<reply-to> is unknown");
        assert_eq!(shown("adamant sections"), "adamant sections");
    }

    #[test]
    fn a_login_is_hidden_as_it_is_and_as_auth_writes_it() {
        let encoded = |text: &str| STANDARD.encode(text);
        assert_eq!(shown("bad S3cret=, mailer"), "bad <password>, <username>");
        assert_eq!(shown("xs3cret%3Dx"), "x<password>x");
        let line = encoded("\0mailer\0s3cret=");
        assert_eq!(shown(&format!("AUTH PLAIN {line} what?")), "AUTH PLAIN <credentials> what?");
        for word in ["s3cret=", "mailer"] {
            assert_eq!(shown(&encoded(word)), "<credentials>");
            assert_eq!(shown(encoded(word).trim_end_matches('=')), "<credentials>");
        }
    }

    #[test]
    fn a_token_is_hidden_in_part_too_and_as_auth_writes_it() {
        let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL291dGxvb2sifQ.c2ln";
        let line = STANDARD.encode(format!("user=mailer\x01auth=Bearer {token}\x01\x01"));
        let mut redaction = Redaction::of(&smtp("mailer", "none"));
        redaction.hide_parts(token, "<access-token>");
        redaction.hide_parts(&line, "<credentials>");
        let shown = |text: &str| redaction.apply(text, 500);
        assert_eq!(shown(&format!("Bearer {token}, no")), "Bearer <access-token>, no");
        assert_eq!(shown(&format!("AUTH XOAUTH2 {line}")), "AUTH XOAUTH2 <credentials>");
        assert_eq!(shown(&format!("what is {}?", &line[..40])), "what is <credentials>?");
        assert_eq!(shown(&format!("\"{}\"", &token[20..30].to_uppercase())), "\"<access-token>\"");
        assert_eq!(
            shown("5.7.3 Authentication unsuccessful [x.prod.outlook.com]"),
            "5.7.3 Authentication unsuccessful [x.prod.outlook.com]"
        );
    }

    #[test]
    fn a_content_is_hidden_but_not_the_words_that_everybody_uses() {
        assert_eq!(shown("spam: ACCESS TO PROD-1"), "spam: <subject>");
        assert_eq!(shown("listed: https://example.com/approve/8c1f."), "listed: <content>.");
        assert_eq!(shown("Alice asks for <Cluster-Admin>"), "Alice asks for <<content>>");
        assert_eq!(shown("not authenticated, no access"), "not authenticated, no access");
    }

    proptest! {
        #[test]
        fn no_reply_breaks_it_and_no_password_is_left(
            before in "[ -~]{0,40}", password in "[ -~]{8,20}", after in "[ -~]{0,40}",
        ) {
            let redaction = Redaction::of(&smtp("u", &password));
            let left = redaction.apply(&format!("{before}{password}{after}"), 500);
            prop_assert!(!left.contains(password.trim()), "{}", left);
        }
    }
}
