//! The fields of the new MailProvider and what they were called.

/// A field of the MailProvider, and its old names.
pub(super) struct Field {
    pub(super) path: &'static str,
    pub(super) old: &'static [&'static str],
}

/// In the order in which they are printed.
pub(super) const FIELDS: [Field; 9] = [
    Field { path: "spec.smtp.host", old: &["mail.host"] },
    Field { path: "spec.smtp.port", old: &["mail.port"] },
    Field { path: USERNAME, old: &["mail.username", "mail.user"] },
    Field { path: "spec.smtp.insecureSkipVerify", old: &["mail.insecureSkipVerify"] },
    Field { path: "spec.sender.address", old: &["mail.sender.address", "mail.senderAddress"] },
    Field { path: "spec.sender.name", old: &["mail.sender.name", "mail.senderName"] },
    Field { path: "spec.retry.count", old: &["mail.retry.count", "mail.retryCount"] },
    Field {
        path: "spec.retry.initialBackoffMs",
        old: &["mail.retry.initialBackoffMs", "mail.retryBackoffMs"],
    },
    Field { path: "spec.retry.queueSize", old: &["mail.retry.queueSize", "mail.queueSize"] },
];

pub(super) const USERNAME: &str = "spec.smtp.username";
pub(super) const PASSWORD: Field = Field { path: "spec.smtp.passwordRef", old: &["mail.password"] };

/// Where the controller took 0 for its own default.
pub(super) const ZERO_IS_NOTHING: [&str; 3] =
    ["mail.retryCount", "mail.retryBackoffMs", "mail.queueSize"];
