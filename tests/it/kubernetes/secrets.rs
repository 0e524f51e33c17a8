//! Secrets that are missing, rotated, emptied and deleted, and a mail server that knows one
//! password at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{is, provider, start, to_ada};
use crate::support::kube::Kube;
use crate::support::smtp::{PKI, Script, SmtpServer, Verb, say};
use crate::support::token_server::TokenServer;

/// How AUTH PLAIN says it.
fn credentials(password: &str) -> String {
    STANDARD.encode(format!("\0mailer\0{password}"))
}

/// Takes this password and no other.
fn knows(password: &str) -> Script {
    let refuses = Script::plain().on(Verb::Auth, say("535 5.7.8 bad credentials"));
    refuses.on_line(Verb::Auth, &credentials(password), say("235 2.7.0 welcome"))
}

fn secret(data: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "smtp-secret", "namespace": "default"},
        "stringData": data,
    })
    .to_string()
}

/// Waits until the password is missing for this reason, and Ready says so in these words.
async fn is_missing(kube: &Kube, reason: &str, words: &str) {
    is(kube, "login", "PasswordLoaded", &format!("False {reason}")).await;
    assert_eq!(kube.condition("login", "Ready"), "False PasswordLoadFailed");
    let shown = kube.get("mailprovider", "login").expect("it")["status"]["conditions"].to_string();
    assert!(shown.contains(words), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_counts_for_the_next_login_and_without_one_mail_is_parked_undialled() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let server = SmtpServer::start(knows("first horse")).await;
    let login = json!({
        "default": true,
        "smtp": {"username": "mailer", "passwordRef": {"name": "smtp-secret"}, "disableTLS": true},
    });
    kube.apply(&provider("login", server.port(), &login)).expect("applied");
    is_missing(&kube, "SecretNotFound", "there is no Secret default/smtp-secret").await;
    let mut parked = vec![app.notify(&to_ada()).await];
    app.queue_has("login", "parked", 1).await;
    assert_eq!(server.seen().connections_count, 0, "nobody is dialled without a password");

    let no_value = "the Secret default/smtp-secret has no value for the key password";
    kube.apply(&secret(&json!({"other": "x"}))).expect("applied");
    is_missing(&kube, "KeyNotFound", no_value).await;
    // As `echo` writes it.
    kube.apply(&secret(&json!({"password": "first horse\n"}))).expect("applied");
    is(&kube, "login", "PasswordLoaded", "True SecretLoaded").await;
    app.jobs_are(&parked.remove(0), &["delivered"]).await;

    server.follow(knows("second horse"));
    kube.apply(&secret(&json!({"password": "second horse"}))).expect("applied");
    let uses_second = |line: &String| line.contains(&credentials("second horse"));
    server.wait_until(|seen| seen.lines.iter().any(uses_second)).await;
    is(&kube, "login", "Ready", "True Configured").await;
    let id = app.notify(&to_ada()).await;
    let found = app.jobs_are(&id, &["delivered"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 1, "no login with the old one: {found}");

    let changes = [
        (Some(r#"{"data": {"password": ""}}"#), "KeyNotFound", no_value),
        // A line break alone.
        (Some(r#"{"data": {"password": "Cg=="}}"#), "KeyNotFound", no_value),
        (Some(r#"{"data": {"password": null}}"#), "KeyNotFound", no_value),
        (None, "SecretNotFound", "there is no Secret default/smtp-secret"),
    ];
    for (patch, reason, words) in changes {
        match patch {
            Some(patch) => kube.patch("secret", "smtp-secret", patch),
            None => drop(kube.kubectl(&["delete", "secret", "smtp-secret"]).expect("deleted")),
        }
        is_missing(&kube, reason, words).await;
        let idle = server.wait_until(|seen| seen.open_count <= 1).await;
        parked.push(app.notify(&to_ada()).await);
        app.queue_has("login", "parked", parked.len()).await;
        assert_eq!(server.seen().connections_count, idle.connections_count, "{words}");
        // Only the last one stays away: each change is one from a good password.
        if patch.is_some() {
            kube.apply(&secret(&json!({"password": "second horse"}))).expect("applied");
            for id in parked.drain(..) {
                app.jobs_are(&id, &["delivered"]).await;
            }
            is(&kube, "login", "Ready", "True Configured").await;
        }
    }
    server.follow(knows("third horse"));
    kube.apply(&secret(&json!({"password": "third horse"}))).expect("applied");
    for id in parked {
        app.jobs_are(&id, &["delivered"]).await;
    }
    assert_eq!(server.accepted().len(), 6);

    let all = kube.kubectl(&["get", "mailproviders,events", "-A", "-o", "yaml"]).expect("yaml");
    assert!(!all.contains(" horse") && !app.process.log().contains(" horse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_oauth2_is_followed_as_a_password_is() {
    let Some((kube, _home, app)) = start(&["mailproviders"]).await else { return };
    let (tokens, server) =
        (TokenServer::start().await, SmtpServer::start(Script::starttls()).await);
    let login = json!({
        "default": true,
        "smtp": {
            "host": "localhost",
            "certificateAuthority": PKI.ca_pem,
            "username": "mailer",
            "oauth2": {
                "tokenURL": tokens.url,
                "clientID": "client-7",
                "clientSecretRef": {"name": "smtp-secret"},
            },
        },
    });
    kube.apply(&provider("login", server.port(), &login)).expect("applied");
    is_missing(&kube, "SecretNotFound", "there is no Secret default/smtp-secret").await;
    let parked = app.notify(&to_ada()).await;
    app.queue_has("login", "parked", 1).await;
    kube.apply(&secret(&json!({"other": "x"}))).expect("applied");
    let words = "the Secret default/smtp-secret has no value for the key clientSecret";
    is_missing(&kube, "KeyNotFound", words).await;
    assert_eq!((tokens.asked().len(), server.seen().connections_count), (0, 0));

    kube.apply(&secret(&json!({"clientSecret": "first horse\n"}))).expect("applied");
    app.jobs_are(&parked, &["delivered"]).await;
    is(&kube, "login", "PasswordLoaded", "True SecretLoaded").await;
    is(&kube, "login", "Ready", "True Configured").await;
    kube.apply(&secret(&json!({"clientSecret": "second horse"}))).expect("applied");
    let asked = tokens.was_asked(2).await;
    for (asked, horse) in asked.iter().zip(["first", "second"]) {
        assert!(asked.ends_with(&format!("client_secret={horse}+horse")), "{asked}");
    }
    let all = kube.kubectl(&["get", "mailproviders,events", "-A", "-o", "yaml"]).expect("yaml");
    assert!(!all.contains(" horse") && !app.process.log().contains(" horse"));
}
