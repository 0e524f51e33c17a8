//! The kinds of strings in the API: types that only lend their schema to fields of type `String`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::core::job::{AttemptOutcome, DeadReason};
use crate::core::notification::ADDRESS_BYTES_MAX;
use crate::core::outcome;
use crate::core::provider::{NAME_LEN_MAX, Security};
use crate::core::route;
use crate::http::notify::KEY_LEN_MAX;
use crate::http::params::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::providers::security;
use crate::http::view::REDRIVES;
use crate::queue::Phase;

macro_rules! schemas {
    ($is_inline:literal: $($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub(in crate::http) enum $name {}

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                $is_inline
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

/// A DNS subdomain (RFC 1123), without its bound.
macro_rules! subdomain {
    () => {
        concat!(subdomain!(label), r"(\.", subdomain!(label), ")*")
    };
    (label) => {
        "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    };
}

// One word of a closed list: with a name of its own in the document.
schemas! { false:
    /// Where a job stands.
    JobState = {
        "type": "string",
        "description": "Where a job stands: due, being tried, waiting for its backoff, or at its end.",
        "enum": Phase::ALL.map(Phase::as_str),
    };
    /// Why a job was given up.
    Reason = {
        "type": "string",
        "description": "Why a job was given up: refused for good, put off for too long, no provider \
            to be reached, too old, or our own fault.",
        "enum": DeadReason::ALL.map(DeadReason::as_str),
    };
    /// Whether a dead letter goes out again by itself.
    Redrive = {
        "type": "string",
        "description": "Whether a dead letter goes out by itself when its provider recovers.",
        "enum": REDRIVES,
    };
    /// Where an attempt ended.
    Stage = {
        "type": "string",
        "description": "Where in the SMTP dialogue an attempt ended; `dot` is the end of the message.",
        "enum": outcome::Stage::ALL.map(outcome::Stage::as_str),
    };
    /// What an attempt learned.
    Outcome = {
        "type": "string",
        "description": "What came of an attempt: 2yz, 4yz or 5yz about the message, the provider at \
            fault, or our own code.",
        "enum": AttemptOutcome::ALL.map(AttemptOutcome::as_str),
    };
    /// Where a provider can be named.
    Level = {
        "type": "string",
        "description": "Where a provider can be named, in the order of the chain: in the request, by \
            the escalation, by the cluster, or by being the default.",
        "enum": route::Level::ALL.map(route::Level::as_str),
    };
    /// What became of a level.
    Decision = {
        "type": "string",
        "description": "What became of a level: its provider is in the chain, or was already, or is \
            disabled or does not exist; the escalation or cluster does not exist; nothing names a \
            provider there; or the request names nothing there.",
        "enum": route::Decision::ALL.map(route::Decision::as_str),
    };
    /// How connections to a server are protected.
    Protection = {
        "type": "string",
        "description": "How connections are protected: by TLS from the first byte, by STARTTLS \
            always or where it is offered, or not at all.",
        "enum": Security::ALL.map(security),
    };
}

schemas! { true:
    /// A UUIDv7.
    Id = {"type": "string", "format": "uuid"};
    /// The name of a MailProvider.
    Name = {
        "type": "string",
        "maxLength": NAME_LEN_MAX,
        "pattern": concat!("^", subdomain!(), "$"),
    };
    /// `name` or `namespace/name`.
    Reference = {
        "type": "string",
        "maxLength": 2 * NAME_LEN_MAX + 1,
        "pattern": concat!("^(", subdomain!(), "/)?", subdomain!(), "$"),
    };
    /// The address of a recipient or sender.
    Mailbox = {"type": "string", "format": "idn-email", "maxLength": ADDRESS_BYTES_MAX};
    /// A part of an address.
    MailboxPart = {"type": "string", "minLength": 1, "maxLength": ADDRESS_BYTES_MAX};
    /// An enhanced status code (RFC 3463).
    EnhancedCode = {"type": "string", "pattern": r"^[245]\.[0-9]+\.[0-9]+$"};
    /// How many items a page has.
    Limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT};
    /// Where a page of jobs begins.
    JobCursor = {"type": "string", "format": "uuid"};
    /// Where a page of dead letters begins.
    DeadCursor = {"type": "string", "pattern": "^[0-9]{1,19}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"};
    /// What else is to be shown.
    Include = {"type": "string", "const": "content"};
    /// An `Idempotency-Key`.
    Key = {"type": "string", "minLength": 1, "maxLength": KEY_LEN_MAX, "pattern": "^[!-~]+$"};
}
