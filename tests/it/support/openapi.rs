//! The document of `/openapi.json` as a judge: every answer that a test gets is held against it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use hyper::HeaderMap;
use jsonschema::Validator;
use serde_json::{Map, Value};

/// The document, in which no object has a field that is not described: clients must expect more
/// fields than these, but a server that sends them has forgotten to describe them.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = breakglass_mailer::http::document();
    let schemas = document["components"]["schemas"].as_object_mut().expect("schemas");
    for schema in schemas.values_mut().filter_map(Value::as_object_mut) {
        if schema.contains_key("properties") {
            schema.insert("additionalProperties".into(), false.into());
        }
    }
    document
});

/// Headers that no answer may have without their being described.
const TELLING: [&str; 4] = ["idempotency-replayed", "location", "retry-after", "www-authenticate"];

/// Holds an answer against the document.
///
/// # Panics
/// When its status, its media type, a header or its body is not as described.
pub fn check(method: &str, path: &str, status: u16, headers: &HeaderMap, body: &str) {
    let what = format!("{method} {path} answered {status}");
    let media_type = headers.get("content-type").map_or("", |value| value.to_str().expect("ASCII"));
    let media_type = media_type.split(';').next().unwrap_or_default();
    let Some((place, operation)) = operation(method, path) else {
        assert!(400 <= status, "{what}, and the document does not have it");
        assert_eq!(media_type, "application/problem+json", "{what}");
        if method != "HEAD" {
            judge("Problem", &DOCUMENT["components"]["schemas"]["Problem"], body, &what);
        }
        return;
    };
    let answer = &operation["responses"][status.to_string()];
    assert!(answer.is_object(), "{what}, which the document does not have");
    let described = answer["headers"].as_object().cloned().unwrap_or_default();
    check_headers(&described, headers, &what);
    match answer["content"].as_object() {
        None => assert_eq!(body, "", "{what} with a body"),
        // What is described is the answer to a GET.
        Some(_) if method == "HEAD" => {}
        Some(content) => {
            let described = content.get(media_type);
            let described = described.unwrap_or_else(|| panic!("{what} as {media_type:?}"));
            if media_type.ends_with("json") {
                judge(&format!("{place} {status}"), &described["schema"], body, &what);
            }
        }
    }
}

fn check_headers(described: &Map<String, Value>, headers: &HeaderMap, what: &str) {
    for (name, header) in described {
        let given = headers.get(name).map(|value| value.to_str().expect("ASCII"));
        match given {
            None => assert_ne!(header["required"], true, "{what} without {name}"),
            Some(value) if header["schema"]["type"] == "integer" => {
                assert!(value.parse::<u64>().is_ok(), "{what} with {name}: {value}");
            }
            Some(_) => {}
        }
    }
    let is_described = |name: &str| described.keys().any(|known| known.eq_ignore_ascii_case(name));
    for name in TELLING.iter().filter(|name| headers.contains_key(**name)) {
        assert!(is_described(name), "{what} with {name}, which the document does not have");
    }
}

/// Holds a request that was taken against the document.
///
/// # Panics
/// When the document says that it would be refused.
pub fn check_request(method: &str, path: &str, body: Option<&Value>, status: u16) {
    let (Some(body), Some((place, operation))) = (body, operation(method, path)) else { return };
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    if status < 300 && schema.is_object() {
        let what = format!("{method} {path} was taken");
        judge(&format!("{place} request"), schema, &body.to_string(), &what);
    }
}

/// Checks values against a schema of the document.
///
/// # Panics
/// When it is no schema.
pub fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    schema["components"] = DOCUMENT["components"].clone();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&schema).expect("a schema")
}

/// The operation of a request, and its name.
fn operation(method: &str, path: &str) -> Option<(String, &'static Value)> {
    let path: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let is_of = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        let fits = |(part, given): (&&str, &&str)| {
            part == given || (part.starts_with('{') && !given.is_empty())
        };
        parts.len() == path.len() && parts.iter().zip(&path).all(fits)
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let found = paths.iter().filter(|(template, _)| is_of(template));
    // As the router does: the path that says more.
    let (template, item) = found.min_by_key(|(template, _)| template.matches('{').count())?;
    // Methods are told apart by case (RFC 9110 9.1), and the document writes them small.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut operations = item.as_object()?.iter();
    let (method, operation) = operations.find(|(known, _)| known.to_uppercase() == method)?;
    Some((format!("{method} {template}"), operation))
}

/// Checks `body` by the schema of this name.
fn judge(name: &str, schema: &Value, body: &str, what: &str) {
    static KEPT: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let validator = {
        let mut kept = KEPT.lock().expect("not poisoned");
        Arc::clone(kept.entry(name.to_owned()).or_insert_with(|| Arc::new(validator(schema))))
    };
    let value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}, no JSON: {body}"));
    if let Err(error) = validator.validate(&value) {
        panic!("{what}, but {}: {error}\n{body}", error.instance_path());
    }
}
