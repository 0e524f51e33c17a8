//! Checks a value against the schema of a type, as the Kubernetes API server does.
//!
//! All errors are found, not only the first. The schema is the one that the CRD is made from, so
//! the two cannot differ. Only those words of JSON schema are known that our types make use of.

use kube::core::cel::Validator;
use regex_lite::Regex;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::field::{FieldError, quoted};

/// What becomes of a field that the schema does not have.
///
/// This is a property of the request in Kubernetes too (`fieldValidation`), not of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// It is an error: most likely a typing mistake.
    Refused,
    /// The resource belongs to someone else and has fields that are not our concern.
    Ignored,
}

/// A value read as `T`, and all that is wrong with it.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// The value, also when it breaks limits, so that further rules can be checked along with
    /// them; `None` when its shape is wrong, and then there are errors.
    pub value: Option<T>,
    /// Empty when the value fits the schema.
    pub errors: Vec<FieldError>,
}

/// Reads `value`, found at `path`, as `T`. An explicit null counts as absent.
#[must_use]
pub fn read<T: JsonSchema + DeserializeOwned>(
    value: &Value,
    path: &str,
    unknown: UnknownFields,
) -> Read<T> {
    let value = without_nulls(value);
    if value.is_null() {
        return Read { value: None, errors: vec![FieldError::required(path, "")] };
    }
    // Inlined, as a CRD wants it: no references to follow.
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let mut check = Check { unknown, errors: Vec::new() };
    check.value(&schema, &value, path);
    let read = serde_json::from_value(value.clone()).ok();
    if read.is_some() {
        check.rules(&schema, &value, path);
    }
    if read.is_none() && check.errors.is_empty() {
        // The schema is made from the type, so this cannot be; serde's text may quote the value.
        check.errors.push(FieldError::invalid_hidden(path, "does not fit its type"));
    }
    Read { value: read, errors: check.errors }
}

struct Check {
    unknown: UnknownFields,
    errors: Vec<FieldError>,
}

impl Check {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(wanted) = wrong_type(schema, value) {
            let found = type_of(value);
            let rule = format!("{path} in body must be of type {wanted}: \"{found}\"");
            self.errors.push(FieldError::invalid(path, format!("\"{found}\""), &rule));
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{path}[{index}]"));
                }
            }
            Value::String(text) => self.string(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The CEL rules (`x-kubernetes-validations`), of a value that has the right shape.
    fn rules(&mut self, schema: &Value, value: &Value, path: &str) {
        let Err(broken) = Validator::new().validate(schema, value, None) else { return };
        for rule in broken {
            let path = join(path, &rule.field_path);
            self.errors.push(match rule.reason.as_deref() {
                Some("FieldValueRequired") => FieldError::required(&path, &rule.message),
                Some("FieldValueForbidden") => FieldError::forbidden(&path, &rule.message),
                _ => FieldError::invalid_hidden(&path, &rule.message),
            });
        }
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.errors.push(FieldError::required(&join(path, name), ""));
            }
        }
        for (name, value) in fields {
            let path = join(path, name);
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(schema), _) => self.value(schema, value, &path),
                (None, Some(schema)) if schema.is_object() => self.value(schema, value, &path),
                (None, _) if self.unknown == UnknownFields::Refused => {
                    self.errors.push(FieldError::unknown(&path));
                }
                (None, _) => {}
            }
        }
    }

    fn string(&mut self, schema: &Value, text: &str, path: &str) {
        let chars_count = text.chars().count() as u64;
        if let Some(min) = schema["minLength"].as_u64()
            && chars_count < min
        {
            self.invalid_text(path, text, &format!("be at least {min} chars long"));
        }
        if let Some(max) = schema["maxLength"].as_u64()
            && chars_count > max
        {
            self.invalid_text(path, text, &format!("be at most {max} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            let regex = Regex::new(pattern).expect("the pattern of a schema is written by us");
            if !regex.is_match(text) {
                self.invalid_text(path, text, &format!("match '{pattern}'"));
            }
        }
    }

    fn invalid_text(&mut self, path: &str, text: &str, rule: &str) {
        let rule = format!("{path} in body should {rule}");
        self.errors.push(FieldError::invalid(path, quoted(text), &rule));
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) {
        let Some(value) = number.as_f64() else { return };
        if let Some(min) = schema["minimum"].as_f64()
            && value < min
        {
            let rule = format!("{path} in body should be greater than or equal to {min}");
            self.errors.push(FieldError::invalid(path, number, &rule));
        }
        if let Some(max) = schema["maximum"].as_f64()
            && value > max
        {
            let rule = format!("{path} in body should be less than or equal to {max}");
            self.errors.push(FieldError::invalid(path, number, &rule));
        }
    }
}

/// The type that `schema` wants when `value` has another one. An integer is a number too.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    let wanted: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let found = type_of(value);
    let fits = |wanted: &&str| *wanted == found || (*wanted == "number" && found == "integer");
    if wanted.is_empty() || wanted.iter().any(fits) { None } else { Some(wanted[0]) }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The path of the field `name` within `path`.
///
/// A name that is long or holds control characters is shown as [`quoted`] shows it.
pub fn join(path: &str, name: &str) -> String {
    let is_plain = name.len() <= 64 && !name.chars().any(char::is_control);
    let name = if is_plain { name.to_owned() } else { quoted(name) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
