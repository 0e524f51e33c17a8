//! Fields that are refused: each is named, with its rule, all of them at once.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{faults, posted, with};
use crate::support::api::{TestApi, notification};

const BLANK: &str = "must not be blank";
const CONTROL: &str = "must not contain line breaks or control characters";
const PROVIDER: &str =
    "must be the name of a MailProvider: lower-case letters, digits, hyphens and dots";
const REFERENCE: &str =
    "must be a name or namespace/name: lower-case letters, digits, hyphens and dots";
const TIME: &str = "must be a date and time like 2030-01-01T00:00:00Z";

/// What is answered to a good notification with this field.
async fn refused(api: &TestApi, name: &str, value: Value) -> Vec<(String, String)> {
    let mut change = json!({});
    change[name] = value.clone();
    let answer = api.post("/notify", with(change)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {value}");
    assert_eq!(answer.json()["type"], "/problems/invalid-request", "{name}: {value}");
    faults(&answer)
}

fn fault(pointer: &str, detail: &str) -> (String, String) {
    (pointer.to_owned(), detail.to_owned())
}

#[tokio::test]
async fn a_value_of_another_type_is_named_with_the_type_that_it_has() {
    let api = TestApi::start();
    let values = [
        (json!(null), "null"),
        (json!(true), "a boolean"),
        (json!(false), "a boolean"),
        (json!(0), "a number"),
        (json!(-1), "a number"),
        (json!(1.5), "a number"),
        (json!(u64::MAX), "a number"),
        (json!(1e308), "a number"),
        (json!({}), "an object"),
        (json!({"a": {"b": [{}]}}), "an object"),
    ];
    let texts = ["subject", "text", "html", "replyTo", "mailProvider", "escalation", "cluster"];
    for (value, kind) in &values {
        for name in texts.into_iter().chain(["expiresAt"]) {
            let expected = fault(&format!("/{name}"), &format!("must be a string, not {kind}"));
            assert_eq!(refused(&api, name, value.clone()).await, [expected]);
        }
        let expected = fault("/recipients", &format!("must be an array, not {kind}"));
        assert_eq!(refused(&api, "recipients", value.clone()).await, [expected]);
        let expected = fault("/recipients/0", &format!("must be a string, not {kind}"));
        assert_eq!(refused(&api, "recipients", json!([value])).await, [expected]);
    }
    for name in texts {
        let expected = fault(&format!("/{name}"), "must be a string, not an array");
        assert_eq!(refused(&api, name, json!(["x"])).await, [expected]);
    }
    let expected = fault("/recipients", "must be an array, not a string");
    assert_eq!(refused(&api, "recipients", json!("a@example.com")).await, [expected]);
    let expected = fault("/recipients/0", "must be a string, not an array");
    assert_eq!(refused(&api, "recipients", json!([["a@example.com"]])).await, [expected]);
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn a_value_that_breaks_a_rule_is_named_with_the_rule() {
    let api = TestApi::start();
    for (name, rule, values) in [
        ("recipients", "must name at least one recipient", vec![json!([])]),
        (
            "recipients",
            "must name at most 100 recipients",
            vec![json!(vec!["a@example.com"; 101]), json!(vec!["a@example.com"; 20_000])],
        ),
        ("subject", BLANK, vec![json!(""), json!(" "), json!("\u{a0}\u{3000}"), json!("\r\n\t")]),
        (
            "subject",
            CONTROL,
            vec![
                json!("hi\nX-Evil: 1"),
                json!("hi\rX-Evil: 1"),
                json!("hi\r\nBcc: evil@example.net"),
                json!("hi\r\n\r\nbody"),
                json!("hi\r\n folded"),
                json!("a\0b"),
                json!("a\tb"),
                json!("a\u{8}b"),
                json!("a\u{b}b"),
                json!("a\u{c}b"),
                json!("\u{1b}[31mred"),
                json!("a\u{7f}b"),
                json!("a\u{85}b"),
                json!("a\u{9b}31m"),
                json!("a\u{2028}b"),
                json!("a\u{2029}b"),
            ],
        ),
        (
            "subject",
            "must have at most 998 characters",
            vec![json!("x".repeat(999)), json!("ü".repeat(999)), json!("x".repeat(900_000))],
        ),
        ("text", "must not contain NUL", vec![json!("a\0b"), json!("\0")]),
        ("html", "must not contain NUL", vec![json!("<p>\0</p>")]),
        ("body", "must not contain NUL", vec![json!("<p>\0</p>")]),
        (
            "mailProvider",
            PROVIDER,
            vec![
                json!(""),
                json!(" "),
                json!("Main"),
                json!("main "),
                json!("ma in"),
                json!("ns/main"),
                json!("-main"),
                json!("main-"),
                json!(".main"),
                json!("main."),
                json!("ma..in"),
                json!("ma_in"),
                json!("mäin"),
                json!("main\n"),
                json!("../main"),
                json!("main\0"),
                json!("x\"} 1\nevil{a=\""),
                json!("a".repeat(254)),
                json!("a".repeat(64)),
            ],
        ),
        ("expiresAt", "must be in the future", past()),
        ("expiresAt", TIME, no_times()),
    ] {
        for value in values {
            let expected = fault(&format!("/{name}"), rule);
            assert_eq!(refused(&api, name, value.clone()).await, [expected], "{value:.100}");
        }
    }
    for name in ["escalation", "cluster"] {
        for value in [
            "",
            " ",
            "/",
            "/a",
            "a/",
            "a/b/c",
            "a//b",
            "A",
            "a b",
            "a_b",
            "../etc",
            "a/../b",
            "-a",
            "a-",
            "a/-b",
            "ä",
            "a\n",
            "a\0",
            "a%2fb",
            &"c".repeat(300),
            &format!("a/{}", "c".repeat(300)),
        ] {
            let expected = fault(&format!("/{name}"), REFERENCE);
            assert_eq!(refused(&api, name, json!(value)).await, [expected], "{value:?}");
        }
    }
    let expected = fault("/mailProvider", "does not exist");
    assert_eq!(refused(&api, "mailProvider", json!("nobody")).await, [expected]);
    assert_eq!(api.store.notifications_count(), 0);
}

fn past() -> Vec<Value> {
    [
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
        "2020-02-29T12:00:00.123456789+01:00",
        "2016-12-31T23:59:60Z",
        "2020-01-01T00:00:00-23:59",
    ]
    .map(Value::from)
    .into()
}

fn no_times() -> Vec<Value> {
    [
        "",
        " ",
        "never",
        "now",
        "1h",
        "P1D",
        "0",
        "1893456000",
        "1893456000000",
        "2030",
        "2030-01",
        "2030-01-01",
        "2030-01-01T00:00Z",
        "2030-01-01T00Z",
        "2030-01-01T00:00:00",
        "2030-01-01 00:00:00Z",
        "2030-01-01_00:00:00Z",
        " 2030-01-01T00:00:00Z",
        "2030-01-01T00:00:00Z ",
        "2030-01-01T00:00:00Z\n",
        "2030-01-01T00:00:00 Z",
        "2030-01-01T00:00:00.Z",
        "2030-01-01T00:00:00,5Z",
        "2030-01-01T00:00:00UTC",
        "2030-01-01T00:00:00+01",
        "2030-01-01T00:00:00+0100",
        "2030-01-01T00:00:00+1:00",
        "2030-01-01T00:00:00+01:00:00",
        "2030-01-01T00:00:00+26:00",
        "2030-01-01T00:00:00+01:60",
        "2030-01-01T00:00:00Z[UTC]",
        "2030-01-01T00:00:00+01:00[Europe/Berlin]",
        "20300101T000000.0000Z",
        "2030-1-1T00:00:00.000Z",
        "2030-W01-1T00:00:00Z",
        "2030-001T00:00:00.00Z",
        "2030-00-01T00:00:00Z",
        "2030-13-01T00:00:00Z",
        "2030-01-00T00:00:00Z",
        "2030-01-32T00:00:00Z",
        "2030-02-29T00:00:00Z",
        "2030-01-01T24:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01T00:60:00Z",
        "2030-01-01T00:00:61Z",
        "10000-01-01T00:00:00Z",
        "+2030-01-01T00:00:00Z",
        "-2030-01-01T00:00:00Z",
        "+12030-01-01T00:00:00Z",
        "30-01-01T00:00:00.0000Z",
        "２０３０-01-01T00:00:00Z",
        "2030\u{2212}01-01T00:00:00Z",
        "Tue, 01 Jan 2030 00:00:00 GMT",
        "2030-01-01T00:00:00\u{2212}01:00",
    ]
    .map(Value::from)
    .into()
}

#[tokio::test]
async fn a_time_of_any_form_of_rfc_3339_is_taken() {
    for time in [
        "2090-01-01T00:00:00Z",
        "2090-01-01t00:00:00z",
        "2090-01-01T00:00:00.5Z",
        "2090-01-01T00:00:00.123456789Z",
        "2090-01-01T00:00:00+00:00",
        "2090-01-01T00:00:00-00:00",
        "2090-01-01T00:00:00+14:00",
        "2090-01-01T00:00:00-23:59",
        "2090-12-31T23:59:60Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59.999-12:00",
    ] {
        let api = TestApi::start();
        let answer = api.post("/notify", with(json!({"expiresAt": time}))).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{time}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_missing_field_is_named() {
    let api = TestApi::start();
    let recipients = "is required unless an escalation names notificationMails";
    let body = "is required, or html: at least one must not be empty";
    for (fields, expected) in [
        (
            json!({}),
            vec![("/recipients", recipients), ("/subject", "is required"), ("/text", body)],
        ),
        (json!({"recipients": ["a@b.c"], "text": "x"}), vec![("/subject", "is required")]),
        (json!({"subject": "x", "text": "x"}), vec![("/recipients", recipients)]),
        (json!({"recipients": ["a@b.c"], "subject": "x"}), vec![("/text", body)]),
        (
            json!({"recipients": ["a@b.c"], "subject": "x", "text": "", "html": ""}),
            vec![("/text", body)],
        ),
        (
            json!({"escalation": "none", "subject": "x", "text": "x"}),
            vec![("/recipients", "is required unless the escalation names notificationMails")],
        ),
    ] {
        let answer = api.post("/notify", fields.clone()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{fields}");
        let expected: Vec<_> = expected.into_iter().map(|(at, rule)| fault(at, rule)).collect();
        assert_eq!(faults(&answer), expected, "{fields}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn an_unknown_field_is_named_by_a_pointer_of_rfc_6901() {
    let api = TestApi::start();
    for (name, pointer) in [
        ("from", "/from"),
        ("sender", "/sender"),
        ("cc", "/cc"),
        ("bcc", "/bcc"),
        ("headers", "/headers"),
        ("attachments", "/attachments"),
        ("Subject", "/Subject"),
        ("subject ", "/subject "),
        ("reply_to", "/reply_to"),
        ("__proto__", "/__proto__"),
        ("constructor", "/constructor"),
        ("$schema", "/$schema"),
        ("", "/"),
        ("a/b", "/a~1b"),
        ("a~b", "/a~0b"),
        ("~1", "/~01"),
        ("/", "/~1"),
        ("ünïcödé", "/ünïcödé"),
        ("a\"b\\c", "/a\"b\\c"),
        ("a\nb", "/a\nb"),
        ("\0", "/\0"),
        (&"n".repeat(101), &format!("/{}", "n".repeat(100))),
    ] {
        for value in [json!(null), json!("x"), json!({"deep": [[[]]]})] {
            assert_eq!(refused(&api, name, value).await, [fault(pointer, "is not known")]);
        }
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn a_field_that_comes_twice_is_named_also_when_both_are_good() {
    let api = TestApi::start();
    let good = notification(&["a@example.com"]).to_string();
    for (again, pointer) in [
        (r#""subject":"Escalation approved""#, "/subject"),
        (r#""subject":"another""#, "/subject"),
        (r#""recipients":["b@example.com"]"#, "/recipients"),
        (r#""text":null"#, "/text"),
        (r#""s\u0075bject":"x""#, "/subject"),
    ] {
        let answer = posted(&api, format!("{},{again}}}", &good[..good.len() - 1])).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{again}");
        assert_eq!(faults(&answer), [fault(pointer, "must not be given twice")], "{again}");
    }
    let both = api.post("/notify", with(json!({"html": "a", "body": "b"}))).await;
    let expected = fault("/body", "must not be given with html: it is another name for it");
    assert_eq!(faults(&both), [expected]);
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn every_fault_is_told_at_once_and_a_flood_of_them_is_bounded() {
    let api = TestApi::start();
    let answer = api
        .post(
            "/notify",
            json!({
                "recipients": ["a@example.com", "", null, "b"], "subject": "a\nb", "text": 7,
                "html": null, "replyTo": "no", "mailProvider": "NO", "escalation": [],
                "cluster": "a/b/c", "expiresAt": "soon", "from": "x", "zebra": 1,
            }),
        )
        .await;
    let expected = [
        ("/recipients/1", "must not be empty"),
        ("/recipients/2", "must be a string, not null"),
        ("/recipients/3", "must have the form local@domain"),
        ("/subject", CONTROL),
        ("/html", "must be a string, not null"),
        ("/text", "must be a string, not a number"),
        ("/replyTo", "must have the form local@domain"),
        ("/mailProvider", PROVIDER),
        ("/escalation", "must be a string, not an array"),
        ("/cluster", REFERENCE),
        ("/expiresAt", TIME),
        ("/from", "is not known"),
        ("/zebra", "is not known"),
    ];
    assert_eq!(faults(&answer), expected.map(|(at, rule)| fault(at, rule)));
    assert_eq!(answer.json()["detail"], "13 fields are bad.");

    let names = (0..5_000).map(|n| (format!("x{n}"), json!([])));
    let flood = Value::Object(names.collect());
    let answer = api.post("/notify", flood).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(faults(&answer).len(), 100);
    assert!(answer.text.len() < 32 << 10);

    let answer = api.post("/notify", with(json!({"recipients": vec![""; 100], "x": 1}))).await;
    assert_eq!(faults(&answer).len(), 100);
    assert_eq!(api.store.notifications_count(), 0);
}
