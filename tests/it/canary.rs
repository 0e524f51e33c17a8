//! What must never be shown is planted wherever it can come in, and looked for wherever it could
//! come out, with everything logged that any crate has to say.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::smtp::{Action, PKI, Script, SmtpServer, Verb, say};
use crate::support::wait::{LIMIT, eventually};

/// Secrets in the narrow sense: nothing shows them, but `?include=content` the bodies.
const SECRETS: [&str; 9] = [PASSWORD, ROTATED, MISPLACED, NUMBER, TEXT, HTML, REPLY_TO, KEY, JUNK];
/// Shown where dead letters, jobs and notifications are listed, and nowhere else.
const LISTED: [&str; 3] = [RECIPIENT, SUBJECT, USERNAME];

const PASSWORD: &str = "canarypasswordone";
const ROTATED: &str = "canarypasswordtwo";
/// A password where none belongs.
const MISPLACED: &str = "canarymisplaced";
/// A password that YAML takes for a number.
const NUMBER: &str = "271828182845904";
const USERNAME: &str = "canaryusername";
const RECIPIENT: &str = "canaryrecipient";
const SUBJECT: &str = "canarysubject";
const TEXT: &str = "canarytextbody";
const HTML: &str = "canaryhtmlbody";
const REPLY_TO: &str = "canaryreplyto";
const KEY: &str = "canaryidempotencykey";
/// What a caller sends by mistake.
const JUNK: &str = "canaryjunk";

/// What must keep its secrets, and where each piece of it is from.
#[derive(Default)]
struct Shown {
    /// Logs, metrics, errors and the like.
    strict: Vec<(String, String)>,
    /// Where a person looks for a notification.
    lists: Vec<(String, String)>,
}

impl Shown {
    fn strict(&mut self, from: &str, text: String) {
        self.strict.push((from.to_owned(), text));
    }

    /// # Panics
    /// When a canary is in it.
    fn check(&self) {
        let mut found = Vec::new();
        let everything = [SECRETS.as_slice(), LISTED.as_slice()].concat();
        for (texts, canaries) in [(&self.strict, &everything[..]), (&self.lists, &SECRETS[..])] {
            for (from, text) in texts {
                for line in text.lines() {
                    let names = canaries.iter().filter(|canary| sings(line, canary));
                    found.extend(names.map(|canary| format!("{canary} in {from}: {line}")));
                }
            }
        }
        found.sort();
        found.dedup();
        assert!(found.is_empty(), "{} canaries sing:\n{}", found.len(), found.join("\n"));
    }
}

/// Whether `line` holds `canary`, plain in any case or in an encoding.
fn sings(line: &str, canary: &str) -> bool {
    let folded = line.to_ascii_lowercase();
    let each = |form: fn(u8) -> String, between: &str| {
        canary.bytes().map(form).collect::<Vec<_>>().join(between)
    };
    let forms = [
        canary.to_owned(),
        each(|byte| format!("{byte:02x}"), ""),
        each(|byte| format!("%{byte:02x}"), ""),
        each(|byte| format!("={byte:02x}"), ""),
        each(|byte| format!("+{byte:02x}"), ""),
        // A list of bytes, as `Debug` shows it.
        each(|byte| byte.to_string(), ", "),
    ];
    forms.iter().any(|form| folded.contains(form)) || is_in_base64(line, canary)
}

/// Whether `line` holds `canary` within something in base64, wherever it begins there.
fn is_in_base64(line: &str, canary: &str) -> bool {
    (0..3).any(|shift| {
        let encoded = STANDARD.encode([vec![0; shift], canary.into()].concat());
        // Only those characters that no neighbour has a share in.
        let (begin, end) = ((shift * 8).div_ceil(6), (shift + canary.len()) * 8 / 6);
        line.contains(&encoded[begin..end])
    })
}

