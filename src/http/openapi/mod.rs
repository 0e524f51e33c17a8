//! `GET /openapi.json`: the whole API as an OpenAPI 3.1 document.
//!
//! A route comes into the router only along with its [`Operation`], so that neither can be without
//! the other. Schemas are generated from the types that are serialized, and bounds from the
//! constants that are checked. A router builds its document once; what it answers never changes.

mod answer;
mod operation;
pub(super) mod requests;
pub(super) mod strings;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::header;
use axum::routing::{MethodRouter, delete, get, post};
use bytes::Bytes;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Api;
pub(super) use answer::Answer;
pub(super) use operation::{Operation, Tag};

const PATH: &str = "/openapi.json";

/// Routes and their descriptions, which only grow together.
#[derive(Default)]
pub(super) struct Endpoints {
    router: Router<Arc<Api>>,
    /// Each with its method and path.
    operations: Vec<(&'static str, &'static str, Operation)>,
}

impl Endpoints {
    /// `GET`, and `HEAD` with it.
    pub(super) fn get<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("get", path, get(handler), operation)
    }

    /// `POST`.
    pub(super) fn post<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("post", path, post(handler), operation)
    }

    /// `DELETE`.
    pub(super) fn delete<H, T>(self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("delete", path, delete(handler), operation)
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        route: MethodRouter<Arc<Api>>,
        operation: Operation,
    ) -> Self {
        self.router = self.router.route(path, route);
        self.operations.push((method, path, operation));
        self
    }

    /// All of them, and `/openapi.json` that describes them and itself.
    pub(super) fn into_router(self, is_token_needed: bool) -> Router<Arc<Api>> {
        let document = Bytes::from(self.document(is_token_needed).to_string());
        let media_type = [(header::CONTENT_TYPE, "application/json")];
        self.router.route(PATH, get(async move || (media_type, document)))
    }

    /// The document.
    pub(super) fn document(&self, is_token_needed: bool) -> Value {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut generator = settings.into_generator();
        let mut paths = Map::new();
        let own = ("get", PATH, operation::this_document());
        for (method, path, operation) in self.operations.iter().chain([&own]) {
            let item = paths.entry(*path).or_insert_with(|| json!({}));
            item[*method] = operation.describe(path, &mut generator);
        }
        let security =
            if is_token_needed { json!([{"bearer": []}]) } else { json!([{}, {"bearer": []}]) };
        json!({
            "openapi": "3.1.1",
            "info": {
                "title": "breakglass-mailer",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": env!("CARGO_PKG_DESCRIPTION"),
                "description": "JSON in and out, times in UTC. An unknown field or query parameter \
                    is refused. Every error is an `application/problem+json` (RFC 9457), and after \
                    an error no mail is ever sent.",
                "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            },
            "security": security,
            "tags": Tag::ALL.map(|tag| json!({"name": tag.as_str()})),
            "paths": paths,
            "components": {
                "schemas": generator.take_definitions(true),
                "securitySchemes": {"bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `--token-file`, or with `--auth kubernetes` one of \
                        a ServiceAccount. A server that runs without authentication asks for none.",
                }},
            },
        })
    }
}
