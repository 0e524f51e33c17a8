//! What a request may say, as a table of bodies and the faults that are told.

use super::*;
use crate::core::route::Escalation;
use crate::http::problem::ProblemKind;

const NOW: Time = Time(1_800_000_000_000);

fn parse(body: &str) -> Result<NotifyRequest, Problem> {
    NotifyRequest::parse(body.as_bytes(), NOW)
}

/// A good request with some fields replaced or added; `-name` as a name leaves a field out.
fn with(fields: &str) -> String {
    let mut request = serde_json::json!({
        "recipients": ["oncall@example.com"], "subject": "Escalation approved", "text": "hello",
    });
    let changes: serde_json::Value = serde_json::from_str(fields).expect("JSON");
    for (name, value) in changes.as_object().expect("an object") {
        match name.strip_prefix('-') {
            Some(name) => drop(request.as_object_mut().expect("an object").remove(name)),
            None => request[name] = value.clone(),
        }
    }
    request.to_string()
}

fn pointers(problem: &Problem) -> Vec<&str> {
    problem.errors().iter().map(|error| error.pointer.as_str()).collect()
}

#[test]
fn what_is_not_json_is_a_bad_request() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"subject":"x","z":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let good = with("{}");
    for body in [
        "",
        " ",
        r#"{"recipients":["a@example.com"],"subject":"x","text":"y""#,
        "{'recipients':['a@example.com'],'subject':'x','text':'y'}",
        r#"{recipients:["a@example.com"]}"#,
        r#"{/*c*/"subject":"x"}"#,
        r#"{"subject":"x",}"#,
        &format!("{good}{good}"),
        &format!("{good} x"),
        &format!("\u{feff}{good}"),
        r#"{"subject":"\udc00\ud800"}"#,
        r#"{"subject":"\ud800"}"#,
        "{\"subject\":\"a\u{1}b\"}",
        "{\"subject\":\"a\nb\"}",
        r#"{"subject":NaN}"#,
        r#"{"subject":01}"#,
        &nested("[", "]", 200),
        &nested(r#"{"a":"#, "}", 200),
        &r#"{"a":"#.repeat(100_000),
        &format!(r#"{{"z":{}}}"#, "9".repeat(100_000)),
    ] {
        let problem = parse(body).expect_err(body.get(..60).unwrap_or(body));
        assert_eq!(problem.kind(), ProblemKind::BadRequest, "{body:.60}");
    }
    for bytes in [&b"{\"subject\":\"\xff\"}"[..], b"{\"subject\":\"b\xc0\xaf@\"}"] {
        let problem = NotifyRequest::parse(bytes, NOW).expect_err("not UTF-8");
        assert_eq!(problem.kind(), ProblemKind::BadRequest);
    }
}

#[test]
fn another_shape_is_an_invalid_request_that_names_each_bad_field() {
    let long_label = format!(r#"{{"recipients":["a@{}.com"]}}"#, "b".repeat(64));
    let long_subject = format!(r#"{{"subject":"{}"}}"#, "ü".repeat(999));
    let long_name = format!(r#"{{"mailProvider":"{}"}}"#, "a".repeat(254));
    let long_cluster = format!(r#"{{"cluster":"{}"}}"#, "c".repeat(300));
    let crowd = format!(r#"{{"recipients":[{}"b@example.com"]}}"#, r#""a@b.c","#.repeat(100));
    for (fields, expected) in [
        (r#"{"from":"ceo@example.com"}"#, "/from"),
        (r#"{"__proto__":{"a":1}}"#, "/__proto__"),
        (r#"{"a/b~c":1}"#, "/a~1b~0c"),
        (r#"{"Subject":"x"}"#, "/Subject"),
        (r#"{"-recipients":0}"#, "/recipients"),
        (r#"{"recipients":null}"#, "/recipients"),
        (r#"{"recipients":"a@example.com"}"#, "/recipients"),
        (r#"{"recipients":{"0":"a@example.com"}}"#, "/recipients"),
        (r#"{"recipients":[]}"#, "/recipients"),
        (&crowd, "/recipients"),
        (r#"{"recipients":[["a@example.com"]]}"#, "/recipients/0"),
        (r#"{"recipients":[null]}"#, "/recipients/0"),
        (r#"{"recipients":["a@example.com",""]}"#, "/recipients/1"),
        (r#"{"recipients":["a@x.y","b@x.y","not-an-address","c@x.y"]}"#, "/recipients/2"),
        (&long_label, "/recipients/0"),
        (r#"{"-subject":0}"#, "/subject"),
        (r#"{"subject":null}"#, "/subject"),
        (r#"{"subject":7}"#, "/subject"),
        (r#"{"subject":""}"#, "/subject"),
        (r#"{"subject":"  "}"#, "/subject"),
        (r#"{"subject":"hi\nX-Evil: 1"}"#, "/subject"),
        (r#"{"subject":"hi\r\nBcc: e@example.net"}"#, "/subject"),
        (r#"{"subject":"a\u0000b"}"#, "/subject"),
        (r#"{"subject":"a\u0085b"}"#, "/subject"),
        (r#"{"subject":"a\u2028b"}"#, "/subject"),
        (&long_subject, "/subject"),
        (r#"{"-text":0}"#, "/text"),
        (r#"{"text":7}"#, "/text"),
        (r#"{"text":null}"#, "/text"),
        (r#"{"text":""}"#, "/text"),
        (r#"{"text":"","html":""}"#, "/text"),
        (r#"{"text":"a\u0000b"}"#, "/text"),
        (r#"{"html":"a\u0000b"}"#, "/html"),
        (r#"{"html":null}"#, "/html"),
        (r#"{"html":"a","body":"b"}"#, "/body"),
        (r#"{"mailProvider":"Default-SMTP"}"#, "/mailProvider"),
        (r#"{"mailProvider":"ns/name"}"#, "/mailProvider"),
        (r#"{"mailProvider":""}"#, "/mailProvider"),
        (r#"{"mailProvider":null}"#, "/mailProvider"),
        (r#"{"mailProvider":"x\"} 1\nevil{a=\""}"#, "/mailProvider"),
        (&long_name, "/mailProvider"),
        (&long_cluster, "/cluster"),
        (r#"{"cluster":"a/b/c"}"#, "/cluster"),
        (r#"{"cluster":"../etc"}"#, "/cluster"),
        (r#"{"escalation":{"name":"a"}}"#, "/escalation"),
        (r#"{"escalation":""}"#, "/escalation"),
        (r#"{"replyTo":"Alice <a@example.com>"}"#, "/replyTo"),
        (r#"{"replyTo":null}"#, "/replyTo"),
        (r#"{"expiresAt":"tomorrow"}"#, "/expiresAt"),
        (r#"{"expiresAt":"2030-01-01"}"#, "/expiresAt"),
        (r#"{"expiresAt":"2030-01-01T00:00:00"}"#, "/expiresAt"),
        (r#"{"expiresAt":"2030-01-01T00:00:00+01:00[Europe/Berlin]"}"#, "/expiresAt"),
        (r#"{"expiresAt":"20300101T000000.0000Z"}"#, "/expiresAt"),
        (r#"{"expiresAt":"2030-13-01T00:00:00Z"}"#, "/expiresAt"),
        (r#"{"expiresAt":1893456000}"#, "/expiresAt"),
    ] {
        let problem = parse(&with(fields)).expect_err(fields);
        assert_eq!(problem.kind(), ProblemKind::InvalidRequest, "{fields}");
        assert_eq!(pointers(&problem), [expected], "{fields}");
    }
    for body in ["[]", "\"hello\"", "42", "true", "null", "-1.5", &format!("[{}]", with("{}"))] {
        let problem = parse(body).expect_err(body);
        assert_eq!((problem.kind(), pointers(&problem)), (ProblemKind::InvalidRequest, vec![""]));
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let body = r#"{"recipients":["x","a@example.com",7],"html":1,"body":2,"text":null,"cc":[],
        "expiresAt":"2020-01-01T00:00:00Z","text":"again","replyTo":"no","cluster":"NO"}"#;
    let problem = parse(body).expect_err("many faults");
    assert_eq!(
        pointers(&problem),
        [
            "/text",
            "/recipients/0",
            "/recipients/2",
            "/subject",
            "/body",
            "/html",
            "/body",
            "/text",
            "/replyTo",
            "/cluster",
            "/expiresAt",
            "/cc"
        ]
    );
}

#[test]
fn a_flood_of_unknown_fields_has_a_bounded_answer() {
    let fields: Vec<String> = (0..5000).map(|n| format!(r#""x{n}":[]"#)).collect();
    let problem = parse(&format!("{{{}}}", fields.join(","))).expect_err("unknown fields");
    assert_eq!(problem.errors().len(), 100);
}

#[test]
fn hostile_but_valid_contents_are_taken_as_they_are() {
    for fields in [
        r#"{"text":"a\r\n.\r\nMAIL FROM:<evil@example.net>\r\nb"}"#,
        r#"{"text":"a\r\r\n.\r\nb"}"#,
        r#"{"text":"Grüße, 你好, 🌍"}"#,
        r#"{"subject":"=?utf-8?q?=0d=0aBcc:evil@example.net?="}"#,
        r#"{"text":"{{7*7}} ${7*7} <%= 7*7 %>"}"#,
        r#"{"cluster":"ns/name","escalation":"ns/name"}"#,
        r#"{"expiresAt":"2030-01-01T00:00:00.5+02:00"}"#,
        r#"{"recipients":["用户@example.com"]}"#,
    ] {
        assert!(parse(&with(fields)).is_ok(), "{fields}");
    }
    let html = parse(&with(r#"{"-text":0,"html":"<p>hi</p>","text":""}"#)).expect("html only");
    assert_eq!(html.content.text, None);
    let body = parse(&with(r#"{"-text":0,"body":"<p>hi</p>"}"#)).expect("body for html");
    assert_eq!(body.content.html.as_deref(), Some("<p>hi</p>"));
    assert!(parse(&with(&format!(r#"{{"subject":"{}"}}"#, "ü".repeat(998)))).is_ok());
}

#[test]
fn repeats_of_a_recipient_are_one_recipient() {
    let fields = r#"{"recipients":["a@example.com","a@example.com","a@EXAMPLE.COM","A@x.y"]}"#;
    let request = parse(&with(fields)).expect("good");
    let recipients = request.recipients(&Catalog::default(), NOW).expect("two");
    let shown: Vec<&str> = recipients.iter().map(Address::as_str).collect();
    assert_eq!(shown, ["a@example.com", "A@x.y"]);
}

#[test]
fn an_escalation_names_the_recipients_when_the_caller_does_not() {
    let request = parse(&with(r#"{"-recipients":0,"escalation":"prod"}"#)).expect("good");
    let mut catalog = Catalog { namespace: "default".into(), ..Catalog::default() };
    let refused = request.recipients(&catalog, NOW).expect_err("no such escalation");
    assert_eq!(pointers(&refused), ["/recipients"]);

    let mails = ["a@x.y", "a@X.Y", "b@x.y"].map(|text| Address::parse(text).expect("valid"));
    let escalation = Escalation { notification_mails: mails.into(), ..Escalation::default() };
    catalog.escalations.insert(("default".into(), "prod".into()), escalation);
    assert_eq!(request.recipients(&catalog, NOW).expect("two").len(), 2);
}

#[test]
fn an_end_of_life_in_the_past_is_refused_when_it_is_accepted() {
    let request = parse(&with(r#"{"expiresAt":"1960-01-01T00:00:00Z"}"#)).expect("a time");
    let refused = request.recipients(&Catalog::default(), NOW).expect_err("past");
    assert_eq!(pointers(&refused), ["/expiresAt"]);
}

#[test]
fn a_fingerprint_is_of_the_meaning_and_of_every_field() {
    let of = |body: &str| parse(body).expect(body).fingerprint();
    let base = of(&with("{}"));
    let spelled = r#" {"text":"hell\u006f", "body":"",
        "subject":"Escalation approved","recipients":["oncall@EXAMPLE.com"]}"#;
    assert_eq!(base, of(spelled));
    let others = [
        r#"{"subject":"other"}"#,
        r#"{"text":"other"}"#,
        r#"{"-text":0,"html":"hello"}"#,
        r#"{"html":"x"}"#,
        r#"{"replyTo":"a@b.c"}"#,
        r#"{"mailProvider":"a"}"#,
        r#"{"escalation":"a"}"#,
        r#"{"cluster":"a"}"#,
        r#"{"expiresAt":"2030-01-01T00:00:00Z"}"#,
        r#"{"recipients":["oncall@example.com","b@example.com"]}"#,
    ];
    let mut seen: Vec<[u8; 32]> = others.iter().map(|fields| of(&with(fields))).collect();
    seen.push(base);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), others.len() + 1);
}
