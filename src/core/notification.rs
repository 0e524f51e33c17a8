//! What a client posts, checked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::job::JobId;
use super::provider::ProviderName;
use super::time::Time;
use super::trace::TraceContext;

/// Names one notification. A UUIDv7 (RFC 9562), so ids sort by the time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationId(pub Uuid);

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NotificationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// One mailbox: `local@domain` with a dot-atom local part (RFC 5321 4.1.2, RFC 6531 for non-ASCII).
///
/// Quoted local parts and address literals are not accepted. The domain is kept in lower case. The
/// local part is at most 64 octets, the domain at most 255 and the whole at most 254.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

/// No address is longer (RFC 5321 4.5.3.1.3, without the angle brackets).
pub const ADDRESS_BYTES_MAX: usize = 254;

impl Address {
    /// Checks `text`; the error is the rule that it breaks.
    ///
    /// # Errors
    /// The rule, as a phrase that fits after "the address".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("must not be empty");
        }
        if text.len() > ADDRESS_BYTES_MAX {
            return Err("must be at most 254 octets");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || is_invisible(c)) {
            return Err("must not contain spaces, control or invisible characters");
        }
        let (local, domain) = text.rsplit_once('@').ok_or("must have the form local@domain")?;
        if local.is_empty() || domain.is_empty() {
            return Err("must have the form local@domain");
        }
        if local.len() > 64 {
            return Err("must have a local part of at most 64 octets");
        }
        if local.split('.').any(|atom| atom.is_empty() || !atom.chars().all(is_atext)) {
            return Err("must have a local part of letters, digits, dots and !#$%&'*+-/=?^_`{|}~");
        }
        if !domain.split('.').all(is_label) {
            return Err("must have a domain of labels of letters, digits and hyphens");
        }
        if domain.split('.').next_back().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit())) {
            return Err("must have a domain name, not an IP address");
        }
        Ok(Self(format!("{local}@{}", domain.to_lowercase()).into()))
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        self.parts().0
    }

    /// The part after the `@`, in lower case, as Unicode or A-labels just as it was given.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.rsplit_once('@').expect("an address has an @")
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    /// Masked: what is shown for debugging may be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.local().chars().next().unwrap_or_default();
        write!(f, "{first}…@{}", self.domain())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of an address, for searching: 1 to 254 characters, whose case does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPart(String);

impl AddressPart {
    /// Takes any text that is not empty and not longer than an address.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_fine = (1..=ADDRESS_BYTES_MAX).contains(&text.chars().count());
        is_fine.then(|| Self(text.to_lowercase()))
    }

    /// Whether the address contains it.
    #[must_use]
    pub fn is_in(&self, address: &Address) -> bool {
        let (text, part) = (address.0.as_bytes(), self.0.as_bytes());
        if text.is_ascii() {
            // The usual case, and it may be asked of every job that waits.
            return text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
        }
        address.0.to_lowercase().contains(&self.0)
    }
}

fn is_atext(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// Zero-width and direction-changing characters: an address that shows as another one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{ad}' | '\u{fff9}'..='\u{fffd}')
}

/// One label of a domain name: 1 to 63 octets, no hyphen at either end (RFC 1035 2.3.1, RFC 5890).
pub(crate) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '-')
}

/// What every recipient of a notification reads: the same over all attempts and providers.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// At most 998 characters, one line.
    pub subject: String,
    /// The HTML body. At least one of the two bodies is there.
    pub html: Option<String>,
    /// The plain text body.
    pub text: Option<String>,
    /// Where an answer goes, when not to the sender.
    pub reply_to: Option<Address>,
}

impl fmt::Debug for Content {
    /// Shows sizes only: contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("subject_bytes", &self.subject.len())
            .field("html_bytes", &self.html.as_ref().map(String::len))
            .field("text_bytes", &self.text.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}

/// An accepted notification without its contents: what is listed and shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its name.
    pub id: NotificationId,
    /// The subject, for lists.
    pub subject: String,
    /// When it was accepted; also the `Date` of its messages.
    pub accepted_at: Time,
    /// The caller's own end of life for it.
    pub expires_at: Option<Time>,
    /// The providers that its jobs may use, in order, as chosen when it was accepted.
    pub chain: Arc<[ProviderName]>,
    /// What the caller was told about names that led nowhere.
    pub warnings: Vec<String>,
    /// Its jobs, in the order of the recipients in the request.
    pub jobs: Vec<(JobId, Address)>,
    /// The span that it was accepted in, which its attempts follow.
    pub trace: Option<Arc<TraceContext>>,
}

impl fmt::Debug for Notification {
    /// Without the subject.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("id", &self.id)
            .field("accepted_at", &self.accepted_at)
            .field("expires_at", &self.expires_at)
            .field("chain", &self.chain)
            .field("warnings", &self.warnings)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_address_is_found_in_any_case() {
        let address = Address::parse("Ada.Größe@Example.com").expect("valid");
        let is_in = |text| AddressPart::new(text).expect("a part").is_in(&address);
        assert!(is_in("ada") && is_in("GRÖ") && is_in("E@EXAMPLE.COM"));
        let ascii = Address::parse("Bob@example.com").expect("valid");
        assert!(AddressPart::new("B@EX").expect("a part").is_in(&ascii));
        assert!(!AddressPart::new("ß").expect("a part").is_in(&ascii));
        assert!(!is_in("adaa") && !is_in(" "));
        assert!(AddressPart::new("").is_none() && AddressPart::new(&"a".repeat(255)).is_none());
    }

    #[test]
    fn debugging_shows_no_content_and_no_whole_address() {
        let address = Address::parse("secret@example.com").expect("valid");
        assert_eq!(format!("{address:?}"), "s…@example.com");
        let content = Content {
            subject: "a secret".into(),
            html: Some("a secret".into()),
            text: Some("a secret".into()),
            reply_to: Some(address.clone()),
        };
        let notification = Notification {
            id: NotificationId(Uuid::nil()),
            subject: content.subject.clone(),
            accepted_at: Time(0),
            expires_at: None,
            chain: Arc::new([]),
            warnings: vec![],
            jobs: vec![(JobId(Uuid::nil()), address)],
            trace: None,
        };
        let shown = format!("{content:?} {notification:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn an_address_is_one_dot_atom_and_one_domain() {
        for good in ["a@example.com", "a.b+c@x.example", "o'neil@example.com", "грета@пример.рф"]
        {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "a",
            "@example.com",
            "a@",
            "a.@example.com",
            ".a@example.com",
            "a..b@example.com",
            "a@.example.com",
            "a@example.com.",
            "a@example..com",
            " a@example.com",
            "a@example.com ",
            "a\0b@example.com",
            "a@b@example.com",
            "a@example.com,evil@example.net",
            "a@example.com;b@example.net",
            "Alice <a@example.com>",
            "<a@example.com>",
            "a(c)@example.com",
            "\"a b\"@example.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@-x.example",
            "a@exa_mple.com",
            "a\r\nb@example.com",
            "a\u{200b}@example.com",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Address::parse(&format!("{}@example.com", "a".repeat(65))).is_err());
        assert!(Address::parse(&format!("{}@example.com", "a".repeat(64))).is_ok());
    }

    #[test]
    fn a_domain_is_compared_without_case_and_a_local_part_with_it() {
        let parse = |text| Address::parse(text).expect("valid");
        assert_eq!(parse("A@Example.COM"), parse("A@example.com"));
        assert_ne!(parse("A@example.com"), parse("a@example.com"));
    }
}
