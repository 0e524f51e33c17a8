//! Who may call the API of a `serve`: with tokens, and without.

use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::Answer;
use crate::support::wait::eventually;

const OLD: &str = "old-0123456789abcdef0123456789abcdef";
const NEW: &str = "new-0123456789abcdef0123456789abcdef";

fn write(file: &Path, tokens: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, tokens).expect("write the tokens");
    std::fs::rename(beside, file).expect("rename");
}

/// A server that takes the tokens of `tokens` in its folder.
fn home(tokens: &str) -> Home {
    let home = Home::new(&[Provider::plain("a", 1)]);
    let file = home.path("tokens");
    write(&file, tokens);
    let file = file.to_str().expect("UTF-8").to_owned();
    home.args(&["--auth", "token", "--token-file", &file])
}

async fn call(app: &App, method: Method, path: &str, authorization: &[&str]) -> Answer {
    let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    let body = (method == Method::POST).then_some(post);
    app.client.call(method, path, &headers, body.as_ref()).await.expect("an answer")
}

async fn queue_status(app: &App, token: &str) -> u16 {
    call(app, Method::GET, "/queue", &[&format!("Bearer {token}")]).await.status
}

#[tokio::test]
async fn every_path_but_those_of_machines_needs_a_token() {
    let app = home(OLD).start().await;
    let paths = [
        (Method::POST, "/notify"),
        (Method::GET, "/queue"),
        (Method::GET, "/jobs"),
        (Method::GET, "/notifications/01a205c3-2dd0-7680-b861-77841a510462"),
        (Method::DELETE, "/notifications/01a205c3-2dd0-7680-b861-77841a510462"),
        (Method::GET, "/deadletters"),
        (Method::POST, "/deadletters/retry"),
        (Method::GET, "/deadletters/01a205c3-2dd0-7680-b861-77841a510462"),
        (Method::DELETE, "/deadletters/01a205c3-2dd0-7680-b861-77841a510462"),
        (Method::POST, "/deadletters/01a205c3-2dd0-7680-b861-77841a510462/retry"),
        (Method::GET, "/providers"),
        (Method::GET, "/queue/history"),
        (Method::GET, "/ui/nothing.js"),
        (Method::GET, "/nothing/here"),
        (Method::PUT, "/notify"),
        (Method::GET, "/livez/"),
        (Method::GET, "//metrics"),
        (Method::GET, "/queue?access_token=old-0123456789abcdef0123456789abcdef"),
    ];
    for (method, path) in paths {
        let answer = call(&app, method.clone(), path, &[]).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.json()["type"], "/problems/unauthorized");
    }
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json", "/", "/ui/app.js"] {
        assert_eq!(call(&app, Method::GET, path, &[]).await.status, 200, "{path}");
    }
    let token = format!("Bearer {OLD}");
    assert_eq!(call(&app, Method::POST, "/notify", &[&token]).await.status, 202);
    let queue = call(&app, Method::GET, "/queue", &[&token]).await;
    assert_eq!(queue.json()["depth"], 1, "nothing of the refused posts was kept");
}

