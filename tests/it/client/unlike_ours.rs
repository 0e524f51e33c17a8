//! Servers that are away, break off, want a token, send what a terminal obeys, or are another
//! program.

use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::support::cli::Shell;
use crate::support::peer::{self, Peer, answer, header, problem};
use crate::support::smtp::{Certificate, PKI};

pub const NOTIFY: [&str; 7] =
    ["notify", "--to", "ada@example.com", "--subject", "s", "--text", "t"];
pub const ID: &str = "01a205c3-2dd0-7680-b861-77841a510462";

/// A 202 for one recipient.
pub fn accepted() -> String {
    let job = json!({"id": ID, "recipient": "ada@example.com"});
    let body = json!({
        "id": ID, "provider": "main", "chain": ["main"], "jobs": [job],
        "acceptedAt": "2026-11-23T00:00:00.000Z", "warnings": [],
    });
    peer::json(202, &body)
}

fn no_queue() -> String {
    peer::json(200, &json!({"providers": []}))
}

#[tokio::test]
async fn a_post_is_repeated_with_the_same_key_when_it_broke_off_or_the_server_says_when() {
    let full = problem(503, "queue-full", "full", Some(0));
    let in_use = problem(409, "idempotency-key-in-use", "busy", Some(0));
    let peer = Peer::start(vec![String::new(), full, in_use, accepted()]).await;
    let ran = Shell::at(&peer.url).run(&NOTIFY).await.ended(0);
    assert!(ran.out.contains(ID) && ran.err.contains("trying again"), "{ran:?}");
    let requests = peer.requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    let key = header(&requests[0], "idempotency-key").expect("a key");
    assert!(uuid::Uuid::parse_str(key).is_ok_and(|key| key.get_version_num() == 7), "{key}");
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
}

#[tokio::test]
async fn a_post_is_repeated_a_bounded_number_of_times() {
    let peer = Peer::start(vec![problem(503, "queue-full", "full", Some(0))]).await;
    let ran = Shell::at(&peer.url).run(&NOTIFY).await.ended(1);
    assert!(ran.err.contains("\nhint: `breakglass-mailer queue` "), "{ran:?}");
    assert_eq!(peer.requests().len(), 5);
}

#[tokio::test]
async fn a_post_is_given_up_at_once_when_the_server_asks_for_too_much_patience_or_for_none() {
    for (answer, code) in [
        (problem(503, "queue-full", "full", Some(60)), 1),
        (problem(503, "queue-full", "full", Some(u64::MAX)), 1),
        (problem(503, "queue-full", "full", None), 1),
        (problem(500, "internal-error", "a bug", Some(0)), 1),
    ] {
        let peer = Peer::start(vec![answer]).await;
        Shell::at(&peer.url).run(&NOTIFY).await.ended(code);
        assert_eq!(peer.requests().len(), 1);
    }
}

#[tokio::test]
async fn what_may_have_been_accepted_is_told_with_the_key_that_makes_a_repeat_safe() {
    let full = problem(503, "queue-full", "full", None);
    let peer = Peer::start(vec![String::new(), full]).await;
    let ran = Shell::at(&peer.url).run(&NOTIFY).await.ended(1);
    let key = header(&peer.requests()[0], "idempotency-key").expect("a key").to_owned();
    assert!(ran.err.contains(&format!("--idempotency-key {key} ")), "{ran:?}");
}

