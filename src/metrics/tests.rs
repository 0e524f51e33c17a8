//! The text that Prometheus reads.

use super::*;

fn name(text: &str) -> ProviderName {
    ProviderName::new(text).expect("a name")
}

fn reading(text: &str) -> ProviderReading {
    ProviderReading {
        name: name(text),
        configured: Some(true),
        status: Some(ProviderStatus::Healthy),
        is_held: true,
        day_messages_count: Some(7),
        is_circuit_open: false,
        capacity: 1000,
        states: [("ready", 2), ("scheduled", 0), ("inFlight", 1), ("parked", 0)],
        dead_letters_count: 3,
        oldest_pending: Duration::from_millis(61_500),
    }
}

/// Each kind of event, once.
fn used() -> Metrics {
    let metrics = Metrics::new().expect("distinct names");
    let provider = name("default-smtp");
    metrics.sent(&provider, Duration::from_secs(1));
    metrics.attempt(&provider, Duration::from_secs(1));
    metrics.buried(&provider, Cause::ConnectionTimeout);
    metrics.checked(&provider, true, Duration::from_millis(20));
    metrics.refused(&provider, "full");
    metrics.failed_over(&provider, &name("other"));
    metrics.answered("POST", "/notify", 202);
    metrics
}

#[test]
fn the_reference_finds_its_metrics_under_their_names() {
    let text = used().render(&[reading("default-smtp"), reading("other")]).expect("text");
    for line in [
        r#"breakglass_mailprovider_configured{provider="default-smtp",status="enabled"} 1"#,
        r#"breakglass_mailprovider_health_check_total{provider="default-smtp",result="success"} 1"#,
        r#"breakglass_mailprovider_health_check_duration_seconds_count{provider="default-smtp"} 1"#,
        r#"breakglass_mailprovider_status{provider="default-smtp"} 1"#,
        r#"breakglass_mailprovider_emails_sent_total{provider="default-smtp"} 1"#,
        r#"breakglass_mailprovider_emails_failed_total{provider="default-smtp",reason="connection_timeout"} 1"#,
        r#"breakglass_mailprovider_queue_depth{provider="default-smtp",state="ready"} 2"#,
        r#"breakglass_mailprovider_queue_rejected_total{provider="default-smtp",reason="full"} 1"#,
        r#"breakglass_mailprovider_failovers_total{from="default-smtp",to="other"} 1"#,
        r#"breakglass_mailprovider_held{provider="default-smtp"} 1"#,
        r#"breakglass_mailprovider_day_messages{provider="default-smtp"} 7"#,
        r#"breakglass_mailprovider_oldest_pending_seconds{provider="default-smtp"} 61"#,
        r#"breakglass_mailer_http_requests_total{method="POST",path="/notify",status="202"} 1"#,
        "# HELP breakglass_mailer_build_info Always 1; the version is the label.",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[test]
fn names_follow_the_rules_of_promtool() {
    let text = used().render(&[reading("default-smtp"), reading("other")]).expect("text");
    assert_eq!(text.matches("# HELP ").count(), 25, "all of them are shown");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (metric, kind) = line.split_once(' ').expect("a name and a type");
        assert_eq!(metric.ends_with("_total"), kind == "counter", "{line}");
        let reserved = ["_count", "_sum", "_bucket", "_milliseconds", "_ms", "_counter"];
        assert!(!reserved.iter().any(|suffix| metric.ends_with(suffix)), "{line}");
    }
}

#[test]
fn the_series_of_a_removed_provider_go_away() {
    let metrics = Metrics::new().expect("distinct names");
    let (gone, kept) = (name("gone"), name("kept"));
    metrics.failed_over(&kept, &gone);
    metrics.buried(&gone, Cause::Dns);
    metrics.attempt(&gone, Duration::ZERO);
    let both = metrics.render(&[reading("gone"), reading("kept")]).expect("text");
    assert!(both.contains("\"gone\""));
    let one = metrics.render(&[reading("kept")]).expect("text");
    assert!(!one.contains("\"gone\"") && one.contains("\"kept\""), "{one}");
}

#[test]
fn a_disabled_provider_is_shown_as_such_and_an_unknown_one_has_no_status() {
    let metrics = Metrics::new().expect("distinct names");
    metrics.render(&[reading("a")]).expect("text");
    let status = Some(ProviderStatus::Disabled);
    let disabled = ProviderReading { configured: Some(false), status, ..reading("a") };
    let text = metrics.render(&[disabled]).expect("text");
    assert!(text.contains(r#"configured{provider="a",status="disabled"} 1"#));
    assert!(!text.contains(r#"status="enabled""#));
    assert!(text.contains(r#"breakglass_mailprovider_status{provider="a"} -1"#));
    let unknown = ProviderReading { status: None, ..reading("a") };
    let text = metrics.render(&[unknown]).expect("text");
    assert!(!text.contains(r#"breakglass_mailprovider_status{provider="a"}"#));
}

#[test]
fn failures_are_counted_from_zero_so_that_the_first_one_raises_an_alert() {
    let metrics = Metrics::new().expect("distinct names");
    let text = metrics.render(&[reading("a")]).expect("text");
    let failed = text.lines().filter(|line| line.contains("emails_failed_total{"));
    assert!(failed.clone().all(|line| line.ends_with(" 0")), "{text}");
    assert_eq!(failed.count(), Cause::REASONS.len());
    assert!(text.contains(r#"health_check_total{provider="a",result="failure"} 0"#));
}
