//! Passwords that change, go and come back while the server runs: the next attempt knows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::app::{Home, Provider};
use crate::support::client::condition;
use crate::support::smtp::{Script, Seen, SmtpServer, Verb, say};

fn mail() -> Value {
    json!({"recipients": ["ada@example.com"], "subject": "Breakglass", "text": "Please look."})
}

fn with_password(server: &SmtpServer, password: &str) -> Provider {
    Provider::plain("main", server.port()).login("mailer", password)
}

/// How AUTH PLAIN says it.
fn credentials(password: &str) -> String {
    STANDARD.encode(format!("\0mailer\0{password}"))
}

/// Logins with this password.
fn logins_count(seen: &Seen, password: &str) -> usize {
    let login = format!("AUTH PLAIN {}", credentials(password));
    seen.lines.iter().filter(|line| **line == login).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_of_the_old_password_carries_no_mail_after_a_rotation() {
    let server = SmtpServer::start(Script::plain()).await;
    let home = Home::new(&[with_password(&server, "old")]);
    let app = home.start().await;
    for _ in 0..2 {
        let id = app.notify(&mail()).await;
        app.jobs_are(&id, &["delivered"]).await;
    }
    let seen = server.wait_until(|seen| seen.count(Verb::Noop) == 1).await;
    assert_eq!(logins_count(&seen, "old"), 2, "one of the check, one of a connection that is kept");

    home.providers(&[with_password(&server, "new")]);
    server.wait_until(|seen| logins_count(seen, "new") == 1).await;
    let id = app.notify(&mail()).await;
    app.jobs_are(&id, &["delivered"]).await;
    let seen = server.seen();
    assert_eq!(logins_count(&seen, "new"), 2, "the check's, and one for the mail");
    assert_eq!((logins_count(&seen, "old"), seen.accepted.len()), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_retry_uses_the_password_of_then() {
    let knows_new = Script::plain().on(Verb::Auth, say("535 5.7.8 bad credentials")).on_line(
        Verb::Auth,
        &credentials("new"),
        say("235 2.7.0 welcome"),
    );
    let server = SmtpServer::start(knows_new).await;
    let home = Home::new(&[with_password(&server, "old").retry(5, 2000)]);
    let app = home.start().await;
    let id = app.notify(&mail()).await;
    app.queue_has("main", "scheduled", 1).await;
    home.providers(&[with_password(&server, "new").retry(5, 2000)]);
    let found = app.jobs_are(&id, &["delivered"]).await;
    let attempts = found["jobs"][0]["attempts"].as_array().expect("attempts");
    let (last, refused) = attempts.split_last().expect("attempts");
    assert_eq!((&last["outcome"], &last["code"]), (&json!("delivered"), &json!(250)));
    assert!(!refused.is_empty());
    for attempt in refused {
        let message = attempt["message"].as_str().expect("a message");
        assert!(message.contains("the server refused the login: 535"), "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_or_key_that_goes_parks_the_mail_undialled_and_its_return_releases_it() {
    let table = [
        (None, "SecretNotFound", "there is no Secret default/main"),
        (Some(json!({})), "KeyNotFound", "the Secret default/main has no value"),
        (Some(json!({"other": "x"})), "KeyNotFound", "the Secret default/main has no value"),
        (Some(json!({"password": ""})), "KeyNotFound", "the Secret default/main has no value"),
    ];
    let server = SmtpServer::start(Script::plain()).await;
    let good = with_password(&server, "hunter2");
    let home = Home::new(std::slice::from_ref(&good));
    let app = home.start().await;
    for (secret, reason, words) in table {
        let id = app.notify(&mail()).await;
        app.jobs_are(&id, &["delivered"]).await;

        home.providers(&[good.clone().secret(secret)]);
        let shown = app
            .provider_is("main", |shown| condition(shown, "PasswordLoaded")["status"] == "False")
            .await;
        assert_eq!(condition(&shown, "PasswordLoaded")["reason"], reason);
        let ready = condition(&shown, "Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("False"), &json!("PasswordLoadFailed"))
        );
        assert!(ready["message"].to_string().contains(words), "{ready}");
        // A check may have been under way when the password went. One connection is kept.
        let idle = server.wait_until(|seen| seen.open_count <= 1).await;
        let id = app.notify(&mail()).await;
        let parked = app.jobs_are(&id, &["dead"]).await;
        let attempt = &parked["jobs"][0]["attempts"][0];
        assert_eq!(
            (&attempt["stage"], &attempt["code"]),
            (&json!("prepare"), &Value::Null),
            "{parked}"
        );
        app.queue_has("main", "parked", 1).await;
        assert_eq!(server.seen().connections_count, idle.connections_count, "nobody was dialled");

        home.providers(std::slice::from_ref(&good));
        app.jobs_are(&id, &["delivered"]).await;
    }
    assert!(!app.process.log().contains("hunter2"));
}
