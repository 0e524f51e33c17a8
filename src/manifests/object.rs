//! One document of a file as an object: what it is, what it is called, where it stands.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

use serde_json::Value;

use super::yaml::Node;
use crate::core::provider::is_dns_subdomain;
use crate::k8s::convert::{namespace_name, object_name};
use crate::k8s::crd::API_VERSION;
use crate::k8s::field::{FieldError, quoted};
use crate::k8s::schema::join;

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    MailProvider,
    Escalation,
    Cluster,
    Secret,
}

impl Kind {
    const ALL: [Self; 4] = [Self::MailProvider, Self::Escalation, Self::Cluster, Self::Secret];

    fn api_version(self) -> &'static str {
        match self {
            Self::MailProvider | Self::Escalation | Self::Cluster => API_VERSION,
            Self::Secret => "v1",
        }
    }

    /// The fields at the top of such an object.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::MailProvider | Self::Escalation | Self::Cluster => {
                &["apiVersion", "kind", "metadata", "spec", "status"]
            }
            Self::Secret => {
                &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"]
            }
        }
    }

    fn is_namespaced(self) -> bool {
        self != Self::MailProvider
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MailProvider => "MailProvider",
            Self::Escalation => "BreakglassEscalation",
            Self::Cluster => "ClusterConfig",
            Self::Secret => "Secret",
        })
    }
}

/// What makes two objects the same one. The namespace is empty where the kind has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// An object whose kind is known.
pub(super) struct Object<'a> {
    pub key: Key,
    pub value: Value,
    pub place: Place<'a>,
}

impl Object<'_> {
    /// `text` about the field at `path` of this object.
    pub(super) fn note(&self, path: &str, text: impl fmt::Display) -> Note {
        let Key { kind, name, .. } = &self.key;
        match name.as_str() {
            "" => self.place.note(path, format_args!("{kind}: {text}")),
            _ if is_dns_subdomain(name) => {
                self.place.note(path, format_args!("{kind} {name}: {text}"))
            }
            _ => self.place.note(path, format_args!("{kind} {}: {text}", quoted(name))),
        }
    }
}

/// Where a document stands.
pub(super) struct Place<'a> {
    pub file: &'a Path,
    /// The position of the file among all files.
    pub file_index: usize,
    pub root: Rc<Node>,
}

impl Place<'_> {
    fn note(&self, path: &str, text: impl fmt::Display) -> Note {
        Note::new(self.file, self.file_index, self.root.line_of(path), text)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.root.line)
    }
}

/// `file:line: text`; notes are in the order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    order: (usize, usize),
    pub text: String,
}

impl Note {
    /// About a line of a file.
    pub(super) fn new(file: &Path, index: usize, line: usize, text: impl fmt::Display) -> Self {
        Self { order: (index, line), text: format!("{}:{line}: {text}", file.display()) }
    }

    /// About a whole file.
    pub(super) fn of_file(file: &Path, index: usize, text: impl fmt::Display) -> Self {
        Self { order: (index, 0), text: format!("{}: {text}", file.display()) }
    }
}

/// Reads the head of a document, and says what is wrong with it. There is no object when its kind
/// is not known. One without a namespace is in `own_namespace`.
pub(super) fn object<'a>(place: Place<'a>, own_namespace: &str) -> (Option<Object<'a>>, Vec<Note>) {
    let value = place.root.to_value();
    let kind = match kind(&value) {
        Ok(kind) => kind,
        Err(errors) => {
            let notes = errors.iter().map(|error| place.note(&error.path, error)).collect();
            return (None, notes);
        }
    };
    let (key, errors) = key(kind, &value, own_namespace);
    let object = Object { key, value, place };
    let notes = errors.iter().map(|error| object.note(&error.path, error)).collect();
    (Some(object), notes)
}

fn key(kind: Kind, value: &Value, own_namespace: &str) -> (Key, Vec<FieldError>) {
    const NAME: &str = "metadata.name";
    const NAMESPACE: &str = "metadata.namespace";
    let mut errors = Vec::new();
    let mut metadata = |field: &str, path: &str| match text(&value["metadata"][field], path) {
        Ok(text) => text,
        Err(error) => {
            errors.push(error);
            ""
        }
    };
    let (name, namespace) = (metadata("name", NAME), metadata("namespace", NAMESPACE));
    if errors.is_empty() {
        errors.extend(object_name(NAME, name).err());
    }
    let namespace = match namespace {
        _ if !kind.is_namespaced() => "",
        "" => own_namespace,
        given => {
            errors.extend(namespace_name(NAMESPACE, given).err());
            given
        }
    };
    let has_part = |name: &str| kind.parts().contains(&name);
    let fields = value.as_object().into_iter().flatten().map(|(name, _)| name);
    let unknown = fields.filter(|name| !has_part(name)).map(|name| join("", name));
    errors.extend(unknown.map(|path| FieldError::unknown(&path)));
    (Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }, errors)
}

fn kind(value: &Value) -> Result<Kind, Vec<FieldError>> {
    if !value.is_object() {
        return Err(vec![FieldError::required("kind", "a manifest is a mapping with a kind")]);
    }
    let mut errors = Vec::new();
    let mut required = |name: &str| match text(&value[name], name) {
        Ok(text) if !text.is_empty() => text,
        other => {
            errors.push(other.err().unwrap_or_else(|| FieldError::required(name, "")));
            ""
        }
    };
    let (api_version, kind) = (required("apiVersion"), required("kind"));
    if !errors.is_empty() {
        return Err(errors);
    }
    let known = |known: &Kind| known.to_string() == kind && known.api_version() == api_version;
    Kind::ALL.into_iter().find(known).ok_or_else(|| {
        let detail = format!(
            "no such kind in version {}; known are {}",
            quoted(api_version),
            Kind::ALL.map(|kind| format!("{kind} ({})", kind.api_version())).join(", ")
        );
        vec![FieldError::invalid("kind", quoted(kind), &detail)]
    })
}

/// The text at `path`; a field that is not there is empty.
fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, FieldError> {
    match value {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => Err(FieldError::invalid_hidden(path, &format!("{path} must be of type string"))),
    }
}
