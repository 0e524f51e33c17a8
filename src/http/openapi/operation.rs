//! One operation: its parameters, its body, its answers, and every problem that it may end in.

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::answer::{Answer, problems};
use super::strings::Id;
use crate::http::auth::is_open;
use crate::http::problem::ProblemKind;

/// Makes the schema of a type.
pub(super) type Generate = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of a method of a path.
pub(in crate::http) struct Operation {
    name: &'static str,
    tag: Tag,
    summary: &'static str,
    detail: &'static str,
    parameters: Vec<Parameter>,
    body: Option<Body>,
    answers: Vec<Answer>,
    problems: Vec<ProblemKind>,
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Tag {
    /// Notifications and their jobs.
    Notifications,
    /// Jobs that were given up.
    DeadLetters,
    /// The providers.
    Providers,
    /// What machines ask that only look.
    Probes,
}

impl Tag {
    pub(super) const ALL: [Self; 4] =
        [Self::Notifications, Self::DeadLetters, Self::Providers, Self::Probes];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::DeadLetters => "dead letters",
            Self::Providers => "providers",
            Self::Probes => "probes",
        }
    }
}

struct Parameter {
    place: &'static str,
    name: &'static str,
    description: &'static str,
    schema: Generate,
}

struct Body {
    schema: Generate,
    is_required: bool,
    example: Value,
}

impl Operation {
    /// `name` is what a generated client calls it; `summary` is one line.
    pub(in crate::http) fn new(tag: Tag, name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            tag,
            summary,
            detail: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            // Before and after any handler: what is no request, and what is our fault.
            problems: vec![ProblemKind::BadRequest, ProblemKind::Internal],
        }
    }

    /// More than the summary says, in Markdown.
    pub(in crate::http) fn detail(self, detail: &'static str) -> Self {
        Self { detail, ..self }
    }

    /// The `{id}` of its path.
    pub(in crate::http) fn id(self, description: &'static str) -> Self {
        self.parameter::<Id>("path", "id", description).problems(&[ProblemKind::NotFound])
    }

    /// A query parameter, which may be left out.
    pub(in crate::http) fn query<T: JsonSchema>(
        self,
        name: &'static str,
        description: &'static str,
    ) -> Self {
        self.parameter::<T>("query", name, description)
    }

    /// A parameter in its place: `path`, `query` or `header`.
    pub(in crate::http) fn parameter<T: JsonSchema>(
        mut self,
        place: &'static str,
        name: &'static str,
        description: &'static str,
    ) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.parameters.push(Parameter { place, name, description, schema });
        self
    }

    /// A body of JSON that must be there.
    pub(in crate::http) fn body<T: JsonSchema>(self, example: Value) -> Self {
        self.takes::<T>(true, example)
    }

    /// A body of JSON that may be left out.
    pub(in crate::http) fn optional_body<T: JsonSchema>(self, example: Value) -> Self {
        self.takes::<T>(false, example)
    }

    fn takes<T: JsonSchema>(mut self, is_required: bool, example: Value) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.body = Some(Body { schema, is_required, example });
        self.problems(&[
            ProblemKind::RequestTimeout,
            ProblemKind::ContentTooLarge,
            ProblemKind::UnsupportedMediaType,
            ProblemKind::InvalidRequest,
        ])
    }

    /// An answer that is no problem.
    pub(in crate::http) fn answer(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// Problems beside those that follow from what was said already.
    pub(in crate::http) fn problems(mut self, kinds: &[ProblemKind]) -> Self {
        self.problems.extend_from_slice(kinds);
        self
    }

    /// The operation object of OpenAPI, for the operation at `path`.
    pub(super) fn describe(&self, path: &str, generator: &mut SchemaGenerator) -> Value {
        let mut kinds = self.problems.clone();
        let mut shown = Map::new();
        shown.insert("operationId".into(), self.name.into());
        shown.insert("tags".into(), json!([self.tag.as_str()]));
        shown.insert("summary".into(), self.summary.into());
        if !self.detail.is_empty() {
            shown.insert("description".into(), self.detail.into());
        }
        if is_open(path) {
            shown.insert("security".into(), json!([]));
        } else {
            use ProblemKind as P;
            kinds.extend([P::Unauthorized, P::Forbidden, P::AuthUnavailable]);
        }
        let parameters = self.parameters.iter().map(|parameter| parameter.describe(generator));
        let parameters: Vec<Value> = parameters.collect();
        if !parameters.is_empty() {
            shown.insert("parameters".into(), parameters.into());
        }
        if let Some(body) = &self.body {
            let schema = (body.schema)(generator);
            let content = json!({"schema": schema, "example": body.example});
            let content = json!({"application/json": content});
            let body = json!({"required": body.is_required, "content": content});
            shown.insert("requestBody".into(), body);
        }
        let mut responses = problems(&kinds, generator);
        for answer in &self.answers {
            responses.insert(answer.status.as_str().to_owned(), answer.describe(generator));
        }
        shown.insert("responses".into(), responses.into());
        shown.into()
    }
}

impl Parameter {
    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        json!({
            "in": self.place,
            "name": self.name,
            "description": self.description,
            "required": self.place == "path",
            "schema": (self.schema)(generator),
        })
    }
}

/// The operation that answers the document itself.
pub(super) fn this_document() -> Operation {
    let document = Answer::json::<Map<String, Value>>(StatusCode::OK, "An OpenAPI 3.1 document.");
    Operation::new(Tag::Probes, "getOpenApi", "This document").answer(document)
}
