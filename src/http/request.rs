//! The body of `POST /notify`: its shape, what it asks for, and the identity of what was asked.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use sha2::{Digest, Sha256};

use super::fields::{Field, LIST_LEN_MAX, Object};
use super::params::NOT_A_PROVIDER_NAME;
use super::problem::{FieldError, Problem};
use crate::core::notification::{Address, Content};
use crate::core::provider::ProviderName;
use crate::core::route::{Catalog, Wish, is_reference};
use crate::core::time::Time;

/// What a caller asked for, checked by itself: names may still lead nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotifyRequest {
    /// Without repeats; `None` when the escalation is to say.
    recipients: Option<Vec<Address>>,
    /// What they read.
    pub(super) content: Content,
    /// `mailProvider`.
    provider: Option<ProviderName>,
    /// `name` or `namespace/name`.
    escalation: Option<String>,
    /// `name` or `namespace/name`.
    cluster: Option<String>,
    /// The caller's own end of life for it. May be past.
    pub(super) expires_at: Option<Time>,
}

/// No subject is longer (RFC 5322 2.1.1 has no longer line).
pub(super) const SUBJECT_LEN_MAX: usize = 998;

impl NotifyRequest {
    /// Reads a request. `now` only completes the list of faults.
    ///
    /// # Errors
    /// 400 when the bytes are not JSON, 422 with every bad field when they have another shape.
    pub(super) fn parse(bytes: &[u8], now: Time) -> Result<Self, Problem> {
        let mut object = Object::parse(bytes)?;
        let recipients = recipients(&mut object);
        if !object.has("subject") {
            object.refuse("/subject", "is required");
        }
        let subject = object.checked("subject", subject);
        let (html, text) = bodies(&mut object);
        let reply_to = object.checked("replyTo", Address::parse);
        let provider = object
            .checked("mailProvider", |name| ProviderName::new(name).ok_or(NOT_A_PROVIDER_NAME));
        let escalation = object.checked("escalation", reference);
        let cluster = object.checked("cluster", reference);
        let expires_at = object.checked("expiresAt", instant);
        if 0 < object.errors_count()
            && let Err(late) = not_past(expires_at, now)
        {
            object.refuse(late.pointer, late.detail);
        }
        object.finish()?;
        // A subject that is missing or bad is among the errors that were answered just now.
        let subject = subject.unwrap_or_default();
        let content = Content { subject, html, text, reply_to };
        Ok(Self { recipients, content, provider, escalation, cluster, expires_at })
    }

    /// What it asks the routing for.
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish {
            provider: self.provider.as_ref().map(ProviderName::as_str),
            escalation: self.escalation.as_deref(),
            cluster: self.cluster.as_deref(),
        }
    }

    /// To whom it goes: at least one and at most 100 recipients, without repeats.
    ///
    /// # Errors
    /// 422 when its end of life is past, or when it leaves the recipients to an escalation that
    /// names none.
    pub(super) fn recipients(&self, catalog: &Catalog, now: Time) -> Result<Vec<Address>, Problem> {
        let mut errors = Vec::new();
        if let Err(late) = not_past(self.expires_at, now) {
            errors.push(late);
        }
        let recipients = self.recipients.clone().unwrap_or_else(|| {
            let named = self.escalation.as_deref().and_then(|name| catalog.escalation(name));
            without_repeats(named.into_iter().flat_map(|e| e.notification_mails.clone()))
        });
        if recipients.is_empty() {
            let rule = "is required unless the escalation names notificationMails";
            errors.push(FieldError::new("/recipients", rule));
        }
        if recipients.len() > LIST_LEN_MAX {
            let rule = "names more than 100 notificationMails";
            errors.push(FieldError::new("/escalation", rule));
        }
        if errors.is_empty() { Ok(recipients) } else { Err(Problem::invalid(errors)) }
    }

    /// SHA-256 of what was asked: the same for every spelling of the same request.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // Each value goes in behind its length, so no two requests hash the same bytes; an absent
        // one has a length that no value has.
        let mut put = |value: Option<&str>| match value {
            Some(value) => {
                hash.update((value.len() as u64).to_be_bytes());
                hash.update(value);
            }
            None => hash.update(u64::MAX.to_be_bytes()),
        };
        let Content { subject, html, text, reply_to } = &self.content;
        put(Some(subject));
        put(html.as_deref());
        put(text.as_deref());
        put(reply_to.as_ref().map(Address::as_str));
        put(self.provider.as_ref().map(ProviderName::as_str));
        put(self.escalation.as_deref());
        put(self.cluster.as_deref());
        put(self.expires_at.map(|time| time.0.to_string()).as_deref());
        for recipient in self.recipients.iter().flatten() {
            put(Some(recipient.as_str()));
        }
        hash.finalize().into()
    }
}

