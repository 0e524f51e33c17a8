//! What callers and operators get wrong, with canaries in it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ear::Shown;
use super::{HTML, JUNK, KEY, MISPLACED, NUMBER, RECIPIENT, REPLY_TO, SUBJECT, TEXT, notification};
use crate::support::app::{App, Home};
use crate::support::wait::eventually;

/// Requests that are refused, each for another reason; what was answered goes to `shown`.
pub(super) async fn bad_requests(app: &App, shown: &mut Shown) {
    const JSON: &str = "Content-Type: application/json\r\n";
    let with = |field: &str, value: Value| {
        let mut body = notification("good");
        body[field] = value;
        body.to_string()
    };
    let address = format!("{RECIPIENT} <{RECIPIENT}@example.com>");
    let whole = notification("good").to_string();
    let bodies = [
        whole[..whole.len() - 1].to_owned(),
        JUNK.to_owned(),
        format!("\"{JUNK}\""),
        format!("[{{\"subject\": \"{SUBJECT}\"}}]"),
        with("unknown", json!({"deep": JUNK})),
        with("recipients", json!([address, RECIPIENT, {"to": RECIPIENT}])),
        with("recipients", json!(RECIPIENT)),
        with("subject", json!([SUBJECT])),
        with("subject", json!(format!("{SUBJECT}\r\nBcc: {RECIPIENT}@example.com"))),
        with("subject", json!(SUBJECT.repeat(100))),
        with("text", json!({"text": TEXT})),
        with("html", json!(format!("{HTML}\0"))),
        with("body", json!(HTML)),
        with("replyTo", json!(format!("{REPLY_TO}, {REPLY_TO}@example.com"))),
        with("mailProvider", json!(format!("{JUNK}!"))),
        with("expiresAt", json!(JUNK)),
        with("expiresAt", json!("2001-01-01T00:00:00Z")),
    ];
    for body in &bodies {
        let answer = ask(app, "POST", "/notify", JSON, body).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        shown.strict(&format!("the answer to {body}"), answer);
    }
    let other = with("subject", json!("another"));
    for (headers, body) in [
        (format!("Content-Type: text/{JUNK}\r\n"), &whole),
        (format!("{JSON}Content-Encoding: {JUNK}\r\n"), &whole),
        (format!("{JSON}Idempotency-Key: {KEY}\r\n"), &other),
        (format!("{JSON}Idempotency-Key: {KEY} \u{e9}\r\n"), &whole),
        (format!("{JSON}Idempotency-Key: {}\r\n", KEY.repeat(20)), &whole),
        (format!("{JSON}{JUNK}\r\n"), &whole),
        (format!("{JSON}Expect: {JUNK}\r\nTransfer-Encoding: {JUNK}\r\n"), &whole),
    ] {
        let answer = ask(app, "POST", "/notify", &headers, body).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{headers}: {answer}");
        shown.strict(&format!("the answer to {headers}"), answer);
    }
    for path in [
        format!("/{JUNK}"),
        format!("/notifications/{JUNK}"),
        format!("/deadletters/{JUNK}"),
        format!("/deadletters?reason={JUNK}"),
        format!("/deadletters?cursor={JUNK}"),
        format!("/jobs?limit={JUNK}"),
        format!("/jobs?provider={JUNK}%0a"),
        format!("/queue?provider={JUNK}"),
    ] {
        let answer = ask(app, "GET", &path, "", "").await;
        shown.strict(&format!("the answer to {path}"), answer);
    }
}

/// One exchange over a connection of its own; all that was answered.
pub(super) async fn ask(app: &App, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(app.client.url().trim_start_matches("http://"))
        .await
        .expect("a connection");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    // The server may answer before it has read all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Manifests with a password in a wrong place or of a wrong type, one file after the other.
pub(super) async fn bad_manifests(home: &Home, app: &App) {
    let secret =
        |fields: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{fields}\n");
    let provider = |smtp: &str| {
        format!(
            "apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: MailProvider\n\
             metadata: {{name: p}}\nspec:\n  sender: {{address: a@example.com}}\n  \
             smtp: {{host: h.example, port: 25, {smtp}}}\n"
        )
    };
    let files = [
        secret(&format!("stringData: {{password: {NUMBER}}}")),
        secret(&format!("stringData: {{password: [{MISPLACED}]}}")),
        secret(&format!("stringData: {{password: {{inner: {MISPLACED}}}}}")),
        secret(&format!("stringData: {MISPLACED}")),
        secret(&format!("data: {{password: {MISPLACED}!}}")),
        secret(&format!("data: [{MISPLACED}]")),
        secret(&format!("password: {MISPLACED}")),
        secret(&format!("stringData: {{password: \"{MISPLACED}")),
        secret(&format!("stringData: {{password: *{MISPLACED}}}")),
        secret(&format!("stringData: {{password: !!int {MISPLACED}}}")),
        secret(&format!("stringData: {{password: a, password: {MISPLACED}}}")),
        secret(&format!("stringData:\n  password: a: {MISPLACED}")),
        provider(&format!("password: {MISPLACED}")),
        provider(&format!("passwordRef: {MISPLACED}, username: u")),
        provider(&format!("passwordRef: {{name: s, value: {MISPLACED}}}, username: u")),
        provider(&format!("username: [{MISPLACED}]")),
        provider("").replace("h.example", &format!("u:{MISPLACED}@h.example")),
        provider("").replace("spec:", &format!("password: {MISPLACED}\nspec:")),
    ];
    for file in &files {
        let refused_count = || app.process.log().matches("the manifests are broken").count();
        let before = refused_count();
        home.write(file);
        eventually(&format!("refused: {file}"), async || (refused_count() > before).then_some(()))
            .await;
    }
}
