//! The bodies of requests. They are read by hand, so that every fault is told at once; here is what
//! that reading takes, by the same constants.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::strings::{Mailbox, MailboxPart, Name, Reason, Reference};
use crate::http::fields::LIST_LEN_MAX;
use crate::http::request::{NotifyRequest, SUBJECT_LEN_MAX};

/// One line that is not blank: no control characters, and somewhere something to read.
const SUBJECT: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*",
    r"[^\s\u0000-\u001f\u007f-\u009f\u2028\u2029]",
    r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$",
);

/// Without NUL.
const BODY: &str = r"^[^\u0000]*$";

impl JsonSchema for NotifyRequest {
    fn schema_name() -> Cow<'static, str> {
        "NotifyRequest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let recipients = json!({
            "type": "array",
            "items": generator.subschema_for::<Mailbox>(),
            "minItems": 1,
            "maxItems": LIST_LEN_MAX,
        });
        let subject = json!({"type": "string", "maxLength": SUBJECT_LEN_MAX, "pattern": SUBJECT});
        let body = json!({"type": "string", "pattern": BODY});
        let fields = properties([
            (
                "recipients",
                "Each gets a message of its own and sees no other. May be left out when the \
                 escalation names `notificationMails`.",
                recipients,
            ),
            ("subject", "One line, not blank.", subject),
            ("html", "The message as HTML.", body.clone()),
            ("body", "Another name for `html`.", body.clone()),
            ("text", "The message as plain text.", body),
            (
                "escalation",
                "Whose provider and recipients are asked for. One that leads nowhere is skipped, \
                 with a line in `warnings`.",
                generator.subschema_for::<Reference>().into(),
            ),
            (
                "cluster",
                "Whose provider is asked for, after the escalation's. One that leads nowhere is \
                 skipped, with a line in `warnings`.",
                generator.subschema_for::<Reference>().into(),
            ),
            (
                "mailProvider",
                "The provider that is asked for first. It must exist.",
                generator.subschema_for::<Name>().into(),
            ),
            (
                "replyTo",
                "Where the recipients' answers go.",
                generator.subschema_for::<Mailbox>().into(),
            ),
            (
                "expiresAt",
                "A time in the future; from then on it is not delivered.",
                json!({"type": "string", "format": "date-time"}),
            ),
        ]);
        let filled = |name: &str| {
            let mut filled = json!({"required": [name]});
            filled["properties"][name] = json!({"minLength": 1});
            filled
        };
        json_schema!({
            "type": "object",
            "description": "A notification. It needs `recipients` or an `escalation`, and at least \
                one of `html` and `text` that is not empty.",
            "properties": fields,
            "required": ["subject"],
            "additionalProperties": false,
            "allOf": [
                {"anyOf": [{"required": ["recipients"]}, {"required": ["escalation"]}]},
                {"anyOf": [filled("html"), filled("body"), filled("text")]},
                {"not": {"required": ["html", "body"]}},
            ],
        })
    }
}

/// The body of `POST /deadletters/{id}/retry`.
pub(in crate::http) enum RetryRequest {}

impl JsonSchema for RetryRequest {
    fn schema_name() -> Cow<'static, str> {
        "RetryRequest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        json_schema!({
            "type": "object",
            "properties": properties([
                ("mailProvider", "Its only provider from now on. Must exist.", name.into()),
            ]),
            "additionalProperties": false,
        })
    }
}

/// The body of `POST /deadletters/retry`.
pub(in crate::http) enum RetryFilter {}

impl JsonSchema for RetryFilter {
    fn schema_name() -> Cow<'static, str> {
        "RetryFilter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        let reason = generator.subschema_for::<Reason>();
        json_schema!({
            "type": "object",
            "properties": properties([
                ("provider", "Only those of this provider.", name.into()),
                ("reason", "Only those that were given up for this reason.", reason.into()),
                (
                    "recipient",
                    "Only those to a recipient whose address contains this, in any case.",
                    generator.subschema_for::<MailboxPart>().into(),
                ),
            ]),
            "additionalProperties": false,
        })
    }
}

/// Fields, each with its name, its description and its schema.
fn properties<const N: usize>(fields: [(&str, &str, Value); N]) -> Map<String, Value> {
    let described = fields.into_iter().map(|(name, description, mut schema)| {
        schema["description"] = description.into();
        (name.to_owned(), schema)
    });
    described.collect()
}