fn recipients(object: &mut Object) -> Option<Vec<Address>> {
    if !object.has("recipients") && !object.has("escalation") {
        object.refuse("/recipients", "is required unless an escalation names notificationMails");
    }
    let items = object.list("recipients")?;
    if items.is_empty() {
        object.refuse("/recipients", "must name at least one recipient");
    }
    if items.len() > LIST_LEN_MAX {
        object.refuse("/recipients", "must name at most 100 recipients");
        return None;
    }
    let mut addresses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let parsed: Result<Address, Cow<'static, str>> = match item {
            Field::Text(text) => Address::parse(text).map_err(Into::into),
            other => Err(format!("must be a string, not {}", other.kind()).into()),
        };
        match parsed {
            Ok(address) => addresses.push(address),
            Err(rule) => object.refuse(format!("/recipients/{index}"), rule),
        }
    }
    Some(without_repeats(addresses))
}

fn without_repeats(addresses: impl IntoIterator<Item = Address>) -> Vec<Address> {
    let mut kept: Vec<Address> = Vec::new();
    for address in addresses {
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

fn subject(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("must not be blank");
    }
    if text.chars().count() > SUBJECT_LEN_MAX {
        return Err("must have at most 998 characters");
    }
    // Whatever ends a line or starts an escape sequence would leave the header or the terminal.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("must not contain line breaks or control characters");
    }
    Ok(text.to_owned())
}

/// HTML and plain text; an empty one counts as absent.
fn bodies(object: &mut Object) -> (Option<String>, Option<String>) {
    if object.has("body") && object.has("html") {
        object.refuse("/body", "must not be given with html: it is another name for it");
    }
    let faults_before = object.errors_count();
    let mut body = |name| object.checked(name, without_nul).filter(|text| !text.is_empty());
    let (html, body, text) = (body("html"), body("body"), body("text"));
    let html = html.or(body);
    // A body that is there but bad is not also missing.
    let is_faultless = object.errors_count() == faults_before;
    if html.is_none() && text.is_none() && is_faultless {
        object.refuse("/text", "is required, or html: at least one must not be empty");
    }
    (html, text)
}

fn without_nul(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') { Err("must not contain NUL") } else { Ok(text.to_owned()) }
}

fn reference(name: &str) -> Result<String, &'static str> {
    let rule = "must be a name or namespace/name: lower-case letters, digits, hyphens and dots";
    if is_reference(name) { Ok(name.to_owned()) } else { Err(rule) }
}

/// A date and time of RFC 3339 5.6.
fn instant(text: &str) -> Result<Time, &'static str> {
    const RULE: &str = "must be a date and time like 2030-01-01T00:00:00Z";
    // jiff reads more than RFC 3339, so the form is looked at first.
    let pieces = has_instant_form(text).then(|| Pieces::parse(text).ok()).flatten();
    let pieces = pieces.ok_or(RULE)?;
    let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else {
        return Err(RULE);
    };
    // The last hours of the year 9999 are beyond jiff's last instant, and as far away as that.
    let instant = offset.to_timestamp(pieces.date().to_datetime(time)).unwrap_or(Timestamp::MAX);
    // Before 1970 is as past as 1970.
    Ok(Time(u64::try_from(instant.as_millisecond()).unwrap_or(0)))
}

/// Whether the separators and the end of `text` are those of RFC 3339.
fn has_instant_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !matches!(bytes[10], b'T' | b't') {
        return false;
    }
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let (time, mut zone) = bytes.split_at(19);
    if let [b'.', fraction @ ..] = zone {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        zone = &fraction[digits..];
    }
    let is_zone = match zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', _, _] => hours.len() == 2,
        _ => false,
    };
    is_zone && separators.iter().all(|(index, separator)| time[*index] == *separator)
}

fn not_past(expires_at: Option<Time>, now: Time) -> Result<(), FieldError> {
    match expires_at {
        Some(time) if time <= now => Err(FieldError::new("/expiresAt", "must be in the future")),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
