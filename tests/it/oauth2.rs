//! Access tokens in place of a password: a token server gives them out, a mail server checks them.

mod secrets;
mod trouble;

use serde_json::{Value, json};

use crate::support::app::{Home, Provider};
use crate::support::client::condition;
use crate::support::metrics::Scrape;
use crate::support::smtp::{PKI, Script, Seen, SmtpServer, Verb, say};
use crate::support::token_server::{Manner, TokenServer, granting, token, xoauth2};

/// A check that failed is not repeated within a test.
const ONCE: [&str; 2] = ["--unhealthy-interval", "1h"];
/// It is repeated all the time.
const OFTEN: [&str; 4] = ["--health-interval", "50ms", "--unhealthy-interval", "50ms"];

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

fn main_provider(server: &SmtpServer, tokens: &TokenServer) -> Provider {
    let main = Provider::tls("main", "localhost", server.port(), &PKI.ca_pem);
    main.oauth2(&tokens.url, "mailer", "hunter2")
}

/// Takes these tokens and no other: of those it says in base64 what is wrong, as Google does.
fn knows(tokens: &[&str]) -> Script {
    let refuses = Script::starttls().on(Verb::Auth, say("334 eyJzdGF0dXMiOiI0MDAifQ=="));
    tokens.iter().fold(refuses, |script, token| {
        script.on_line(Verb::Auth, &xoauth2("mailer", token), say("235 2.7.0 welcome"))
    })
}

/// Logins with this token.
fn logins_count(seen: &Seen, token: &str) -> usize {
    let response = xoauth2("mailer", token);
    seen.lines.iter().filter(|line| line.ends_with(&response)).count()
}

