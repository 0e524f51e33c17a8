//! From the texts of all files to one catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::files::File;
use super::object::{Key, Kind, Note, Object, Place, object};
use super::secret::Secrets;
use super::{LoadError, Loaded, Source, yaml};
use crate::core::route::Catalog;
use crate::k8s::convert::{self, Converted, SecretNamespaces};
use crate::k8s::crd::ClusterConfigSpec;
use crate::k8s::field::{FieldError, quoted};
use crate::k8s::schema::{self, UnknownFields};

/// Takes all files or none.
pub(super) fn build(source: &Source, files: &[File]) -> Result<Loaded, LoadError> {
    let mut builder = Builder {
        namespaces: SecretNamespaces { own: &source.namespace, allowed: &source.secret_namespaces },
        secrets: Secrets::default(),
        catalog: Catalog { namespace: source.namespace.clone(), ..Catalog::default() },
        places: BTreeMap::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
    };
    let objects = builder.objects(files);
    // Secrets first: a provider may stand before the Secret that it names.
    let (secrets, others): (Vec<_>, Vec<_>) =
        objects.iter().partition(|object| object.key.kind == Kind::Secret);
    for object in secrets.into_iter().chain(others) {
        builder.add(object);
    }
    for object in &objects {
        builder.warn_of_unknown_provider(object);
    }
    builder.finish(source)
}

struct Builder<'a> {
    namespaces: SecretNamespaces<'a>,
    secrets: Secrets,
    catalog: Catalog,
    /// Where each object was seen last: `file:line`.
    places: BTreeMap<Key, String>,
    warnings: Vec<(Key, Note)>,
    problems: Vec<Note>,
}

impl Builder<'_> {
    fn objects<'f>(&mut self, files: &'f [File]) -> Vec<Object<'f>> {
        let mut objects = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let text = match &file.text {
                Ok(text) => text,
                Err(error) => {
                    let text = format!("cannot be read: {error}");
                    self.problems.push(Note::of_file(&file.path, index, text));
                    continue;
                }
            };
            let parsed = yaml::parse(text);
            for (line, text) in parsed.errors {
                self.problems.push(Note::new(&file.path, index, line, text));
            }
            for root in parsed.documents {
                let place = Place { file: &file.path, file_index: index, root };
                let (object, problems) = object(place, self.namespaces.own);
                objects.extend(object);
                self.problems.extend(problems);
            }
        }
        objects
    }

    /// Of the same object twice the later one wins, as with `kubectl apply`.
    fn add(&mut self, object: &Object<'_>) {
        let key = &object.key;
        if let Some(earlier) = self.places.insert(key.clone(), object.place.to_string()) {
            self.warnings.retain(|(of, _)| of != key);
            let text = format!("replaces the one at {earlier}");
            self.warnings.push((key.clone(), object.note("", text)));
        }
        let full_name = (key.namespace.clone(), key.name.clone());
        let errors = match key.kind {
            Kind::Secret => {
                self.secrets.add(&key.namespace, &key.name, &object.value).err().unwrap_or_default()
            }
            Kind::MailProvider => self.add_provider(object),
            Kind::Escalation => {
                let (spec, mut errors) = spec_of(object, UnknownFields::Ignored);
                let (escalation, more) = convert::escalation(&spec.unwrap_or_default());
                self.catalog.escalations.insert(full_name, escalation);
                errors.extend(more);
                errors
            }
            Kind::Cluster => {
                let (spec, errors) = spec_of(object, UnknownFields::Ignored);
                let spec: ClusterConfigSpec = spec.unwrap_or_default();
                self.catalog.clusters.insert(full_name, convert::cluster(&spec));
                errors
            }
        };
        self.problems.extend(errors.iter().map(|error| object.note(&error.path, error)));
    }

    fn add_provider(&mut self, object: &Object<'_>) -> Vec<FieldError> {
        let secrets = &self.secrets;
        let password =
            |namespace: &str, name: &str, key: &str| secrets.password(namespace, name, key);
        let (name, spec) = (&object.key.name, &object.value["spec"]);
        match convert::mail_provider(name, spec, UnknownFields::Refused, self.namespaces, &password)
        {
            Ok(Converted { provider, warnings }) => {
                // A warning starts with the path of its field, as a refusal does.
                let note = |text: &String| {
                    let path = text.split(": ").next().unwrap_or_default();
                    (object.key.clone(), object.note(path, text))
                };
                self.warnings.extend(warnings.iter().map(note));
                self.catalog.providers.insert(provider.name.clone(), Arc::new(provider));
                Vec::new()
            }
            Err(errors) => errors,
        }
    }

    /// Such a choice falls through to the next level, which its author hardly means.
    fn warn_of_unknown_provider(&mut self, object: &Object<'_>) {
        const PATH: &str = "spec.mailProvider";
        let is_choice = matches!(object.key.kind, Kind::Escalation | Kind::Cluster);
        let chosen = object.value["spec"]["mailProvider"].as_str().filter(|name| !name.is_empty());
        if let (true, Some(chosen)) = (is_choice, chosen)
            && !self.catalog.providers.keys().any(|name| name.as_str() == chosen)
        {
            let text = format!("{PATH}: there is no MailProvider {}", quoted(chosen));
            self.warnings.push((object.key.clone(), object.note(PATH, text)));
        }
    }

    fn finish(mut self, source: &Source) -> Result<Loaded, LoadError> {
        if !self.problems.is_empty() {
            self.problems.sort();
            // The head's name is checked once more along with the rules of a provider.
            self.problems.dedup();
            let problems = self.problems.into_iter().map(|note| note.text).collect();
            return Err(LoadError { problems });
        }
        self.warnings.sort_by(|(_, a), (_, b)| a.cmp(b));
        let mut warnings: Vec<_> = self.warnings.into_iter().map(|(_, note)| note.text).collect();
        let path = source.path.display();
        let providers = &self.catalog.providers;
        if providers.is_empty() {
            warnings.push(format!("{path}: there is no MailProvider: nothing can be sent"));
        }
        let defaults: Vec<_> = providers
            .values()
            .filter(|provider| provider.default && !provider.disabled)
            .map(|provider| provider.name.as_str())
            .collect();
        if let (Some(used), [_, _, ..]) = (self.catalog.default_provider(), &defaults[..]) {
            warnings.push(format!(
                "{path}: only one MailProvider can be marked as default, and {} are; {} is used",
                defaults.join(", "),
                used.name
            ));
        }
        Ok(Loaded { catalog: self.catalog, warnings })
    }
}

/// The `spec` as its type, and what is wrong with it.
fn spec_of<T: JsonSchema + DeserializeOwned>(
    object: &Object<'_>,
    unknown: UnknownFields,
) -> (Option<T>, Vec<FieldError>) {
    let read = schema::read(&object.value["spec"], "spec", unknown);
    (read.value, read.errors)
}
