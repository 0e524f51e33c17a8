use super::*;
use crate::k8s::crd::{BreakglassEscalationSpec, MailProviderSpec, RetryConfig};
use serde_json::json;

fn spec() -> Value {
    json!({
        "smtp": {"host": "smtp.example.com", "port": 587},
        "sender": {"address": "noreply@example.com"},
    })
}

fn errors_of(spec: &Value) -> Vec<String> {
    let read = read::<MailProviderSpec>(spec, "spec", UnknownFields::Refused);
    read.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn every_field_left_out_has_the_default_of_the_reference() {
    let read = read::<MailProviderSpec>(&spec(), "spec", UnknownFields::Refused);
    assert_eq!(read.errors, []);
    let spec = read.value.expect("it fits");
    assert_eq!(spec.retry, RetryConfig { count: 3, initial_backoff_ms: 100, queue_size: 1000 });
    assert!(!spec.default && !spec.disabled);
    assert!(!spec.smtp.insecure_skip_verify && !spec.smtp.disable_tls);
}

#[test]
fn an_error_is_worded_as_the_api_server_words_it() {
    for (pointer, value, path, found, rule) in [
        (
            "/smtp/port",
            json!("587"),
            "spec.smtp.port",
            r#""string""#,
            "must be of type integer: \"string\"",
        ),
        (
            "/smtp/port",
            json!(587.5),
            "spec.smtp.port",
            r#""number""#,
            "must be of type integer: \"number\"",
        ),
        (
            "/smtp/port",
            json!(65536),
            "spec.smtp.port",
            "65536",
            "should be less than or equal to 65535",
        ),
        ("/smtp/port", json!(-1), "spec.smtp.port", "-1", "should be greater than or equal to 1"),
        ("/smtp/host", json!(""), "spec.smtp.host", r#""""#, "should be at least 1 chars long"),
        ("/smtp", json!([]), "spec.smtp", r#""array""#, "must be of type object: \"array\""),
    ] {
        let mut spec = spec();
        *spec.pointer_mut(pointer).expect("the field is there") = value;
        let text = format!("{path}: Invalid value: {found}: {path} in body {rule}");
        assert_eq!(errors_of(&spec), [text]);
    }
    assert_eq!(errors_of(&json!(null)), ["spec: Required value"]);
}

#[test]
fn all_errors_are_found_and_unknown_fields_are_among_them() {
    let spec = json!({
        "smtp": {"host": "h", "port": 0, "tls": true},
        "retry": {"count": 11, "queueSize": 9},
        "retries": {"count": 5},
    });
    insta::assert_snapshot!(errors_of(&spec).join("\n"), @r#"
    spec.sender: Required value
    unknown field "spec.retries"
    spec.retry.count: Invalid value: 11: spec.retry.count in body should be less than or equal to 10
    spec.retry.queueSize: Invalid value: 9: spec.retry.queueSize in body should be greater than or equal to 10
    spec.smtp.port: Invalid value: 0: spec.smtp.port in body should be greater than or equal to 1
    unknown field "spec.smtp.tls"
    "#);
}

#[test]
fn an_explicit_null_counts_as_absent() {
    let mut spec = spec();
    spec["retry"] = json!({"count": null});
    spec["smtp"]["passwordRef"] = json!(null);
    spec["default"] = json!(null);
    assert_eq!(errors_of(&spec), [""; 0]);
}

#[test]
fn a_length_is_counted_in_characters() {
    let mut spec = spec();
    spec["sender"]["name"] = json!("ü".repeat(100));
    assert_eq!(errors_of(&spec), [""; 0]);
    spec["sender"]["name"] = json!("ü".repeat(101));
    assert_eq!(errors_of(&spec).len(), 1);
}

#[test]
fn an_address_fits_the_pattern_whole() {
    for (address, fits) in [
        ("noreply@example.com", true),
        ("root@localhost", true),
        ("грета@пример.рф", true),
        ("noreply@", false),
        ("noreply@example", false),
        ("noreply@example.com\n", false),
        ("Bob <noreply@example.com>", false),
        ("a@.example.com", false),
        ("a@", false),
    ] {
        let mut spec = spec();
        spec["sender"]["address"] = json!(address);
        assert_eq!(errors_of(&spec).is_empty(), fits, "{address:?}");
    }
}

#[test]
fn fields_of_a_foreign_resource_are_ignored_and_its_lists_are_checked() {
    let spec = json!({"approvers": {"users": []}, "notificationMails": ["a@example.com", 1]});
    let read = read::<BreakglassEscalationSpec>(&spec, "spec", UnknownFields::Ignored);
    let paths: Vec<_> = read.errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["spec.notificationMails[1]"]);
}

#[test]
fn a_value_that_only_breaks_limits_is_still_read() {
    let mut spec = spec();
    spec["smtp"]["port"] = json!(0);
    let read = read::<MailProviderSpec>(&spec, "spec", UnknownFields::Refused);
    assert!(read.value.is_some());
    assert_eq!(read.errors.len(), 1);
}
