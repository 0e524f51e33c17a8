use serde_json::json;

use super::*;

#[path = "../../../tests/it/webhook/cases.rs"]
mod cases;

use cases::{Case, Expected, cases};

fn request(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "uid": "u1",
        "kind": {"group": "breakglass.t-caas.telekom.com", "version": "v1alpha1",
                 "kind": "MailProvider"},
        "resource": {"group": "breakglass.t-caas.telekom.com", "version": "v1alpha1",
                     "resource": "mailproviders"},
        "operation": operation,
        "userInfo": {},
        "object": object,
        "oldObject": old,
    })
}

fn provider(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
        "kind": "MailProvider",
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn relay(is_default: bool) -> Value {
    json!({
        "default": is_default,
        "smtp": {"host": "relay.example.com", "port": 25},
        "sender": {"address": "a@example.com"},
    })
}

/// The `response` of a review, when these are marked as default.
fn judged(request: Value, defaults: &[&str]) -> Value {
    let request = serde_json::from_value(request).expect("a request");
    let namespaces = SecretNamespaces { own: "default", allowed: &[] };
    let defaults: Vec<_> = defaults.iter().map(ToString::to_string).collect();
    let response = verdict(&request, namespaces, &defaults);
    assert_eq!(response.uid, "u1");
    serde_json::to_value(response).expect("JSON")
}

fn refusal(request: Value, defaults: &[&str]) -> Option<String> {
    let response = judged(request, defaults);
    let message = || response["status"]["message"].as_str().unwrap_or_default().to_owned();
    (response["allowed"] == false).then(message)
}

#[test]
fn a_spec_is_refused_allowed_or_allowed_with_a_warning() {
    for Case { title, spec, expected } in cases() {
        let response = judged(request("CREATE", &provider("a", &spec), &Value::Null), &[]);
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let warnings = response["warnings"].to_string();
        match expected {
            Expected::Allowed => {
                assert!(response["allowed"] == true && warnings == "null", "{title}: {response}");
            }
            Expected::Warned(text) => {
                let is_warned = response["allowed"] == true && warnings.contains(text);
                assert!(is_warned, "{title}: {response}");
            }
            // A field of a later definition is none of our business; what no definition has, the
            // API server refuses before it asks.
            Expected::RefusedBySchema(text) if text.contains("unknown field") => {
                assert!(response["allowed"] == true, "{title}: {response}");
            }
            Expected::RefusedBySchema(text) | Expected::RefusedByWebhook(text) => {
                let is_refused = response["allowed"] == false && message.contains(text);
                assert!(is_refused, "{title}: {response}");
            }
        }
    }
}

#[test]
fn all_faults_of_a_spec_are_told_at_once() {
    let mut spec = relay(true);
    spec["smtp"]["host"] = json!("a b");
    spec["smtp"]["port"] = json!(0);
    let refused = refusal(request("CREATE", &provider("a", &spec), &Value::Null), &["b"]);
    insta::assert_snapshot!(refused.expect("a refusal").replace("; ", ";\n"), @r#"
    spec.smtp.port: Invalid value: 0: spec.smtp.port in body should be greater than or equal to 1;
    spec.smtp.host: Invalid value: "a b": must be a DNS name or an IP address, without port, user or zone;
    spec.default: Forbidden: only one MailProvider can be marked as default, and b is: set its spec.default to false first
    "#);
}

#[test]
fn a_second_default_is_refused_and_the_first_is_named() {
    let (plain, default) = (provider("a", &relay(false)), provider("a", &relay(true)));
    let created = request("CREATE", &default, &Value::Null);
    assert_eq!(
        refusal(created.clone(), &["b"]).expect("a refusal"),
        "spec.default: Forbidden: only one MailProvider can be marked as default, and b is: set \
         its spec.default to false first"
    );
    assert!(refusal(request("UPDATE", &default, &plain), &["b"]).is_some());
    assert_eq!(refusal(created, &[]), None);
}

#[test]
fn a_default_may_be_applied_again_and_edited() {
    let old = provider("a", &relay(true));
    let mut new = old.clone();
    new["spec"]["smtp"]["port"] = json!(587);
    for (operation, old) in [("UPDATE", &old), ("CREATE", &Value::Null)] {
        assert_eq!(refusal(request(operation, &new, old), &["a"]), None);
    }
    // They got past admission together; the condition of one of them says so.
    assert_eq!(refusal(request("UPDATE", &new, &old), &["a", "b"]), None);
}

#[test]
fn one_that_breaks_a_rule_since_it_was_stored_can_be_labelled_and_deleted_but_not_edited() {
    let mut spec = relay(false);
    spec["smtp"]["host"] = json!("a b");
    let old = provider("a", &spec);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(refusal(request("UPDATE", &labelled, &old), &[]), None);
    let mut edited = old.clone();
    edited["spec"]["disabled"] = json!(true);
    assert!(refusal(request("UPDATE", &edited, &old), &[]).is_some());
    edited["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    assert_eq!(refusal(request("UPDATE", &edited, &old), &[]), None);
    assert_eq!(refusal(request("DELETE", &Value::Null, &old), &[]), None);
}

#[test]
fn what_stores_no_spec_of_a_mail_provider_is_not_judged() {
    let bad = provider("a", &json!({}));
    let mut status = request("UPDATE", &bad, &Value::Null);
    status["subResource"] = json!("status");
    let mut other = request("CREATE", &bad, &Value::Null);
    other["kind"]["kind"] = json!("ClusterConfig");
    for unjudged in [status, other] {
        assert_eq!(refusal(unjudged, &[]), None);
    }
}

#[test]
fn a_request_without_an_object_is_refused() {
    let refused = refusal(request("CREATE", &Value::Null, &Value::Null), &[]);
    assert_eq!(refused.as_deref(), Some("the request has no object"));
}