#[test]
fn a_canary_is_heard_in_every_encoding() {
    let inside = STANDARD.encode(format!("\0{USERNAME}\0{PASSWORD}"));
    for line in [
        "x CanaryPasswordOne x",
        "63616e61727970617373776f72646f6e65",
        "%63%61%6E%61%72%79%70%61%73%73%77%6F%72%64%6F%6E%65",
        "[99, 97, 110, 97, 114, 121, 112, 97, 115, 115, 119, 111, 114, 100, 111, 110, 101]",
        &format!("AUTH PLAIN {inside}"),
    ] {
        assert!(sings(line, PASSWORD), "{line}");
        assert!(!sings(line, ROTATED), "{line}");
    }
}

#[tokio::test]
async fn no_secret_recipient_subject_or_body_is_shown_in_json_logs_metrics_and_errors() {
    run(|home| home).await;
}

#[tokio::test]
async fn no_secret_recipient_subject_or_body_is_shown_in_text_logs_metrics_and_errors() {
    run(Home::text_log).await;
}

/// Servers that say too much, and where.
const BLABBERS: [(&str, Verb, u16); 6] = [
    ("refusing", Verb::Rcpt, 550),
    ("filtering", Verb::Dot, 554),
    ("deferring", Verb::Mail, 451),
    ("locked", Verb::Auth, 535),
    ("closing", Verb::Rcpt, 421),
    ("greeting", Verb::Greeting, 554),
];

/// A server that says all that it can know by then, in every way it can.
fn blabs(verb: Verb, code: u16, password: &str) -> Action {
    let encoded = [&format!("\0{USERNAME}\0{password}"), USERNAME, password];
    let [line, name, word] = encoded.map(|text| STANDARD.encode(text));
    let upper = RECIPIENT.to_ascii_uppercase();
    let mut lines = vec![
        format!("AUTH PLAIN {line} {name} {word}"),
        format!("{USERNAME} {password} {}", password.to_uppercase()),
    ];
    if !matches!(verb, Verb::Greeting | Verb::Auth) {
        lines.extend([
            format!("<{RECIPIENT}@example.com> and {upper}@EXAMPLE.COM are not here"),
            format!("no user {RECIPIENT}; {RECIPIENT}+40example.com {upper}=40example.com"),
            format!("see https://example.net/why?id={RECIPIENT}%40example.com&s={SUBJECT}"),
            format!("subject was: {SUBJECT} or {}", SUBJECT.to_uppercase()),
            format!("found {TEXT} and http://example.net/{HTML}, {REPLY_TO}@example.com"),
        ]);
    }
    let lines: String = lines.iter().map(|line| format!("{code}-{line}\r\n")).collect();
    say(&format!("{lines}{code} done"))
}

fn notification(provider: &str) -> Value {
    json!({
        "recipients": [format!("{RECIPIENT}@example.com")],
        "subject": SUBJECT,
        "text": format!("Alice asks: {TEXT}\n"),
        "html": format!("<p>Alice asks: <a href=\"http://example.net/{HTML}\">see</a></p>"),
        "replyTo": format!("{REPLY_TO}@example.com"),
        "mailProvider": provider,
    })
}

