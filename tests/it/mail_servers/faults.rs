//! What becomes of mail that a server refuses, puts off or cuts, and of a login that must not be.

use mail_parser::MessageParser;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Door, Fault, World};
use crate::support::client::text;

/// Waits for what becomes of a notification that met this fault.
pub async fn check(world: &World, door: Door, fault: Fault, accepted: &Value) {
    let shown = format!("{fault:?} at {door:?} of {}", world.server.offer.name);
    let (reason, stage, code_class, attempts_count) = match fault {
        Fault::Deferred => ("deferred", "rcpt", Some(4), 2),
        Fault::Rejected => ("rejected", "rcpt", Some(5), 1),
        Fault::DotDeferred => ("deferred", "dot", Some(4), 2),
        Fault::DotRejected => ("rejected", "dot", Some(5), 1),
        Fault::DotCut => ("deferred", "dot", None, 2),
        Fault::Closing => return assert_parked(world, accepted, None, 421, &shown).await,
        Fault::Greylisted => return assert_waits(world, accepted, &shown).await,
    };
    let letter = world.dead_letter(accepted).await;
    let error = &letter["lastError"];
    assert_eq!(
        (&letter["reason"], &letter["redrive"]),
        (&json!(reason), &json!("manual")),
        "{shown}"
    );
    assert_eq!(error["stage"], stage, "{shown}: {letter}");
    assert_eq!(error["code"].as_u64().map(|code| code / 100), code_class, "{shown}: {letter}");
    if fault == Fault::Rejected {
        let said = (&error["code"], &error["enhancedCode"]);
        assert_eq!(said, (&json!(550), &json!("5.1.1")), "{shown}: {letter}");
    }
    let attempts = attempts(world, accepted).await;
    assert_eq!(attempts.len(), attempts_count, "{shown}: {attempts:?}");
    for attempt in &attempts {
        let found = (&attempt["outcome"], &attempt["stage"]);
        assert_eq!(found, (&json!(reason), &json!(stage)), "{shown}: {attempts:?}");
    }
    if fault == Fault::DotCut && world.server.offer.keeps_what_it_cuts {
        let copies = world.server.messages(&text(&accepted["jobs"][0]["id"]));
        let name = |copy: &Vec<u8>| {
            let message = MessageParser::new().parse(copy).expect("a message");
            message.message_id().expect("a Message-ID").to_owned()
        };
        let [first, second] = &copies[..] else { panic!("{shown}: {} copies", copies.len()) };
        assert_eq!(name(first), name(second), "{shown}");
    }
}

/// What a greylist put off, it takes when it comes again.
pub async fn check_second_attempt(world: &World, accepted: &Value) {
    // Its provider does not retry, so that a person can send it again before 300 s are over.
    let letter = world.dead_letter(accepted).await;
    assert_eq!(letter["reason"], "deferred", "{letter}");
    let path = format!("/deadletters/{}/retry", text(&letter["id"]));
    let answer = world.app.client.post(&path, &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    world.app.jobs_are(&text(&accepted["id"]), &["delivered"]).await;
    assert_eq!(world.server.messages(&text(&accepted["jobs"][0]["id"])).len(), 1, "{letter}");
}

/// Waits for what becomes of a login with a guessed password; where there is no TLS none is made.
pub async fn check_login(world: &World, door: Door, accepted: &Value) {
    let shown = format!("a guessed password at {door:?} of {}", world.server.offer.name);
    if door.has_login() {
        return assert_parked(world, accepted, Some("auth"), 535, &shown).await;
    }
    let offers = offers(world.server.host(), door.port()).await;
    let bare_auth = offers.iter().any(|offer| offer.starts_with("AUTH"));
    assert_eq!(bare_auth, world.server.offer.has_bare_auth, "{shown}: {offers:?}");
    let letter = world.dead_letter(accepted).await;
    let error = &letter["lastError"];
    assert_eq!(error["message"], "the server does not offer STARTTLS", "{shown}");
    assert_eq!((&letter["reason"], &error["stage"]), (&json!("unreachable"), &json!("tls")));
}

/// It is the provider's fault each time, and the mail goes out again by itself.
async fn assert_parked(
    world: &World,
    accepted: &Value,
    stage: Option<&str>,
    code: u16,
    shown: &str,
) {
    let letter = world.dead_letter(accepted).await;
    let parked = (&json!("unreachable"), &json!("automatic"));
    assert_eq!((&letter["reason"], &letter["redrive"]), parked, "{shown}: {letter}");
    let attempts = attempts(world, accepted).await;
    assert!(!attempts.is_empty(), "{shown}: {letter}");
    for attempt in &attempts {
        let found = (&attempt["outcome"], &attempt["code"]);
        assert_eq!(found, (&json!("unreachable"), &json!(code)), "{shown}: {attempt}");
        assert!(stage.is_none_or(|stage| attempt["stage"] == stage), "{shown}: {attempt}");
    }
}

/// It waits for its second attempt, and not for less than 300 s.
async fn assert_waits(world: &World, accepted: &Value, shown: &str) {
    let found = world.app.jobs_are(&text(&accepted["id"]), &["scheduled"]).await;
    let job = &found["jobs"][0];
    let [attempt] = &job["attempts"].as_array().expect("attempts")[..] else {
        panic!("{shown}: one attempt: {found}")
    };
    assert_eq!((&attempt["outcome"], &attempt["stage"]), (&json!("deferred"), &json!("rcpt")));
    let time = |value: &Value| text(value).parse::<jiff::Timestamp>().expect("a time");
    let wait = time(&job["nextAttemptAt"]).duration_since(time(&attempt["at"]));
    assert!(wait.as_secs() >= 300, "{shown}: {found}");
}

async fn attempts(world: &World, accepted: &Value) -> Vec<Value> {
    let found = world.app.client.get(&format!("/notifications/{}", text(&accepted["id"]))).await;
    found["jobs"][0]["attempts"].as_array().expect("attempts").clone()
}

/// The lines of a server's answer to EHLO, without their codes.
async fn offers(host: &str, port: u16) -> Vec<String> {
    let stream = TcpStream::connect((host, port)).await.expect("connect");
    let mut stream = BufReader::new(stream);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await.expect("a greeting");
    stream.write_all(b"EHLO [127.0.0.1]\r\n").await.expect("say EHLO");
    let mut offers = Vec::new();
    let mut is_last = false;
    while !is_last {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a line");
        is_last = !line.starts_with("250-");
        offers.push(line.chars().skip("250-".len()).collect::<String>().trim_end().to_owned());
    }
    offers
}