#[tokio::test]
async fn only_a_post_with_a_key_is_repeated() {
    let peer = Peer::start(vec![String::new()]).await;
    for args in [&["deadletters", "retry", ID][..], &["deadletters", "retry", "--all"]] {
        let ran = Shell::at(&peer.url).run(args).await.ended(3);
        assert!(ran.err.contains("\nhint: a change may have been made"), "{ran:?}");
    }
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_exit_code_3_with_a_hint() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    for args in [&["queue"][..], &NOTIFY, &["deadletters", "delete", ID, ID]] {
        let ran = Shell::at(&url).run(args).await.ended(3);
        let told = format!("breakglass-mailer: cannot reach {url}: connection refused\nhint: is ");
        assert!(ran.err.contains(&told), "{ran:?}");
        assert!(ran.err.contains("BREAKGLASS_MAILER_SERVER") && ran.out.is_empty(), "{ran:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_exit_code_3_and_says_so() {
    let html = "Content-Type: text/html\r\n";
    for garbage in [
        answer(200, html, "<html>Welcome</html>"),
        answer(404, html, "<html>Not found</html>"),
        answer(302, "Location: https://login.example.com/\r\n", ""),
        answer(204, "", ""),
        peer::json(200, &json!({"kind": "Status", "items": "none"})),
        peer::json(200, &json!([])),
        peer::json(403, &json!({"kind": "Status", "message": "forbidden"})),
        "220 mail.example.com ESMTP\r\n".to_owned(),
    ] {
        let peer = Peer::start(vec![garbage.clone()]).await;
        let ran = Shell::at(&peer.url).run(&["queue", "-o", "json"]).await.ended(3);
        assert!(ran.out.is_empty(), "{ran:?}");
        assert!(
            ran.err.contains("does not answer as a breakglass-mailer does"),
            "{garbage} {ran:?}"
        );
        assert!(ran.err.contains("\nhint: ") && !ran.err.contains("Welcome"), "{ran:?}");
        assert_eq!(peer.requests().len(), 1, "no redirect is followed");
    }
    let whole = no_queue();
    let torn = whole[..whole.len() - 3].to_owned();
    let peer = Peer::start(vec![torn]).await;
    Shell::at(&peer.url).run(&["queue"]).await.ended(3);
}

#[tokio::test]
async fn all_pages_are_one_list() {
    let job = |n: usize| {
        json!({
            "id": ID, "notification": ID, "recipient": format!("to-{n}@example.com"),
            "state": "ready", "provider": "main", "chain": ["main"], "attempts": 0,
            "acceptedAt": "2026-11-23T00:00:00.000Z", "nextAttemptAt": null,
        })
    };
    let page = |items: Value, next: Value| peer::json(200, &json!({"items": items, "next": next}));
    let pages =
        vec![page(json!([job(1), job(2)]), "a&b".into()), page(json!([job(3)]), Value::Null)];
    let peer = Peer::start(pages.clone()).await;
    let all = Shell::at(&peer.url).run(&["jobs", "--all", "-o", "json"]).await;
    assert!(all.err.is_empty(), "{all:?}");
    assert_eq!(all.json(), json!({"items": [job(1), job(2), job(3)], "next": null}));
    let second = &peer.requests()[1];
    assert!(second.starts_with("GET /jobs?limit=1000&cursor=a%26b HTTP/1.1\r\n"), "{second}");
    // A server that gives the same page for ever is left.
    let peer = Peer::start(vec![pages[0].clone()]).await;
    Shell::at(&peer.url).run(&["jobs", "--all"]).await.ended(3);
}

#[tokio::test]
async fn the_token_is_sent_and_never_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, "\n  \n from-file-5ecret \nanother\n").expect("write it");
    let file = file.to_str().expect("UTF-8");
    let denied = |status| problem(status, "denied", "You may not.", None);
    let peer = Peer::start(vec![no_queue(), denied(401), denied(403), no_queue()]).await;
    let by_env = Shell::at(&peer.url).env("BREAKGLASS_MAILER_TOKEN", "from-env-5ecret");
    let by_file = Shell::at(&peer.url).env("BREAKGLASS_MAILER_TOKEN_FILE", file);
    let ran = [
        by_env.run(&["queue", "--token-file", file]).await.ended(0),
        by_file.run(&["queue"]).await.ended(1),
        Shell::at(&peer.url).run(&["queue", "--token", "from-flag-5ecret"]).await.ended(1),
        by_env.run(&["queue", "--help"]).await.ended(0),
        by_env.run(&["queue", "--server", "nowhere"]).await.ended(2),
        Shell::at(&peer.url).run(&["queue", "--token", "5ecret\n5ecret"]).await.ended(1),
        Shell::at("http://localhost:1").run(&["queue", "--token", "5ecret"]).await.ended(3),
    ];
    for ran in &ran {
        assert!(!ran.out.contains("5ecret") && !ran.err.contains("5ecret"), "{ran:?}");
    }
    assert!(ran[1].err.contains("\nhint: give a token that it knows"), "{ran:?}");
    assert!(ran[2].err.contains("\nhint: this token may not do that"), "{ran:?}");
    let sent: Vec<_> = peer.requests();
    let sent: Vec<_> = sent.iter().map(|request| header(request, "authorization")).collect();
    let expected = ["Bearer from-env-5ecret", "Bearer from-file-5ecret", "Bearer from-flag-5ecret"];
    assert_eq!(sent, expected.map(Some));
    let without = Peer::start(vec![denied(403)]).await;
    let shell = Shell::at(&without.url).env("BREAKGLASS_MAILER_TOKEN", "");
    let ran = shell.run(&["queue"]).await.ended(1);
    assert!(!ran.err.contains("hint"), "it is not about a token: {ran:?}");
    assert_eq!(header(&without.requests()[0], "authorization"), None);
}

