//! What is wrong with a field, worded as the Kubernetes API server words it.

use std::fmt;

/// One refusal of one field. Its `Display` is the whole text, path included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FieldError {
    /// The field: `spec.smtp.port`, `spec.notificationMails[0]`.
    pub path: String,
    /// The whole text: `spec.smtp.port: Invalid value: 0: …`.
    pub message: String,
}

impl FieldError {
    /// A field that must be there, or must not be empty. `detail` may be empty.
    #[must_use]
    pub fn required(path: &str, detail: &str) -> Self {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Self::new(path, format!("{path}: Required value{detail}"))
    }

    /// A value that breaks a rule. `value` is shown as it is: see [`quoted`] for text.
    #[must_use]
    pub fn invalid(path: &str, value: impl fmt::Display, detail: &str) -> Self {
        Self::new(path, format!("{path}: Invalid value: {value}: {detail}"))
    }

    /// A value that breaks a rule and is not shown, because it may hold a password.
    #[must_use]
    pub fn invalid_hidden(path: &str, detail: &str) -> Self {
        Self::new(path, format!("{path}: Invalid value: {detail}"))
    }

    /// A value that is right by itself but not allowed here.
    #[must_use]
    pub fn forbidden(path: &str, detail: &str) -> Self {
        Self::new(path, format!("{path}: Forbidden: {detail}"))
    }

    /// A field that the schema does not have.
    #[must_use]
    pub fn unknown(path: &str) -> Self {
        Self::new(path, format!("unknown field {path:?}"))
    }

    fn new(path: &str, message: String) -> Self {
        Self { path: path.to_owned(), message }
    }
}

/// `text` in quotes, control characters escaped, cut after 64 characters.
#[must_use]
pub fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_a_control_character_is_escaped() {
        assert_eq!(quoted("a\r\nb"), r#""a\r\nb""#);
        assert_eq!(quoted(&"ü".repeat(64)), format!("\"{}\"", "ü".repeat(64)));
        assert_eq!(quoted(&"ü".repeat(65)), format!("\"{}…\"", "ü".repeat(64)));
    }
}
