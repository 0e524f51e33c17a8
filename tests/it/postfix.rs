//! Mail through a real Postfix, read back from its maildir by another parser than the one that wrote it.

use mail_parser::{Message, MessageParser, MimeHeaders};
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::need;
use crate::support::postfix::{PASSWORD, Postfix, USER};
use crate::support::wait::eventually;

const NAME: &str = r#"Break "Glass", Ops"#;

/// A Postfix, and a server whose default provider logs in there by STARTTLS.
struct World {
    postfix: Postfix,
    app: App,
    _home: Home,
}

impl World {
    async fn start() -> Option<Self> {
        Self::with_password(PASSWORD).await
    }

    async fn with_password(password: &'static str) -> Option<Self> {
        if !need("postfix") {
            return None;
        }
        let postfix = Postfix::start().await;
        let at = |name, port| Provider::tls(name, &postfix.host, port, &postfix.ca);
        let home = Home::new(&[
            at("starttls", 587).login(USER, password).sender_name(NAME),
            at("implicit", 465).login(USER, password),
        ]);
        let app = home.start().await;
        Some(Self { postfix, app, _home: home })
    }

    /// Posts and gives the message as it arrived.
    async fn delivered(&self, post: Value) -> Message<'static> {
        self.app.client.accepted(&post).await;
        let message =
            eventually("the message arrives", async || self.postfix.messages().pop()).await;
        MessageParser::new().parse(&message).expect("a message").into_owned()
    }

    /// Posts and gives the dead letter that becomes of it.
    async fn dead_letter(&self, post: Value) -> Value {
        self.app.client.accepted(&post).await;
        eventually("a dead letter", async || self.app.client.dead_letters().await.pop()).await
    }
}

fn to_ada() -> Value {
    json!({"recipients": ["ada@example.com"], "subject": "Request on prod-1"})
}

#[tokio::test(flavor = "multi_thread")]
async fn both_bodies_arrive_as_alternatives_with_all_headers() {
    let Some(world) = World::start().await else { return };
    let mut post = to_ada();
    post["text"] = "Please look.\r\n.\r\nA line with one dot.".into();
    post["html"] = "<p>Please look, Grüße.</p>".into();
    post["replyTo"] = "security@example.com".into();
    let accepted = world.app.client.accepted(&post).await;
    let bytes = eventually("the message arrives", async || world.postfix.messages().pop()).await;
    let message = MessageParser::new().parse(&bytes).expect("a message");

    let from = message.from().and_then(|from| from.first()).expect("From");
    assert_eq!(from.name(), Some(NAME));
    assert_eq!(from.address(), Some("noreply@example.com"));
    let address = |list: Option<&mail_parser::Address>| {
        list.and_then(|list| list.first()?.address().map(str::to_owned))
    };
    assert_eq!(address(message.to()).as_deref(), Some("ada@example.com"));
    assert_eq!(address(message.reply_to()).as_deref(), Some("security@example.com"));
    assert_eq!(message.subject(), Some("Request on prod-1"));
    assert!(message.date().is_some());
    let job = accepted["jobs"][0]["id"].as_str().expect("an id");
    assert!(message.message_id().is_some_and(|id| id.contains(job)), "names job {job}");
    assert!(message.is_content_type("multipart", "alternative"));
    assert_eq!(
        lines(&message.body_text(0).expect("text")),
        "Please look.\n.\nA line with one dot."
    );
    assert_eq!(message.body_html(0).expect("html").trim_end(), "<p>Please look, Grüße.</p>");
    let head = String::from_utf8_lossy(&bytes).into_owned();
    assert!(head.contains(&format!("Authenticated sender: {USER}")), "{head}");
    assert!(head.contains("using TLSv1.3"), "{head}");
}

/// With the line ends that a mail server may change, and no empty end.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_body_arrives_as_itself() {
    let Some(world) = World::start().await else { return };
    let mut post = to_ada();
    post["html"] = "<b>Look</b>".into();
    let message = world.delivered(post).await;
    assert_eq!(message.body_html(0).expect("html").trim_end(), "<b>Look</b>");
    assert!(message.is_content_type("text", "html"));
}

#[tokio::test(flavor = "multi_thread")]
async fn implicit_tls_carries_mail_too() {
    let Some(world) = World::start().await else { return };
    let mut post = to_ada();
    post["text"] = "Please look.".into();
    post["mailProvider"] = "implicit".into();
    assert_eq!(lines(&world.delivered(post).await.body_text(0).expect("text")), "Please look.");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_998_characters_arrive_whole() {
    let Some(world) = World::start().await else { return };
    let text = format!("{}\n.{}\n{}", "a".repeat(998), "b".repeat(997), "ü".repeat(998));
    let mut post = to_ada();
    post["text"] = text.clone().into();
    assert_eq!(lines(&world.delivered(post).await.body_text(0).expect("text")), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_100_kib_arrives_whole() {
    let Some(world) = World::start().await else { return };
    let text = "0123456789 äöü, and so on.\n".repeat(100 * 1024 / 30);
    let mut post = to_ada();
    post["text"] = text.clone().into();
    assert_eq!(lines(&world.delivered(post).await.body_text(0).expect("text")), text.trim_end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_any_script_arrives_as_it_was_posted() {
    let Some(world) = World::start().await else { return };
    let subject = format!("🚨 طلب وصول طارئ — {}", "prod ".repeat(40).trim_end());
    let mut post = to_ada();
    post["subject"] = subject.clone().into();
    post["text"] = "Please look.".into();
    assert_eq!(world.delivered(post).await.subject(), Some(&*subject));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_part_of_64_characters_is_delivered() {
    let Some(world) = World::start().await else { return };
    let recipient = format!("{}@example.com", "a".repeat(64));
    let post = json!({"recipients": [recipient], "subject": "s", "text": "t"});
    let message = world.delivered(post).await;
    let to = message.to().and_then(|to| to.first()?.address().map(str::to_owned));
    assert_eq!(to, Some(recipient));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_is_a_dead_letter_with_the_code() {
    let Some(world) = World::start().await else { return };
    let post = json!({"recipients": ["nobody@example.com"], "subject": "s", "text": "t"});
    let letter = world.dead_letter(post).await;
    assert_eq!(letter["reason"], "rejected", "{letter}");
    assert_eq!(letter["lastError"]["code"], 550, "{letter}");
    assert_eq!(letter["lastError"]["enhancedCode"], "5.1.1", "{letter}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_parks_the_mail() {
    let Some(world) = World::with_password("guess").await else { return };
    let mut post = to_ada();
    post["text"] = "Please look.".into();
    let letter = world.dead_letter(post).await;
    assert_eq!(
        (&letter["reason"], &letter["redrive"]),
        (&json!("unreachable"), &json!("automatic"))
    );
}
