//! What must never be shown is planted wherever it can come in, and looked for wherever it could
//! come out, with everything logged that any crate has to say.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::text;
use crate::support::smtp::{Action, PKI, Script, SmtpServer, Verb, say};
use crate::support::wait::{LIMIT, eventually};

mod ear;
mod mistakes;
mod tokens;

use ear::{Shown, is_in_base64};
use mistakes::{ask, bad_manifests, bad_requests};

/// Secrets in the narrow sense: nothing shows them, but `?include=content` the bodies.
const SECRETS: [&str; 13] = [
    TOKEN,
    PASSWORD,
    ROTATED,
    MISPLACED,
    NUMBER,
    TEXT,
    HTML,
    REPLY_TO,
    KEY,
    JUNK,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    ACCESS_TOKEN,
];
/// Shown where dead letters, jobs and notifications are listed, and nowhere else.
const LISTED: [&str; 3] = [RECIPIENT, SUBJECT, USERNAME];

/// A part of every token.
const TOKEN: &str = "canarytoken";
const PASSWORD: &str = "canarypasswordone";
const ROTATED: &str = "canarypasswordtwo";
const CLIENT_SECRET: &str = "canaryclientsecret";
const REFRESH_TOKEN: &str = "canaryrefresh";
const ACCESS_TOKEN: &str = "canaryaccess";
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
        providers.push(plain("secretless", &hanging).secret(None));
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
    bad_requests(&app, &mut shown).await;
    bad_manifests(&home, &app).await;

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
    let log = app.process.log();
    assert!(log.contains("TRACE"), "{log}");
    shown.strict("the first log", log);

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

#[tokio::test]
async fn no_token_is_shown_good_or_bad() {
    let home = Home::new(&[Provider::plain("a", 1)]);
    let file = home.path("tokens");
    let good = TOKEN.repeat(3);
    fs::write(&file, &good).expect("write the tokens");
    let file = file.to_str().expect("UTF-8").to_owned();
    let home = home.args(&["--log-level", "trace", "--auth", "token", "--token-file", &file]);
    let mut app = home.start().await;
    let mut shown = Shown::default();
    for (status, path, header) in [
        (200, "/queue", format!("Authorization: Bearer {good}")),
        (401, "/queue", format!("Authorization: Bearer {good}x")),
        (401, "/queue", format!("Authorization: Basic {}", STANDARD.encode(&good))),
        (401, "/queue", format!("X-Api-Key: {good}")),
        (401, &format!("/queue?access_token={good}"), String::from("Accept: */*")),
        (400, "/queue", format!("Authorization {good}")),
    ] {
        let answer = ask(&app, "GET", path, &format!("{header}\r\n"), "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{header}: {answer}");
        shown.strict(&format!("the answer to {header}"), answer);
    }
    shown.strict("/metrics", ask(&app, "GET", "/metrics", "", "").await);
    fs::write(&file, format!("{good}\n{TOKEN}\n")).expect("write the tokens");
    eventually("the broken file is named", async || {
        app.process.log().contains("line 2: a token has").then_some(())
    })
    .await;
    app.process.kill9();
    shown.strict("the log", app.process.log());
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
