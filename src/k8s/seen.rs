//! From the objects that the API server told of to one catalog, and to what is to be said of each.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DynamicObject;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::convert::{self, Converted, SecretNamespaces};
use super::crd::{BreakglassEscalationSpec, ClusterConfigSpec, MailProviderStatus};
use super::field::FieldError;
use super::schema::{self, UnknownFields};
use crate::core::conditions::ConditionType;
use crate::core::provider::Password;
use crate::core::route::Catalog;
use crate::core::time::Time;

/// A namespace and a name.
pub(super) type FullName = (String, String);

/// All objects at one moment.
pub(super) struct Objects {
    pub(super) providers: Vec<Arc<DynamicObject>>,
    pub(super) escalations: Vec<Arc<DynamicObject>>,
    pub(super) clusters: Vec<Arc<DynamicObject>>,
    /// Those that are followed.
    pub(super) secrets: BTreeMap<FullName, SecretState>,
}

/// What is known of a Secret.
#[derive(Clone)]
pub(super) enum SecretState {
    Found(Arc<Secret>),
    Missing,
    /// We may not read it, or nobody answered.
    Unreadable,
}

/// One MailProvider as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenProvider {
    /// Its identity; another one of the same name has another.
    pub uid: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// What was said of it last.
    pub status: MailProviderStatus,
    /// Why it is not in use; empty when it is.
    pub errors: Vec<FieldError>,
    /// Whether mail or password may leave in a form that others can read or redirect.
    pub is_insecure: bool,
}

/// What the API server told last.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By name.
    pub providers: BTreeMap<String, SeenProvider>,
    /// Those of them that are valid, and all that leads to them.
    pub catalog: Arc<Catalog>,
}

/// What was made of the objects.
pub(super) struct Built {
    pub(super) seen: Seen,
    /// The Secrets that were asked for, found or not.
    pub(super) secrets: BTreeSet<FullName>,
    /// One line each.
    pub(super) warnings: Vec<String>,
}

/// Makes one catalog of all objects. One that is not valid is left out, and the others are used.
pub(super) fn build(objects: &Objects, namespaces: SecretNamespaces<'_>) -> Built {
    let asked = RefCell::new(BTreeSet::new());
    let password = |namespace: &str, name: &str, key: &str| {
        let full_name = (namespace.to_owned(), name.to_owned());
        let found = password(objects.secrets.get(&full_name), &full_name, key);
        asked.borrow_mut().insert(full_name);
        found
    };
    let mut catalog = Catalog { namespace: namespaces.own.to_owned(), ..Catalog::default() };
    let mut providers = BTreeMap::new();
    let mut warnings = Vec::new();
    for object in &objects.providers {
        let name = object.name_any();
        let spec = &object.data["spec"];
        let mut seen = SeenProvider {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation,
            status: our_status(object),
            errors: Vec::new(),
            is_insecure: spec["smtp"]["disableTLS"] == true
                || spec["smtp"]["insecureSkipVerify"] == true,
        };
        match convert::mail_provider(&name, spec, UnknownFields::Ignored, namespaces, &password) {
            Ok(Converted { mut provider, warnings: more }) => {
                provider.created = object
                    .creation_timestamp()
                    .and_then(|time| u64::try_from(time.0.as_millisecond()).ok().map(Time));
                warnings.extend(more.iter().map(|text| format!("MailProvider {name}: {text}")));
                catalog.providers.insert(provider.name.clone(), Arc::new(provider));
            }
            Err(errors) => {
                let more = errors.iter().map(|error| format!("MailProvider {name}: {error}"));
                warnings.extend(more);
                seen.errors = errors;
            }
        }
        providers.insert(name, seen);
    }
    for object in &objects.escalations {
        let read = spec::<BreakglassEscalationSpec>(object);
        let full_name = full_name(object);
        let (escalation, errors) = convert::escalation(&read);
        let place = format!("BreakglassEscalation {}/{}", full_name.0, full_name.1);
        warnings.extend(errors.iter().map(|error| format!("{place}: {error}")));
        catalog.escalations.insert(full_name, escalation);
    }
    for object in &objects.clusters {
        let read = spec::<ClusterConfigSpec>(object);
        catalog.clusters.insert(full_name(object), convert::cluster(&read));
    }
    let seen = Seen { providers, catalog: Arc::new(catalog) };
    Built { seen, secrets: asked.into_inner(), warnings }
}

/// The status, without conditions of others.
fn our_status(object: &DynamicObject) -> MailProviderStatus {
    let status = serde_json::from_value(object.data["status"].clone());
    let mut status: MailProviderStatus = status.unwrap_or_default();
    let ours = [ConditionType::Ready, ConditionType::Healthy, ConditionType::PasswordLoaded];
    status.conditions.retain(|found| ours.iter().any(|ours| ours.as_str() == found.type_));
    status
}

/// What a `passwordRef` leads to. An empty value, or one that is no text, is a missing key.
fn password(secret: Option<&SecretState>, (namespace, name): &FullName, key: &str) -> Password {
    let shown = format!("{namespace}/{name}");
    let secret = match secret {
        Some(SecretState::Found(secret)) => secret,
        Some(SecretState::Missing) => return Password::SecretNotFound(shown),
        Some(SecretState::Unreadable) | None => return Password::SecretUnreadable(shown),
    };
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let text = value.and_then(|value| std::str::from_utf8(&value.0).ok());
    Password::of(text.unwrap_or_default(), &shown, key)
}

/// The part of a spec that we read; of one that does not fit it, nothing.
fn spec<T: JsonSchema + DeserializeOwned + Default>(object: &DynamicObject) -> T {
    schema::read(&object.data["spec"], "spec", UnknownFields::Ignored).value.unwrap_or_default()
}

fn full_name(object: &DynamicObject) -> FullName {
    (object.namespace().unwrap_or_default(), object.name_any())
}