#[tokio::test]
async fn a_token_that_others_could_read_on_its_way_is_warned_of_once() {
    let peer = Peer::start(vec![no_queue()]).await;
    // On Linux this leads to loopback, and does not say so.
    let elsewhere = peer.url.replace("127.0.0.1", "0.0.0.0");
    let token = ["queue", "--token", "t-5ecret"];
    let ran = Shell::at(&elsewhere).run(&token).await.ended(0);
    let told = format!("warning: the token goes to {elsewhere} unencrypted: use https://\n");
    assert!(ran.err.matches(&told).count() == 1 && !ran.err.contains("5ecret"), "{ran:?}");
    let localhost = peer.url.replace("127.0.0.1", "localhost");
    for (url, args) in [(&peer.url, &token[..]), (&localhost, &token), (&elsewhere, &["queue"])] {
        let ran = Shell::at(url).run(args).await.ended(0);
        assert!(!ran.err.contains("warning"), "{ran:?}");
    }
}

#[tokio::test]
async fn what_is_acted_on_comes_from_the_command_alone() {
    let peer = Peer::start(vec![peer::json(202, &json!({"id": ID}))]).await;
    let shell = Shell::at(&peer.url)
        .env("BREAKGLASS_MAILER_ALL", "1")
        .env("BREAKGLASS_MAILER_PROVIDER", "other")
        .env("BREAKGLASS_MAILER_REASON", "expired")
        .env("BREAKGLASS_MAILER_MAIL_PROVIDER", "other");
    shell.run(&["deadletters", "retry"]).await.ended(2);
    assert!(peer.requests().is_empty());
    shell.run(&["deadletters", "retry", ID]).await.ended(0);
    assert!(peer.requests()[0].ends_with("\r\n\r\n{}"), "{:?}", peer.requests());
}

#[tokio::test]
async fn nothing_that_a_terminal_obeys_gets_through() {
    let evil = "a\u{1b}]0;owned\u{7}\u{1b}[2J\r\nb\u{9b}31m\u{202e}c\u{2066}d\u{7f}\u{0}e";
    let attempt = json!({
        "number": 1, "at": evil, "provider": evil, "stage": evil, "outcome": evil, "code": 550,
        "enhancedCode": evil, "message": evil, "durationMs": 1,
    });
    let letter = |attempts: Value| {
        json!({
            "id": evil, "notification": evil, "provider": evil, "subject": evil, "recipient": evil,
            "reason": evil, "redrive": evil, "lastError": {"message": evil}, "attempts": attempts,
            "deadAt": evil, "acceptedAt": evil, "chain": [evil],
            "content": {"subject": evil, "html": evil, "text": evil, "replyTo": evil},
        })
    };
    let list = json!({"total": 1, "items": [letter(json!(1))], "next": null});
    let answers = vec![
        peer::json(200, &list),
        peer::json(200, &letter(json!([attempt]))),
        problem(404, "not-found", evil, None),
        peer::json(200, &list),
    ];
    let peer = Peer::start(answers).await;
    let shell = Shell::at(&peer.url);
    let show = ["deadletters", "show", ID, "--content"];
    let ran = [
        shell.run(&["deadletters", "list"]).await.ended(0),
        shell.run(&show).await.ended(0),
        shell.run(&show).await.ended(1),
        shell.run(&["deadletters", "list", "-o", "json"]).await.ended(0),
    ];
    for ran in &ran {
        let text = format!("{}{}", ran.out, ran.err);
        let obeyed = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}".contains(c));
        assert!(!text.contains(obeyed) && text.contains("owned"), "{ran:?}");
    }
    assert_eq!(ran[0].out.lines().count(), 2, "{ran:?}");
    let read: Value = serde_json::from_str(&ran[3].out).expect("JSON");
    assert_eq!(read, list, "a program gets all of it");
}

#[tokio::test]
async fn over_tls_only_a_server_with_a_certificate_that_this_machine_trusts_gets_the_token() {
    let dir = tempfile::tempdir().expect("a folder");
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, &PKI.ca_pem).expect("write it");
    for (certificate, code, requests_count) in
        [(Certificate::Good, 0, 1), (Certificate::UnknownCa, 3, 0), (Certificate::WrongName, 3, 0)]
    {
        let config = PKI.server_config(certificate).expect("a certificate");
        let peer = Peer::over_tls(vec![no_queue()], TlsAcceptor::from(config)).await;
        let shell = Shell::at(&peer.url).env("SSL_CERT_FILE", roots.to_str().expect("UTF-8"));
        let ran = shell.run(&["queue", "--token", "t"]).await.ended(code);
        assert!(code == 0 || ran.err.contains("cannot reach https://localhost"), "{ran:?}");
        assert_eq!(peer.requests().len(), requests_count, "{certificate:?}");
    }
}