#[tokio::test]
async fn what_is_not_exactly_one_valid_token_is_refused_and_never_shown() {
    let app = home(&format!("{OLD}\n")).args(&["--log-level", "trace"]).start().await;
    let wrong: [&[&str]; 7] = [
        &["Bearer wrong-0123456789abcdef0123456789abcdef"],
        &["Bearer"],
        &["Bearer "],
        &[OLD],
        &["Basic b2xkLTAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmOg=="],
        &["Bearer old-0123456789abcdef0123456789abcdef, Bearer x"],
        &["Bearer old-0123456789abcdef0123456789abcdef", "Bearer x"],
    ];
    for authorization in wrong {
        let answer = call(&app, Method::POST, "/notify", authorization).await;
        assert_eq!(answer.status, 401, "{authorization:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
        assert!(!answer.body.contains("0123456789abcdef"), "{}", answer.body);
    }
    assert_eq!(call(&app, Method::GET, "/queue", &[&format!("bearer {OLD}")]).await.status, 200);
    let log = app.process.log();
    assert!(!log.contains("0123456789abcdef"), "{log}");
}

#[tokio::test]
async fn tokens_are_exchanged_while_callers_change_over() {
    let home = home(OLD);
    let app = home.start().await;
    assert_eq!((queue_status(&app, OLD).await, queue_status(&app, NEW).await), (200, 401));

    write(&home.path("tokens"), &format!("{OLD}\n{NEW}\n"));
    eventually("the new token is valid", async || {
        (queue_status(&app, NEW).await == 200).then_some(())
    })
    .await;
    assert_eq!(queue_status(&app, OLD).await, 200, "the old one still is");

    write(&home.path("tokens"), NEW);
    eventually("the old token is not valid any more", async || {
        (queue_status(&app, OLD).await == 401).then_some(())
    })
    .await;
    assert_eq!(queue_status(&app, NEW).await, 200);
}

#[tokio::test]
async fn a_broken_token_file_is_named_and_the_last_good_tokens_stay_valid() {
    let home = home(OLD);
    let app = home.start().await;
    write(&home.path("tokens"), "too-short");
    eventually("the log names the file and the rule", async || {
        let log = app.process.log();
        let told = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.filter_map(|line| line["fields"]["error"].as_str().map(str::to_owned)).find(|error| {
            error.contains("tokens: line 1: a token has 32 to 1024 characters, this one has 9")
        })
    })
    .await;
    assert_eq!(queue_status(&app, OLD).await, 200);
    assert!(!app.process.log().contains("too-short"));
}

#[tokio::test]
async fn a_start_with_a_broken_token_file_or_without_one_is_refused() {
    for (tokens, said) in [
        ("", "holds no token"),
        ("too-short", "line 1: a token has 32 to 1024 characters"),
        ("a\tb", "line 1: a token is visible ASCII without spaces"),
    ] {
        let refusal = home(tokens).try_start().await.err().expect("a refusal");
        assert!(refusal.log.contains(said) && !refusal.log.contains("too-short"), "{refusal:?}");
        assert_eq!(refusal.status.code(), Some(1));
    }
    let plain = || Home::new(&[Provider::plain("a", 1)]);
    let home = plain().args(&["--auth", "token", "--token-file", "/nowhere/tokens"]);
    let refusal = home.try_start().await.err().expect("a refusal");
    assert!(refusal.log.contains("token file /nowhere/tokens: No such file"), "{refusal:?}");
    let refusal = plain().args(&["--auth", "token"]).try_start().await.err().expect("a refusal");
    assert!(refusal.log.contains("--auth token needs --token-file"), "{refusal:?}");
    // As it is exported for the client commands.
    let home = plain().env("BREAKGLASS_MAILER_TOKEN_FILE", "tokens");
    let refusal = home.try_start().await.err().expect("a refusal");
    assert!(refusal.log.contains("(or unset BREAKGLASS_MAILER_TOKEN_FILE)"), "{refusal:?}");
}

#[tokio::test]
async fn without_authentication_no_page_of_another_site_gets_through() {
    let app = Home::new(&[Provider::plain("a", 1)]).start().await;
    let with = async |headers: &[(&str, &str)]| {
        let path = "/deadletters/retry";
        app.client.call(Method::POST, path, headers, None).await.expect("an answer")
    };
    let rebound = with(&[("host", "evil.example")]).await;
    assert_eq!(rebound.status, 403, "{}", rebound.body);
    assert_eq!(rebound.json()["type"], "/problems/forbidden");
    assert_eq!(with(&[("origin", "http://evil.example")]).await.status, 403);
    assert_eq!(with(&[("origin", "null")]).await.status, 403);
    let own = with(&[("host", "localhost:80"), ("origin", "http://localhost:80")]).await;
    assert_ne!(own.status, 403, "{}", own.body);
}

#[tokio::test]
async fn behind_a_proxy_that_checks_callers_a_page_of_another_site_changes_nothing() {
    let app = Home::new(&[Provider::plain("a", 1)]).args(&["--insecure-no-auth"]).start().await;
    let with = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        app.client.call(method, path, headers, None).await.expect("an answer").status
    };
    let letter = "/deadletters/01a205c3-2dd0-7680-b861-77841a510462";
    let foreign: [&[(&str, &str)]; 4] = [
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", "https://other.example.com")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    for headers in foreign {
        let retried = with(Method::POST, "/deadletters/retry", headers).await;
        let deleted = with(Method::DELETE, letter, headers).await;
        assert_eq!((retried, deleted), (403, 403), "{headers:?}");
        assert_eq!(with(Method::GET, "/queue", headers).await, 200, "no harm is done: {headers:?}");
    }
    let own: [&[(&str, &str)]; 4] = [
        &[],
        // The name that the proxy is reached by is not the one that it reaches us by.
        &[("sec-fetch-site", "same-origin"), ("origin", "https://mail.example.com")],
        &[("sec-fetch-site", "none")],
        &[("host", "mail.example.com"), ("origin", "http://mail.example.com")],
    ];
    for headers in own {
        let retried = with(Method::POST, "/deadletters/retry", headers).await;
        let deleted = with(Method::DELETE, letter, headers).await;
        assert_eq!((retried, deleted), (202, 404), "{headers:?}");
    }
}
