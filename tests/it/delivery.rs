//! What becomes of accepted mail while its provider answers: each job by itself, its attempts, its
//! content, and the connections that it takes.

mod acting;

use mail_parser::{Message, MessageParser};
use serde_json::{Value, json};

use crate::support::app::{Home, Provider};
use crate::support::client::text;
use crate::support::provider::manifests;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::smtp::{Accepted, Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

/// To `to`, who are not told apart otherwise.
fn notification(to: &[&str]) -> Value {
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

fn parse(accepted: &Accepted) -> Message<'_> {
    MessageParser::new().parse(&accepted.bytes).expect("a message")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_gets_a_message_of_his_own_and_learns_of_no_other() {
    let server = SmtpServer::start(Script::plain()).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    let all = ["ada@example.com", "bob@example.com", "eve@example.com"];
    let id = app.notify(&notification(&all)).await;
    app.jobs_are(&id, &["delivered"]).await;
    let mut reached = Vec::new();
    for accepted in server.accepted() {
        let [to] = &accepted.recipients[..] else { panic!("one envelope each: {accepted:?}") };
        let message = parse(&accepted);
        let named: Vec<_> =
            message.to().expect("To").iter().filter_map(|to| to.address()).collect();
        assert_eq!(named, [to]);
        let whole = String::from_utf8_lossy(&accepted.bytes);
        let others = all.iter().filter(|other| *other != to);
        assert!(others.clone().all(|other| !whole.contains(other)), "{whole}");
        reached.push(to.clone());
    }
    reached.sort();
    assert_eq!(reached, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_refused_for_good_is_a_dead_letter_at_once_and_holds_up_no_other() {
    let refuse = say("550 5.1.1 no such user");
    let server = SmtpServer::start(Script::plain().on_line(Verb::Rcpt, "bob@", refuse)).await;
    let app = Home::new(&[Provider::plain("main", server.port()).retry(5, 10)]).start().await;
    let to = ["ada@example.com", "bob@example.com", "eve@example.com"];
    let id = app.notify(&notification(&to)).await;
    let found = app.jobs_are(&id, &["delivered", "dead"]).await;
    let jobs = found["jobs"].as_array().expect("jobs");
    let states: Vec<_> = jobs.iter().map(|job| text(&job["state"])).collect();
    assert_eq!(states, ["delivered", "dead", "delivered"], "{found}");

    let [attempt] = &jobs[1]["attempts"].as_array().expect("attempts")[..] else {
        panic!("one attempt: {found}")
    };
    assert_eq!((&attempt["provider"], &attempt["stage"]), (&json!("main"), &json!("rcpt")));
    assert_eq!((&attempt["code"], &attempt["enhancedCode"]), (&json!(550), &json!("5.1.1")));
    assert_eq!((&attempt["number"], &attempt["outcome"]), (&json!(1), &json!("rejected")));
    assert!(text(&attempt["message"]).contains("no such user"), "{attempt}");
    assert!(attempt["durationMs"].is_u64() && attempt["at"].is_string(), "{attempt}");
    let dead = app.client.dead_letters().await;
    assert_eq!((&dead[0]["reason"], &dead[0]["redrive"]), (&json!("rejected"), &json!("manual")));
    assert_eq!(server.accepted().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_message_is_tried_count_and_one_times_on_each_provider_and_stays_the_same() {
    let busy = say("451 4.3.0 not now");
    let script = Script::plain().taking_before_reply();
    let first = SmtpServer::start(script.clone().on(Verb::Dot, busy.clone())).await;
    let second = SmtpServer::start(script.on_nth(Verb::Dot, 1, busy)).await;
    let providers = [
        Provider::plain("second", second.port()).retry(1, 10).sender("b@sender.example"),
        Provider::plain("first", first.port()).retry(2, 10).sender("a@sender.example"),
    ];
    let app = Home::new(&providers).start().await;
    let mut body = notification(&["ada@example.com"]);
    body["mailProvider"] = "first".into();
    let id = app.notify(&body).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    let made: Vec<_> = attempts.iter().map(|a| (&a["provider"], &a["outcome"])).collect();
    let mut expected = vec![json!(["first", "deferred"]); 3];
    expected.extend([json!(["second", "deferred"]), json!(["second", "delivered"])]);
    assert_eq!(json!(made), json!(expected));

    let copies: Vec<_> = first.accepted().into_iter().chain(second.accepted()).collect();
    let senders: Vec<_> = copies.iter().map(|copy| &*copy.sender).collect();
    assert_eq!(senders[..3], ["a@sender.example"; 3]);
    assert_eq!(senders[3..], ["b@sender.example"; 2]);
    for copy in &copies {
        assert_eq!(but_for_from(copy), but_for_from(&copies[0]));
        assert_eq!(copy.recipients, ["ada@example.com"]);
    }
}

/// The whole message without its `From`.
fn but_for_from(copy: &Accepted) -> String {
    let whole = String::from_utf8(copy.bytes.clone()).expect("text");
    assert!(whole.contains("\r\nMessage-ID: ") || whole.starts_with("Message-ID: "), "{whole}");
    let (before, rest) = whole.split_once("From: ").expect("an author");
    let (author, behind) = rest.split_once("\r\n").expect("more");
    assert!(author.contains(&copy.sender));
    before.to_owned() + behind
}

#[tokio::test(flavor = "multi_thread")]
async fn greylisting_waits_five_minutes_at_least_and_counts_as_one_attempt() {
    let server = SmtpServer::start(Script::reply_to_rcpt(451, "4.7.1 try again later")).await;
    let app = Home::new(&[Provider::plain("main", server.port()).retry(3, 10)]).start().await;
    let id = app.notify(&notification(&["ada@example.com"])).await;
    let found = app.jobs_are(&id, &["scheduled"]).await;
    let job = &found["jobs"][0];
    let [attempt] = &job["attempts"].as_array().expect("attempts")[..] else {
        panic!("one attempt: {found}")
    };
    let time = |value: &Value| text(value).parse::<jiff::Timestamp>().expect("a time");
    let wait = time(&job["nextAttemptAt"]).duration_since(time(&attempt["at"]));
    assert!(wait.as_secs() >= 300, "{found}");
    assert_eq!(app.client.get("/queue").await["providers"][0]["scheduled"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let server = SmtpServer::start(Script::plain()).await;
    let home = Home::new(&[Provider::plain("main", server.port())]);
    let app = home.args(&["--max-connections", "2"]).start().await;
    let id = app.notify(&many(50)).await;
    app.jobs_are(&id, &["delivered"]).await;
    let seen = server.seen();
    assert_eq!(seen.accepted.len(), 50);
    let check = 1;
    assert!(seen.connections_count <= 2 + check, "{} connections", seen.connections_count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_gets_as_many_connections_as_it_may_have_and_no_more() {
    let sink = Sink::with(|moment| match moment {
        Moment::Dot => Act::Hold,
        _ => Act::Accept,
    });
    let home = Home::new(&[Provider::plain("main", sink.port)]).args(&["--max-connections", "3"]);
    let app = home.start().await;
    let id = app.notify(&many(8)).await;
    let queue = app.queue_has("main", "inFlight", 3).await;
    assert_eq!((&queue["ready"], &queue["depth"]), (&json!(5), &json!(8)));
    eventually("three sends wait", async || (sink.held_count() == 3).then_some(())).await;
    sink.release();
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(sink.letters().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_delays_no_mail_of_another() {
    let hanging = Sink::with(|moment| match moment {
        Moment::Greeting => Act::Hold,
        _ => Act::Accept,
    });
    let quick = Sink::start();
    let providers = [Provider::plain("hangs", hanging.port), Provider::plain("quick", quick.port)];
    let home = Home::new(&providers);
    home.write(&(manifests(&providers[..1]) + &providers[1].manifests(false)));
    let app = home.start().await;
    let slow = app.notify(&many(20)).await;
    app.queue_has("hangs", "inFlight", 4).await;
    let mut body = many(20);
    body["mailProvider"] = "quick".into();
    let id = app.notify(&body).await;
    app.jobs_are(&id, &["delivered"]).await;
    assert_eq!((quick.letters().len(), hanging.letters().len()), (20, 0));
    hanging.release();
    app.jobs_are(&slow, &["delivered"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_a_message_arrives_unchanged() {
    let server = SmtpServer::start(Script::plain()).await;
    let app = Home::new(&[Provider::plain("main", server.port())]).start().await;
    let odd = [
        ".\n..\n.QUIT\nFrom here on\n\n.\n".to_owned(),
        "trailing blanks  \t\nand = signs =3D =\nSubject: not a header\n\n--=_boundary--"
            .to_owned(),
        "x".repeat(100_000) + "\n" + &"word ".repeat(30_000),
        "Zugriff gewährt, 承認済み, 🔓 und ein \u{200b}unsichtbares Zeichen".to_owned(),
        "🔥".repeat(60_000),
        "\"; DROP TABLE jobs; -- <script>alert(1)</script> {{7*7}} %0d%0aBcc: eve@example.com"
            .into(),
    ];
    let subjects = ["=?utf-8?q?not_encoded?=", "Größe 🔓 ".trim(), "a  b   c", "."];
    for (n, body) in odd.iter().enumerate() {
        let html = format!("<p>{body}</p>");
        let subject = subjects[n % subjects.len()].to_owned() + &"ä".repeat(n * 50);
        let post = json!({
            "recipients": ["ada@example.com"], "subject": subject, "text": body, "html": html,
            "replyTo": "security@example.com",
        });
        let id = app.notify(&post).await;
        app.jobs_are(&id, &["delivered"]).await;
        let accepted = server.accepted().pop().expect("it arrived");
        let message = parse(&accepted);
        let read =
            |text: Option<std::borrow::Cow<'_, str>>| text.expect("a body").replace("\r\n", "\n");
        assert_eq!(message.subject(), Some(&*subject));
        assert!(read(message.body_text(0)) == *body, "the text of {n}");
        assert!(read(message.body_html(0)) == html, "the page of {n}");
        let reply_to = message.reply_to().and_then(|to| to.first()?.address());
        assert_eq!(reply_to, Some("security@example.com"));
        assert!(message.bcc().is_none() && message.cc().is_none());
    }
    assert_eq!(server.accepted().len(), odd.len());
}
