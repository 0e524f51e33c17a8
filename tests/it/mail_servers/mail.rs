//! What every server is given to take, and how it must arrive.

use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Value, json};

use super::{Door, World};
use crate::support::client::text;
use crate::support::wait::eventually;

/// The display name of all senders.
pub const SENDER_NAME: &str = r#"Break "Glass", Ops"#;

/// A recipient that only SMTPUTF8 can name.
const GRETA: &str = "грета@example.com";

/// The notifications.
pub fn posts() -> Vec<Value> {
    let long = format!("{}\n.{}\n{}", "a".repeat(998), "b".repeat(997), "ü".repeat(998));
    let line = "0123456789 äöü, and so on.\n";
    let rtl = ["🚨 طلب وصول طارئ — ", "🔓 בקשת גישה דחופה — "];
    let rtl = rtl.map(|words| format!("{words}{}", "prod ".repeat(40).trim_end()));
    let mut posts = [
        json!({"text": "Please look.\r\n.\r\nA line with one dot.\r\n..\r\n.two"}),
        json!({"html": "<b>Look</b>"}),
        json!({"text": "Grüße.", "html": "<p>Grüße.</p>", "replyTo": "security@example.com"}),
        json!({"text": long}),
        json!({"text": line.repeat((100 * 1024_usize).div_ceil(line.len()))}),
        json!({"text": "t", "subject": rtl[0]}),
        json!({"text": "t", "subject": rtl[1]}),
        json!({"text": "t", "recipients": [format!("{}@example.com", "a".repeat(64))]}),
        json!({"text": "t", "recipients": ["ada@bücher.example"]}),
        json!({"text": "t", "recipients": [GRETA]}),
    ];
    for post in &mut posts {
        if post["recipients"].is_null() {
            post["recipients"] = json!(["ada@example.com"]);
        }
        if post["subject"].is_null() {
            post["subject"] = "Request on prod-1".into();
        }
    }
    posts.into()
}

/// Waits for what becomes of a post: it arrives, or the server is no way to its recipient.
pub async fn check(world: &World, door: Door, post: &Value, accepted: &Value) {
    let offer = world.server.offer;
    if post["recipients"][0] == GRETA && !offer.has_smtputf8 {
        let letter = world.dead_letter(accepted).await;
        assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("rejected"), &json!(1)));
        let wanted = "the server does not offer SMTPUTF8, which the recipient's address needs";
        assert_eq!(letter["lastError"]["message"], wanted);
        return;
    }
    let shown = format!("{door:?} of {}: {:.200}", offer.name, post.to_string());
    world.app.jobs_are(&text(&accepted["id"]), &["delivered"]).await;
    let job = text(&accepted["jobs"][0]["id"]);
    let bytes = eventually(&shown, async || world.server.messages(&job).pop()).await;
    let message = MessageParser::new().parse(&bytes).expect("a message");
    assert_same(&message, post, &job, &shown);
    assert_eq!(world.server.messages(&job).len(), 1, "{shown}");

    let whole = String::from_utf8_lossy(&bytes);
    let (head, _) = whole
        .split_once(if whole.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" })
        .expect("a header and a body");
    if offer.writes_received {
        let words: Vec<_> = head.split_whitespace().map(str::to_uppercase).collect();
        let is_there = words.windows(2).any(|pair| {
            // RFC 6531 4.3 has words of its own for SMTPUTF8, which some servers use or misspell.
            let protocol = pair[1].replace("UTF8SMTP", "ESMTP").replace("UTF8ESMTP", "ESMTP");
            pair[0] == "WITH" && protocol == door.protocol()
        });
        assert!(is_there, "{shown}: not with {}: {head}", door.protocol());
    }
    for word in offer.login_words.iter().filter(|_| door.has_login()) {
        assert!(head.contains(word), "{shown}: no {word:?}: {head}");
    }
}

/// Every header and body is what was posted.
fn assert_same(message: &Message<'_>, post: &Value, job: &str, shown: &str) {
    let from = message.from().and_then(|from| from.first()).expect("From");
    assert_eq!(from.name(), Some(SENDER_NAME), "{shown}");
    assert_eq!(from.address(), Some("noreply@example.com"), "{shown}");
    let address = |list: Option<&mail_parser::Address>| {
        list.and_then(|list| list.first()?.address().map(str::to_owned))
    };
    let recipient = text(&post["recipients"][0]).replace("bücher", "xn--bcher-kva");
    assert_eq!(address(message.to()), Some(recipient), "{shown}");
    assert_eq!(address(message.reply_to()).as_deref(), post["replyTo"].as_str(), "{shown}");
    assert_eq!(message.subject(), post["subject"].as_str(), "{shown}");
    assert!(message.date().is_some(), "{shown}");
    assert!(message.message_id().is_some_and(|id| id.contains(job)), "{shown}");
    let (plain, html) = (post["text"].as_str(), post["html"].as_str());
    let (kind, subkind) = match (plain, html) {
        (Some(_), Some(_)) => ("multipart", "alternative"),
        (Some(_), None) => ("text", "plain"),
        (None, _) => ("text", "html"),
    };
    assert!(message.is_content_type(kind, subkind), "{shown}");
    if let Some(plain) = plain {
        let arrived = message.body_text(0).expect("text");
        assert!(lines(&arrived) == lines(plain), "{shown}: {arrived:.3000}");
    }
    if let Some(html) = html {
        assert_eq!(lines(&message.body_html(0).expect("html")), lines(html), "{shown}");
    }
}

/// With the line ends that a mail server may change, and no empty end.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end().to_owned()
}
