//! The admission webhook's verdict on a MailProvider, before the API server stores it.
//!
//! The rules are those of [`convert`], and one that no single object shows: only one MailProvider
//! is marked as default, disabled or not. Of two that are created at the very same time both may
//! pass; then the older one wins and the other's Ready condition says so. What does not change the
//! spec, and what deletes, always passes, so that nothing is ever stuck. No password is read.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde_json::Value;
use tokio::time::{Duration, timeout};

use super::client::told;
use super::convert::{self, SecretNamespaces};
use super::crd::MailProvider;
use super::field::FieldError;
use super::schema::UnknownFields;
use super::watch::Source;
use crate::core::provider::Password;

/// The path that reviews are posted to.
pub const PATH: &str = "/validate-breakglass-t-caas-telekom-com-v1alpha1-mailprovider";

/// The API server waits 10 seconds for a verdict.
const LIST_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers an AdmissionReview.
///
/// # Errors
/// One sentence: it is none.
pub async fn answer(source: &Source, review: Value) -> Result<Value, String> {
    // The error itself would quote the review.
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review)
        .map_err(|_| "the body is no AdmissionReview of admission.k8s.io/v1".to_owned())?;
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| "the AdmissionReview has no request".to_owned())?;
    let namespaces =
        SecretNamespaces { own: &source.namespace, allowed: &source.secret_namespaces };
    let defaults = if becomes_default(&request) { defaults(source).await } else { Ok(Vec::new()) };
    let response = match defaults {
        Ok(defaults) => verdict(&request, namespaces, &defaults),
        Err(error) => AdmissionResponse::from(&request).deny(format!(
            "cannot list the MailProviders to look for another default, try again: {error}"
        )),
    };
    serde_json::to_value(response.into_review()).map_err(|error| error.to_string())
}

/// The names of those that are marked as default, asked for afresh: a watch is a moment behind,
/// and one `kubectl apply` may hold two of them.
async fn defaults(source: &Source) -> Result<Vec<String>, String> {
    let resource = ApiResource::erase::<MailProvider>(&());
    let api: Api<DynamicObject> = Api::all_with(source.client.clone(), &resource);
    let params = ListParams::default();
    let listed = timeout(LIST_TIME_MAX, api.list(&params))
        .await
        .map_err(|_| format!("no answer within {LIST_TIME_MAX:?}"))?
        .map_err(|error| told(&error))?;
    let defaults = listed.items.into_iter().filter(is_default);
    Ok(defaults.filter_map(|object| object.metadata.name).collect())
}

/// The verdict, given the names of all that are marked as default.
fn verdict(
    request: &AdmissionRequest<DynamicObject>,
    namespaces: SecretNamespaces<'_>,
    defaults: &[String],
) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    if !is_judged(request) {
        return response;
    }
    let Some(object) = &request.object else {
        return response.deny("the request has no object");
    };
    let name = object.metadata.name.as_deref().unwrap_or(&request.name);
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    match convert::mail_provider(
        name,
        &object.data["spec"],
        UnknownFields::Ignored,
        namespaces,
        &not_looked_up,
    ) {
        Ok(converted) => warnings = converted.warnings,
        Err(found) => errors = found,
    }
    if becomes_default(request) {
        errors.extend(second_default(name, defaults));
    }
    if errors.is_empty() || leaves_spec(request, object) {
        response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
        return response;
    }
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    response.deny(errors.join("; "))
}

/// Whether the request stores a MailProvider's spec.
fn is_judged(request: &AdmissionRequest<DynamicObject>) -> bool {
    let resource = ApiResource::erase::<MailProvider>(&());
    request.kind.group == resource.group
        && request.kind.kind == resource.kind
        && request.sub_resource.as_ref().is_none_or(String::is_empty)
        && matches!(request.operation, Operation::Create | Operation::Update)
}

/// Whether the object is only labelled, say, or on its way out: one that broke no rule when it was
/// stored may break one now.
fn leaves_spec(request: &AdmissionRequest<DynamicObject>, object: &DynamicObject) -> bool {
    let old = request.old_object.as_ref();
    object.metadata.deletion_timestamp.is_some()
        || old.is_some_and(|old| old.data["spec"] == object.data["spec"])
}

/// Whether a default is stored that was none before. One that is, is one of two at most since they
/// were created together, and may be edited.
fn becomes_default(request: &AdmissionRequest<DynamicObject>) -> bool {
    is_judged(request)
        && request.object.as_ref().is_some_and(is_default)
        && !request.old_object.as_ref().is_some_and(is_default)
}

fn is_default(object: &DynamicObject) -> bool {
    object.data["spec"]["default"] == true
}

fn second_default(name: &str, defaults: &[String]) -> Option<FieldError> {
    let mut others: Vec<_> =
        defaults.iter().filter(|other| *other != name).map(String::as_str).collect();
    if others.is_empty() {
        return None;
    }
    others.sort_unstable();
    let detail = format!(
        "only one MailProvider can be marked as default, and {} is: set its spec.default to \
         false first",
        others.join(", ")
    );
    Some(FieldError::forbidden("spec.default", &detail))
}

/// Whether the Secret is there is for the status to say: it may be applied a moment later.
fn not_looked_up(_: &str, _: &str, _: &str) -> Password {
    Password::Loaded(String::new().into())
}

#[cfg(test)]
mod tests;