async fn run(shape: fn(Home) -> Home) {
    let good = SmtpServer::start(Script::starttls()).await;
    let hanging = SmtpServer::start(Script::plain().on(Verb::Data, Action::Hang)).await;
    let mut blabbers = Vec::new();
    for (name, verb, code) in BLABBERS {
        let script = Script::plain().on(verb, blabs(verb, code, PASSWORD));
        blabbers.push((name, SmtpServer::start(script).await));
    }
    let providers = |password: &'static str| {
        let plain = |name, server: &SmtpServer| {
            Provider::plain(name, server.port()).login(USERNAME, password)
        };
        let encrypted = Provider::tls("good", "127.0.0.1", good.port(), &PKI.ca_pem);
        let mut providers = vec![encrypted.login(USERNAME, password), plain("hanging", &hanging)];
        providers.push(plain("secretless", &hanging).without_secret());
        providers.extend(blabbers.iter().map(|(name, server)| plain(name, server).retry(1, 10)));
        providers
    };
    let flags = ["--log-level", "trace", "--shutdown-grace", "100ms"];
    let home = shape(Home::new(&providers(PASSWORD)).args(&flags));
    let mut shown = Shown::default();

    let mut app = home.start().await;
    let mut ids = post_to_all(&app).await;
    ids.push(app.notify(&notification("secretless")).await);
    ids.push(app.notify(&notification("hanging")).await);
    let hangs_count = || hanging.seen().count(Verb::Data);
    eventually("a send hangs", async || (hangs_count() > 0).then_some(())).await;
    let answer = app.client.notify(&notification("good"), Some(KEY)).await.expect("an answer");
    assert_eq!(answer.status, 202);
    mistakes(&app, &mut shown).await;
    broken_manifests(&home, &app).await;

    // A server knows the new password only once it has heard it.
    blabbers.iter().for_each(|(_, server)| server.follow(Script::plain()));
    home.providers(&providers(ROTATED));
    eventually("every server has heard the new password", async || {
        post_to_all(&app).await;
        let has_heard = |server: &SmtpServer| {
            server.seen().lines.iter().any(|line| is_in_base64(line, ROTATED))
        };
        blabbers.iter().all(|(_, server)| has_heard(server)).then_some(())
    })
    .await;
    for ((_, verb, code), (_, server)) in BLABBERS.iter().zip(&blabbers) {
        server.follow(Script::plain().on(*verb, blabs(*verb, *code, ROTATED)));
    }
    ids.extend(post_to_all(&app).await);
    look(&app, &ids, &mut shown).await;
    app.process.kill9();
    shown.strict("the first log", app.process.log());

    let mut app = home.start().await;
    eventually("the send hangs again", async || (hangs_count() > 1).then_some(())).await;
    look(&app, &ids, &mut shown).await;
    app.process.term();
    app.process.exit(LIMIT).await;
    let log = app.process.log();
    assert!(log.contains("cut short"), "{log}");
    shown.strict("the second log", log);

    shown.strict("file names", names_below(home.data()));
    shown.check();
}

/// One notification to each provider that ends it soon; their ids.
async fn post_to_all(app: &App) -> Vec<String> {
    let mut ids = Vec::new();
    for name in BLABBERS.map(|(name, ..)| name).into_iter().chain(["good"]) {
        let id = app.notify(&notification(name)).await;
        app.jobs_are(&id, &["delivered", "dead"]).await;
        ids.push(id);
    }
    ids
}

/// Everything that answers without being asked to show a content.
async fn look(app: &App, ids: &[String], shown: &mut Shown) {
    for path in ["/metrics", "/providers", "/queue", "/readyz", "/openapi.json"] {
        shown.strict(path, ask(app, "GET", path, "", "").await);
    }
    let mut lists: Vec<_> = ["/jobs", "/deadletters"].map(str::to_owned).into();
    lists.extend(ids.iter().map(|id| format!("/notifications/{id}")));
    let dead_letters = app.client.dead_letters().await;
    assert!(!dead_letters.is_empty());
    lists.extend(dead_letters.iter().map(|dead| format!("/deadletters/{}", text(&dead["id"]))));
    for path in lists {
        let answer = ask(app, "GET", &path, "", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        shown.lists.push((path, answer));
    }
}

/// What a caller gets wrong, with canaries in it.
async fn mistakes(app: &App, shown: &mut Shown) {
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
        format!("{JUNK}"),
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
async fn ask(app: &App, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(app.client.address()).await.expect("a connection");
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
async fn broken_manifests(home: &Home, app: &App) {
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

/// The names of all files and folders below `folder`, one a line.
fn names_below(folder: &Path) -> String {
    let mut names = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        names += &format!("{}\n", path.display());
        if path.is_dir() {
            names += &names_below(&path);
        }
    }
    names
}