/// The fields of a form, sorted.
fn form(request: &str) -> Vec<&str> {
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    let mut fields: Vec<_> = body.split('&').collect();
    fields.sort_unstable();
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_out_with_a_token_that_is_fetched_once_for_all_connections() {
    let tokens = TokenServer::start().await;
    let server = SmtpServer::start(knows(&[&token(1)])).await;
    let app = Home::new(&[main_provider(&server, &tokens)]).args(&ONCE).start().await;
    let shown = app.provider_is("main", |shown| shown["healthy"] == true).await;
    let loaded = condition(&shown, "PasswordLoaded");
    assert_eq!(loaded["reason"], "SecretLoaded");
    assert_eq!(loaded["message"], "the client secret is loaded");
    let id = app.notify(&many(20)).await;
    app.jobs_are(&id, &["delivered"]).await;

    let [request] = &tokens.asked()[..] else { panic!("one request: {:?}", tokens.asked()) };
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded"), "{request}");
    let wanted = [
        "client_id=client-7",
        "client_secret=hunter2",
        "grant_type=client_credentials",
        "scope=mail.send+openid",
    ];
    assert_eq!(form(request), wanted);
    let seen = server.seen();
    assert!(seen.accepted.iter().all(|letter| letter.is_encrypted));
    assert!(2 <= seen.count(Verb::Auth), "the check's, and the mail's");
    assert_eq!(logins_count(&seen, &token(1)), seen.count(Verb::Auth));
    // A token of this length does not fit the command (RFC 5321 4.5.3.1.4).
    assert_eq!(seen.count(Verb::AuthXoauth2), seen.count(Verb::Auth));
    assert!(!app.process.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_token_goes_with_the_command_and_a_server_of_port_465_takes_it_too() {
    let tokens = TokenServer::start().await;
    tokens.follow(Manner::Grant(json!({"access_token": "short", "expires_in": "3599"})));
    let server = SmtpServer::start(knows(&["short"])).await;
    let app = Home::new(&[main_provider(&server, &tokens)]).start().await;
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    let seen = server.seen();
    assert_eq!((seen.count(Verb::Auth), seen.count(Verb::AuthXoauth2)), (1, 0));
    let line = format!("AUTH XOAUTH2 {}", xoauth2("mailer", "short"));
    assert!(seen.lines.contains(&line), "{:?}", seen.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_it_ends_and_no_login_fails_for_it() {
    let tokens = TokenServer::start().await;
    tokens.follow(granting(2));
    let server = SmtpServer::start(Script::starttls()).await;
    let app = Home::new(&[main_provider(&server, &tokens)]).args(&OFTEN).start().await;
    tokens.was_asked(3).await;
    let seen = server.wait_until(|seen| 1 <= logins_count(seen, &token(3))).await;
    for nth in 1..=3 {
        assert!(1 <= logins_count(&seen, &token(nth)), "token {nth}");
    }
    // Each is used for many checks.
    assert!(tokens.asked().len() < seen.count(Verb::Noop), "{} tokens", tokens.asked().len());
    let scrape = Scrape::of(&app.client).await;
    let labels = [("provider", "main"), ("result", "failure")];
    assert_eq!(scrape.find("health_check_total", &labels).unwrap_or_default(), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_mail_server_takes_back_is_renewed_once_and_the_mail_goes_out() {
    let tokens = TokenServer::start().await;
    let server = SmtpServer::start(knows(&[&token(1)])).await;
    let app = Home::new(&[main_provider(&server, &tokens)]).args(&ONCE).start().await;
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    server.follow(knows(&[&token(2)]));
    let id = app.notify(&many(1)).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    assert_eq!(found["jobs"][0]["attempts"].as_array().expect("attempts").len(), 1, "{found}");
    assert_eq!(tokens.asked().len(), 2);
    let seen = server.seen();
    assert_eq!((logins_count(&seen, &token(1)), logins_count(&seen, &token(2))), (2, 1));
    // Who is told why acknowledges it, and hears the code.
    assert_eq!(seen.count(Verb::AuthRefused), 1);
    assert!(seen.lines.iter().any(String::is_empty), "{:?}", seen.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_refuses_every_token_costs_one_renewal_however_much_mail_comes() {
    let tokens = TokenServer::start().await;
    let server = SmtpServer::start(knows(&[&token(1)])).await;
    let home = Home::new(&[main_provider(&server, &tokens)]).args(&ONCE);
    let app = home.args(&["--max-connections", "1"]).start().await;
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    server.follow(knows(&[]));
    let id = app.notify(&many(50)).await;
    app.queue_has("main", "parked", 50).await;
    assert_eq!(tokens.asked().len(), 2);
    assert_eq!(logins_count(&server.seen(), &token(2)), 1);
    let shown = app.provider_is("main", |shown| shown["healthy"] == false).await;
    let words = "the server refused the login: 535 5.7.3 the token is not good";
    assert_eq!(shown["lastError"], words);
    let told = app.client.get(&format!("/notifications/{id}")).await;
    let jobs = told["jobs"].as_array().expect("jobs");
    let attempts = jobs.iter().flat_map(|job| job["attempts"].as_array().expect("attempts"));
    assert!(attempts.clone().next().is_some(), "{told}");
    let mut said = attempts.map(|attempt| attempt["message"].as_str().expect("words"));
    assert!(said.all(|said| said.contains(words)), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_is_refused_is_not_followed_by_another() {
    let tokens = TokenServer::start().await;
    let server = SmtpServer::start(knows(&[])).await;
    let app = Home::new(&[main_provider(&server, &tokens)]).args(&ONCE).start().await;
    app.provider_is("main", |shown| shown["healthy"] == false).await;
    assert_eq!((tokens.asked().len(), server.seen().count(Verb::Auth)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_take_a_token_safely_gets_none() {
    let tokens = TokenServer::start().await;
    let only_passwords = Script::starttls().on(Verb::Ehlo, say("250-fake\r\n250 STARTTLS"));
    let table = [
        (
            only_passwords.on_nth(Verb::Ehlo, 2, say("250-fake\r\n250 AUTH PLAIN LOGIN")),
            "the server does not offer AUTH XOAUTH2",
        ),
        (
            Script::plain(),
            "the server does not offer STARTTLS, and no access token is sent without it",
        ),
    ];
    for (script, words) in table {
        let server = SmtpServer::start(script).await;
        let app = Home::new(&[main_provider(&server, &tokens)]).args(&ONCE).start().await;
        let shown = app.provider_is("main", |shown| shown["healthy"] == false).await;
        assert_eq!(shown["lastError"], words);
        assert_eq!(server.seen().count(Verb::Auth), 0);
    }
}
