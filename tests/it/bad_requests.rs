//! Requests that are refused, as tables: what is sent, and what is answered. None makes a job.

mod addresses;
mod fields;
mod framing;
mod paths;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::support::api::{Answer, TestApi, notification, post};

/// A good notification with some fields replaced or added.
fn with(changes: serde_json::Value) -> serde_json::Value {
    let mut body = notification(&["oncall@example.com"]);
    for (name, value) in changes.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// What a refusal says of each field: pointer and detail, in order.
fn faults(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.json();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let errors = body["errors"].as_array().into_iter().flatten();
    errors.map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
}

async fn posted(api: &TestApi, bytes: impl Into<Body>) -> Answer {
    let request = Request::post("/notify").header("content-type", "application/json");
    api.send(request.body(bytes.into()).expect("a request")).await
}

/// The good notification as bytes, with its subject's bytes replaced.
fn with_subject(bytes: &[u8]) -> Vec<u8> {
    let good = notification(&["a@example.com"]).to_string().replace("Escalation approved", "\n");
    let (before, after) = good.split_once("\\n").or(good.split_once('\n')).expect("its place");
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

#[tokio::test]
async fn what_is_not_one_json_text_in_utf8_is_400() {
    let api = TestApi::start();
    let good = notification(&["a@example.com"]).to_string();
    let nested = |open: &str, close: &str, depth: usize| {
        let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        good.replace("\"hello\"", &value).into_bytes()
    };
    let utf16 =
        |order: fn(u16) -> [u8; 2]| -> Vec<u8> { good.encode_utf16().flat_map(order).collect() };
    let bom = "\u{feff}".as_bytes();
    for (bytes, said) in [
        // Nothing, or not all of it.
        (Vec::new(), "is not JSON"),
        (b" \t\r\n ".to_vec(), "is not JSON"),
        (b"\0".to_vec(), "is not JSON"),
        (good[..good.len() - 1].into(), "is not JSON"),
        (b"{".to_vec(), "is not JSON"),
        (b"{\"subject\":".to_vec(), "is not JSON"),
        // More than one.
        (format!("{good}{good}").into(), "is not JSON"),
        (format!("{good}\n{good}").into(), "is not JSON"),
        (format!("{good},").into(), "is not JSON"),
        (format!("{good}\0").into(), "is not JSON"),
        (format!("{good}//").into(), "is not JSON"),
        (format!("{good}]").into(), "is not JSON"),
        // Other languages.
        (good.replace('"', "'").into(), "is not JSON"),
        (good.replace("\"subject\"", "subject").into(), "is not JSON"),
        (good.replace('{', "{/*c*/").into(), "is not JSON"),
        (good.replace('}', ",}").into(), "is not JSON"),
        (good.replace(']', ",]").into(), "is not JSON"),
        (good.replace("\"hello\"", "NaN").into(), "is not JSON"),
        (good.replace("\"hello\"", "Infinity").into(), "is not JSON"),
        (good.replace("\"hello\"", "undefined").into(), "is not JSON"),
        (good.replace("\"hello\"", "True").into(), "is not JSON"),
        (good.replace("\"hello\"", "0x1f").into(), "is not JSON"),
        (good.replace("\"hello\"", "01").into(), "is not JSON"),
        (good.replace("\"hello\"", "+1").into(), "is not JSON"),
        (good.replace("\"hello\"", "1.").into(), "is not JSON"),
        (good.replace("\"hello\"", ".5").into(), "is not JSON"),
        (good.replace("\"hello\"", "1e999999").into(), "is not JSON"),
        (good.replace("\"hello\"", &"9".repeat(100_000)).into(), "is not JSON"),
        (b"subject: x\nrecipients: [a@example.com]\n".to_vec(), "is not JSON"),
        (b"<notify><subject>x</subject></notify>".to_vec(), "is not JSON"),
        (b"recipients=a@example.com&subject=x".to_vec(), "is not JSON"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "is not UTF-8"),
        // Too deep.
        (nested("[", "]", 200), "is not JSON"),
        (nested("{\"a\":", "}", 200), "is not JSON"),
        ("[".repeat(100_000).into(), "is not JSON"),
        ("{\"a\":".repeat(100_000).into(), "is not JSON"),
        // Strings.
        (with_subject(br"\ud800"), "is not JSON"),
        (with_subject(br"\udc00"), "is not JSON"),
        (with_subject(br"\udc00\ud800"), "is not JSON"),
        (with_subject(br"\ud800x"), "is not JSON"),
        (with_subject(br"\ud800\u0041"), "is not JSON"),
        (with_subject(br"\x41"), "is not JSON"),
        (with_subject(br"\u12"), "is not JSON"),
        (with_subject(br"\u00zz"), "is not JSON"),
        (with_subject(b"\0"), "is not JSON"),
        (with_subject(b"\x01"), "is not JSON"),
        (with_subject(b"\t"), "is not JSON"),
        (with_subject(b"a\nb"), "is not JSON"),
        (with_subject(b"\xff"), "is not UTF-8"),
        (with_subject(b"\xc0\xaf"), "is not UTF-8"),
        (with_subject(b"\xed\xa0\x80"), "is not UTF-8"),
        (with_subject(b"\xf5\x80\x80\x80"), "is not UTF-8"),
        (with_subject(b"\xe2\x82"), "is not UTF-8"),
        (with_subject(b"gr\xfc\xdfe"), "is not UTF-8"),
        // Other encodings.
        ([bom, good.as_bytes()].concat(), "is not JSON"),
        (utf16(u16::to_be_bytes), "is not JSON"),
        (utf16(u16::to_le_bytes), "is not JSON"),
        ([&b"\xff\xfe"[..], &utf16(u16::to_le_bytes)].concat(), "is not UTF-8"),
        ([&b"\xfe\xff"[..], &utf16(u16::to_be_bytes)].concat(), "is not UTF-8"),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let answer = posted(&api, bytes).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{shown}: {}", answer.text);
        assert_eq!(answer.json()["type"], "/problems/bad-request", "{shown}");
        assert!(answer.text.contains(said), "{shown}: {}", answer.text);
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn another_value_than_an_object_is_422_at_the_root() {
    let api = TestApi::start();
    let inside = format!("[{}]", notification(&["a@example.com"]));
    for body in ["null", "true", "0", "-0.5e3", "\"x\"", "[]", "[{}]", &inside, " \n[[[]]] "] {
        let answer = posted(&api, body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(faults(&answer), [(String::new(), "must be an object".to_owned())], "{body}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn only_one_content_type_and_no_content_encoding_is_415_otherwise() {
    let api = TestApi::start();
    for headers in [
        &[][..],
        &[("content-type", "")],
        &[("content-type", "application/json"), ("content-type", "application/json")],
        &[("content-type", "application/json"), ("content-type", "text/plain")],
        &[("content-type", "application/json, application/json")],
        &[("content-type", "text/plain")],
        &[("content-type", "text/json")],
        &[("content-type", "*/*")],
        &[("content-type", "application/*")],
        &[("content-type", "application/ json")],
        &[("content-type", "application/json5")],
        &[("content-type", "application/x-json")],
        &[("content-type", "application/ld+json")],
        &[("content-type", "application/merge-patch+json")],
        &[("content-type", "application/problem+json")],
        &[("content-type", "application/x-ndjson")],
        &[("content-type", "application/octet-stream")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=b")],
        &[("content-type", "multipart/form-data; boundary=application/json")],
        &[("content-type", "text/plain; application/json")],
        &[("content-type", "application/json; charset=iso-8859-1")],
        &[("content-type", "application/json; charset=utf-16")],
        &[("content-type", "application/json; charset")],
        &[("content-type", "application/json; charset=utf-8; charset=latin1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "application/json"), ("content-encoding", "br, gzip")],
        &[("content-type", "application/json"), ("content-encoding", "")],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "identity"),
            ("content-encoding", "gzip"),
        ],
    ] {
        let mut request = post("/notify", &notification(&["a@example.com"]));
        request.headers_mut().remove("content-type");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a header"));
        }
        let answer = api.send(request).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{headers:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{headers:?}");
    }
    assert_eq!(api.store.notifications_count(), 0);
}

#[tokio::test]
async fn a_bad_idempotency_key_is_400() {
    let api = TestApi::start();
    let long = "k".repeat(256);
    for keys in
        [&[""][..], &[" "], &["a b"], &["a\tb"], &["schlüssel"], &[&long], &["a", "a"], &["a", "b"]]
    {
        let mut request = post("/notify", &notification(&["a@example.com"]));
        for key in keys {
            let key = axum::http::HeaderValue::from_bytes(key.as_bytes()).expect("a header");
            request.headers_mut().append("idempotency-key", key);
        }
        let answer = api.send(request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{keys:?}");
        assert!(answer.text.contains("The Idempotency-Key must"), "{keys:?}: {}", answer.text);
    }
    assert_eq!(api.store.notifications_count(), 0);
}
