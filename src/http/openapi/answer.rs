//! The answers of an operation, and its problems as answers by their status.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::Generate;
use crate::http::problem::{Problem, ProblemBody, ProblemKind};

/// An answer that is no problem.
pub(in crate::http) struct Answer {
    pub(super) status: StatusCode,
    description: &'static str,
    /// Its media type and what it holds; `None` when it is empty.
    content: Option<(&'static str, Generate)>,
    example: Option<Value>,
    headers: Map<String, Value>,
}

impl Answer {
    /// Of JSON.
    pub(in crate::http) fn json<T: JsonSchema>(
        status: StatusCode,
        description: &'static str,
    ) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        Self { content: Some(("application/json", schema)), ..Self::empty(status, description) }
    }

    /// Of plain text.
    pub(in crate::http) fn text(description: &'static str) -> Self {
        let schema = SchemaGenerator::subschema_for::<String>;
        let content = Some(("text/plain", schema as Generate));
        Self { content, ..Self::empty(StatusCode::OK, description) }
    }

    /// Without a body.
    pub(in crate::http) fn empty(status: StatusCode, description: &'static str) -> Self {
        Self { status, description, content: None, example: None, headers: Map::new() }
    }

    /// One such answer.
    pub(in crate::http) fn example(self, example: Value) -> Self {
        Self { example: Some(example), ..self }
    }

    /// A header that it always has, or only sometimes.
    pub(in crate::http) fn header(
        mut self,
        name: &str,
        is_always_there: bool,
        description: &str,
    ) -> Self {
        let schema = json!({"type": "string"});
        self.headers.insert(name.to_owned(), header(is_always_there, description, &schema));
        self
    }

    pub(super) fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        let mut shown = Map::new();
        shown.insert("description".into(), self.description.into());
        if !self.headers.is_empty() {
            shown.insert("headers".into(), self.headers.clone().into());
        }
        if let Some((media_type, schema)) = self.content {
            let mut content = json!({"schema": schema(generator)});
            if let Some(example) = &self.example {
                content["example"] = example.clone();
            }
            shown.insert("content".into(), json!({media_type: content}));
        }
        shown.into()
    }
}

fn header(is_always_there: bool, description: &str, schema: &Value) -> Value {
    json!({"description": description, "required": is_always_there, "schema": schema})
}

/// One answer for each status that these problems have.
pub(super) fn problems(
    kinds: &[ProblemKind],
    generator: &mut SchemaGenerator,
) -> Map<String, Value> {
    let mut by_status: BTreeMap<StatusCode, Vec<ProblemKind>> = BTreeMap::new();
    for kind in kinds {
        let same = by_status.entry(kind.status()).or_default();
        if !same.contains(kind) {
            same.push(*kind);
        }
    }
    let answers = by_status.into_iter().map(|(status, kinds)| {
        (status.as_str().to_owned(), problem_answer(status, &kinds, generator))
    });
    answers.collect()
}

fn problem_answer(
    status: StatusCode,
    kinds: &[ProblemKind],
    generator: &mut SchemaGenerator,
) -> Value {
    let (mut types, mut lines, mut examples) = (Vec::new(), Vec::new(), Map::new());
    for kind in kinds {
        let problem = Problem::new(*kind, when(*kind));
        let body = problem.body();
        lines.push(format!("* `{}`: {}", body.r#type, when(*kind)));
        examples.insert(kind.name().to_owned(), json!({"value": body}));
        types.push(body.r#type);
    }
    let mut schema = generator.subschema_for::<ProblemBody<'_>>();
    // Beside the reference, so that what does not know siblings of a $ref still sees a Problem.
    schema.insert(
        "properties".into(),
        json!({"type": {"enum": types}, "status": {"const": status.as_u16()}}),
    );
    let mut headers = Map::new();
    let retried = kinds.iter().filter(|kind| kind.retry_after().is_some()).count();
    if 0 < retried {
        let text = "After how many seconds it is worth trying again.";
        let schema = json!({"type": "integer", "minimum": 1});
        headers.insert("Retry-After".into(), header(retried == kinds.len(), text, &schema));
    }
    if status == StatusCode::UNAUTHORIZED {
        let schema = json!({"type": "string"});
        headers.insert("WWW-Authenticate".into(), header(true, "`Bearer` (RFC 6750).", &schema));
    }
    let content = json!({"application/problem+json": {"schema": schema, "examples": examples}});
    let mut shown = json!({"description": lines.join("\n"), "content": content});
    if !headers.is_empty() {
        shown["headers"] = headers.into();
    }
    shown
}

/// When a problem is answered, for the caller.
fn when(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::BadRequest => {
            "The bytes, the headers or the query are not what HTTP, JSON or this path asks for."
        }
        ProblemKind::Unauthorized => "The request has no valid token.",
        ProblemKind::Forbidden => {
            "The caller may not do this; or the request came from a page of another site."
        }
        ProblemKind::NotFound => "There is nothing of this name, or no longer.",
        ProblemKind::MethodNotAllowed => "The path does not take this method.",
        ProblemKind::RequestTimeout => "The body did not arrive in time.",
        ProblemKind::KeyInUse => {
            "The first request with this idempotency key is still being answered."
        }
        ProblemKind::ContentTooLarge => "The body is too large.",
        ProblemKind::UnsupportedMediaType => "The Content-Type is not JSON in UTF-8.",
        ProblemKind::InvalidRequest => "Fields are bad: `errors` names each one.",
        ProblemKind::KeyReused => "The idempotency key was used for another request.",
        ProblemKind::Internal => "The server failed; its log says why.",
        ProblemKind::NoMailProvider => "No enabled provider can carry this notification.",
        ProblemKind::QueueFull => "The queue of the chosen provider has no place.",
        ProblemKind::StoreUnavailable => "The disk is full or cannot be read or written.",
        ProblemKind::AuthUnavailable => "Who knows the callers cannot be asked just now.",
        ProblemKind::ShuttingDown => "The server is ending, and takes nothing in any more.",
    }
}
