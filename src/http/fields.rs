//! A JSON object as a request holds it: read once, its fields taken by name, every fault collected.
//!
//! Reading is bounded: what no request can mean is skipped, not stored, and a value nested deeper
//! than serde_json's limit (128) is refused.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::{FieldError, Problem};

/// No list of a request is longer (100 recipients); one more is kept to tell.
pub(super) const LIST_LEN_MAX: usize = 100;

/// Fields beyond these are not stored, and as many faults are told at most.
const FIELDS_COUNT_MAX: usize = 100;

/// The fields of a JSON object that nobody took yet, and the faults found so far.
#[derive(Debug)]
pub(super) struct Object {
    fields: Vec<(String, Field)>,
    errors: Vec<FieldError>,
}

/// A value, as far as a request can mean it.
#[derive(Debug, PartialEq)]
pub(super) enum Field {
    /// A string.
    Text(String),
    /// An array: its first items, one more than any list may have.
    List(Vec<Field>),
    /// Anything else, by its name in English.
    Other(&'static str),
}

impl Object {
    /// Reads one JSON value, which must be an object. A name that comes twice is a fault.
    ///
    /// # Errors
    /// 400 when the bytes are not one JSON value in UTF-8, 422 when it is not an object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Problem::bad_request("The body of the request is not UTF-8."))?;
        let top: Top = serde_json::from_str(text).map_err(|error| {
            // serde_json quotes nothing of the text but a position.
            let place = format!("line {}, column {}", error.line(), error.column());
            Problem::bad_request(format!("The body of the request is not JSON, see {place}."))
        })?;
        let Top::Object(found) = top else {
            return Err(Problem::invalid(vec![FieldError::new("", "must be an object")]));
        };
        let mut object = Self { fields: Vec::new(), errors: Vec::new() };
        for (name, field) in found {
            if object.fields.iter().any(|(earlier, _)| *earlier == name) {
                object.refuse(pointer(&name), "must not be given twice");
            } else {
                object.fields.push((name, field));
            }
        }
        Ok(object)
    }

    /// An object without fields.
    pub(super) fn empty() -> Self {
        Self { fields: Vec::new(), errors: Vec::new() }
    }

    /// Notes a fault.
    pub(super) fn refuse(
        &mut self,
        pointer: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        if self.errors.len() < FIELDS_COUNT_MAX {
            self.errors.push(FieldError::new(pointer, detail));
        }
    }

    /// How many faults were found so far.
    pub(super) fn errors_count(&self) -> usize {
        self.errors.len()
    }

    /// Whether the field is there and was not taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(given, _)| given == name)
    }

    /// Takes a field that is a string, if it is given.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Field::Text(text) => Some(text),
            other => {
                self.refuse(pointer(name), format!("must be a string, not {}", other.kind()));
                None
            }
        }
    }

    /// Takes a field that is a string which passes `check`, if it is given. The error of `check`
    /// is the rule, as a phrase that fits after the field's name.
    pub(super) fn checked<T, E: Into<Cow<'static, str>>>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match check(&self.text(name)?) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.refuse(pointer(name), rule);
                None
            }
        }
    }

    /// Takes a field that is an array, if it is given.
    pub(super) fn list(&mut self, name: &str) -> Option<Vec<Field>> {
        match self.take(name)? {
            Field::List(items) => Some(items),
            other => {
                self.refuse(pointer(name), format!("must be an array, not {}", other.kind()));
                None
            }
        }
    }

    /// Ends the reading: what nobody took is not known.
    ///
    /// # Errors
    /// 422 with every fault that was found.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.fields) {
            self.refuse(pointer(&name), "is not known");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }

    fn take(&mut self, name: &str) -> Option<Field> {
        let index = self.fields.iter().position(|(given, _)| given == name)?;
        Some(self.fields.remove(index).1)
    }
}

impl Field {
    /// What it is, in English.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Other(kind) => kind,
        }
    }
}

/// The pointer (RFC 6901) to a field of the object; a name of absurd length is cut.
fn pointer(name: &str) -> String {
    let cut: String = name.chars().take(100).collect();
    format!("/{}", cut.replace('~', "~0").replace('/', "~1"))
}

enum Top {
    Object(Vec<(String, Field)>),
    Other,
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(AnyValue)? {
            Read::Object(fields) => Ok(Self::Object(fields)),
            Read::Field(_) => Ok(Self::Other),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(AnyValue)? {
            Read::Object(_) => Ok(Self::Other("an object")),
            Read::Field(field) => Ok(field),
        }
    }
}

enum Read {
    Object(Vec<(String, Field)>),
    Field(Field),
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Read, E> {
        Ok(Read::Field(Field::Text(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Read, E> {
        Ok(Read::Field(Field::Text(text)))
    }

    fn visit_unit<E: Error>(self) -> Result<Read, E> {
        Ok(Read::Field(Field::Other("null")))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Read, E> {
        Ok(Read::Field(Field::Other("a boolean")))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Read, E> {
        Ok(Read::Field(Field::Other("a number")))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Read, E> {
        Ok(Read::Field(Field::Other("a number")))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Read, E> {
        Ok(Read::Field(Field::Other("a number")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Read, A::Error> {
        let mut kept = Vec::new();
        // Read to the end in any case: what follows must be JSON too, and not too deep.
        while let Some(item) = items.next_element()? {
            if kept.len() <= LIST_LEN_MAX {
                kept.push(item);
            }
        }
        Ok(Read::Field(Field::List(kept)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Read, A::Error> {
        let mut kept = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            if kept.len() < FIELDS_COUNT_MAX {
                kept.push(entry);
            }
        }
        Ok(Read::Object(kept))
    }
}
