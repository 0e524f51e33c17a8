//! Access tokens and what they are given out for, before servers that repeat all that they hear.

use serde_json::json;

use super::ear::Shown;
use super::mistakes::ask;
use super::{ACCESS_TOKEN, CLIENT_SECRET, REFRESH_TOKEN, USERNAME, notification};
use crate::support::app::{Home, Provider};
use crate::support::peer;
use crate::support::smtp::{Action, PKI, Script, SmtpServer, Verb, say};
use crate::support::token_server::{Manner, TokenServer, xoauth2};

/// A token that fits a command, and one that does not.
fn access_tokens() -> [String; 2] {
    [ACCESS_TOKEN.to_owned(), format!("{ACCESS_TOKEN}.").repeat(100)]
}

/// A mail server that says all that it heard, whole and in part.
fn blabs(code: u16, token: &str) -> Action {
    let response = xoauth2(USERNAME, token);
    let begin = &response[..response.len().min(300)];
    let inner = &begin[40..];
    let part = &token[..token.len().min(100)];
    let lines = [
        format!("AUTH XOAUTH2 {begin}"),
        format!("what is {inner}?"),
        format!("user={USERNAME} auth=Bearer {part}"),
        format!("{} and {part}, \"{part}\"", part.to_uppercase()),
    ];
    let lines: String = lines.iter().map(|line| format!("{code}-{line}\r\n")).collect();
    say(&format!("{lines}{code} done"))
}

#[tokio::test]
async fn no_token_and_no_secret_for_one_is_shown_whatever_the_servers_repeat() {
    let [secret, refresh] = [CLIENT_SECRET, REFRESH_TOKEN];
    let echo = format!("client_secret={secret}&refresh_token={refresh}");
    let error = json!({"error": secret, "error_description": format!("AADSTS7000215: {echo}"),
        "error_uri": format!("https://example.com/?{echo}")});
    let location = format!("Location: http://127.0.0.1:1/?{echo}\r\n");
    let bad = [
        peer::json(400, &error),
        peer::json(401, &json!({"error": "invalid_client", "error_description": echo})),
        peer::json(500, &error),
        peer::json(200, &error),
        peer::json(200, &json!({"access_token": format!("{ACCESS_TOKEN}\r\n")})),
        peer::json(200, &json!({"access_token": [ACCESS_TOKEN], "token_type": ACCESS_TOKEN})),
        peer::json(200, &json!({"access_token": ACCESS_TOKEN, "token_type": ACCESS_TOKEN})),
        peer::answer(302, &location, &echo),
        format!("HTTP/1.1 400 {echo}\r\n{echo}\r\n\r\n{echo}"),
        format!("{echo}\r\n"),
    ];
    let mut manifests = String::new();
    let (mut servers, mut token_servers) = (Vec::new(), Vec::new());
    let mut add = async |name: String, manner: Manner, script: Script| {
        let (tokens, server) = (TokenServer::start().await, SmtpServer::start(script).await);
        tokens.follow(manner);
        let provider = Provider::tls(&*name, "localhost", server.port(), &PKI.ca_pem).retry(1, 10);
        let provider = provider.oauth2(&tokens.url, USERNAME, secret).refresh(refresh);
        manifests += &provider.manifests(false);
        token_servers.push(tokens);
        servers.push(server);
        name
    };
    let mut names = Vec::new();
    for (n, answer) in bad.into_iter().enumerate() {
        names.push(add(format!("bad-{n}"), Manner::Say(answer), Script::starttls()).await);
    }
    for (n, token) in access_tokens().iter().enumerate() {
        let grant = json!({"access_token": token, "refresh_token": format!("{refresh}2")});
        for (verb, code) in
            [(Verb::Auth, 535), (Verb::Auth, 454), (Verb::Mail, 451), (Verb::Dot, 554)]
        {
            let script = Script::starttls().on(verb, blabs(code, token));
            let name = format!("blabbing-{n}-{code}");
            names.push(add(name, Manner::Grant(grant.clone()), script).await);
        }
        let refuses = Script::starttls().on(Verb::Auth, say("334 eyJzdGF0dXMiOiI0MDAifQ=="));
        let script = refuses.on(Verb::AuthRefused, blabs(535, token));
        names.push(add(format!("refusing-{n}"), Manner::Grant(grant), script).await);
    }
    names.push(add("good".to_owned(), Manner::Grant(json!({})), Script::starttls()).await);
    let home = Home::new(&[]).args(&["--log-level", "trace"]);
    home.write(&manifests);
    let mut app = home.start().await;
    let mut shown = Shown::default();
    for name in &names {
        let id = app.notify(&notification(name)).await;
        app.jobs_are(&id, &["delivered", "dead"]).await;
        let path = format!("/notifications/{id}");
        shown.lists.push((path.clone(), ask(&app, "GET", &path, "", "").await));
    }
    for path in ["/metrics", "/providers", "/queue"] {
        shown.strict(path, ask(&app, "GET", path, "", "").await);
    }
    app.process.kill9();
    let log = app.process.log();
    assert!(log.contains("TRACE"), "{log}");
    shown.strict("the log", log);
    shown.check();
}
