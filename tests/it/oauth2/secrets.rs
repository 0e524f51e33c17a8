//! Secrets that are missing, replaced and rotated.

use serde_json::json;

use super::{OFTEN, ONCE, form, logins_count, main_provider, many};
use crate::support::app::Home;
use crate::support::client::condition;
use crate::support::peer;
use crate::support::smtp::{Script, SmtpServer, Verb};
use crate::support::token_server::{Manner, TokenServer, granting, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_or_key_that_is_missing_is_told_and_neither_server_is_asked() {
    let table = [
        (None, "SecretNotFound", "there is no Secret default/main"),
        (
            Some(json!({"refreshToken": "x"})),
            "KeyNotFound",
            "the Secret default/main has no value for the key clientSecret",
        ),
        (
            Some(json!({"clientSecret": "x", "refreshToken": "\n"})),
            "KeyNotFound",
            "the Secret default/main has no value for the key refreshToken",
        ),
    ];
    for (secret, reason, words) in table {
        let tokens = TokenServer::start().await;
        let server = SmtpServer::start(Script::starttls()).await;
        let good = main_provider(&server, &tokens).refresh("refresh-1");
        let home = Home::new(&[good.clone().secret(secret)]).args(&ONCE);
        let app = home.start().await;
        let id = app.notify(&many(1)).await;
        app.queue_has("main", "parked", 1).await;
        let shown = app.provider_is("main", |shown| shown["healthy"] == false).await;
        let (ready, loaded) = (condition(&shown, "Ready"), condition(&shown, "PasswordLoaded"));
        assert_eq!(
            (&ready["reason"], &loaded["reason"]),
            (&json!("PasswordLoadFailed"), &json!(reason))
        );
        assert_eq!((&ready["message"], &loaded["message"]), (&json!(words), &json!(words)));
        assert_eq!((tokens.asked().len(), server.seen().connections_count), (0, 0));

        home.providers(std::slice::from_ref(&good));
        app.jobs_are(&id, &["delivered"]).await;
        assert!(form(&tokens.asked()[0]).contains(&"refresh_token=refresh-1"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_secret_counts_at_once_and_an_old_connection_carries_no_more_mail() {
    let tokens = TokenServer::start().await;
    let server = SmtpServer::start(Script::starttls()).await;
    let old = main_provider(&server, &tokens);
    let home = Home::new(std::slice::from_ref(&old));
    let app = home.start().await;
    for _ in 0..2 {
        let id = app.notify(&many(1)).await;
        app.jobs_are(&id, &["delivered"]).await;
    }
    let seen = server.wait_until(|seen| seen.count(Verb::Noop) == 1).await;
    assert_eq!(logins_count(&seen, &token(1)), 2, "the check's, and a connection that is kept");

    home.providers(&[old.oauth2(&tokens.url, "mailer", "new secret")]);
    let asked = tokens.was_asked(2).await;
    assert!(form(&asked[0]).contains(&"client_secret=hunter2"), "{asked:?}");
    assert!(form(&asked[1]).contains(&"client_secret=new+secret"), "{asked:?}");
    server.wait_until(|seen| seen.count(Verb::Noop) == 2).await;
    let id = app.notify(&many(1)).await;
    app.jobs_are(&id, &["delivered"]).await;
    let seen = server.seen();
    assert_eq!((logins_count(&seen, &token(1)), logins_count(&seen, &token(2))), (2, 2));
    assert_eq!(tokens.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_the_token_server_replaces_is_used_from_then_on() {
    let tokens = TokenServer::start().await;
    // Each token is used once.
    let replaces = json!({"expires_in": 0, "refresh_token": "refresh/2"});
    tokens.follow(Manner::Grant(replaces));
    let server = SmtpServer::start(Script::starttls()).await;
    let main = main_provider(&server, &tokens).refresh("refresh-1");
    let home = Home::new(&[main]).args(&OFTEN);
    let app = home.start().await;
    let asked = tokens.was_asked(3).await;
    let wanted = |refresh_token| {
        [
            "client_id=client-7",
            "client_secret=hunter2",
            "grant_type=refresh_token",
            refresh_token,
            "scope=mail.send+openid",
        ]
    };
    assert_eq!(form(&asked[0]), wanted("refresh_token=refresh-1"));
    assert_eq!(form(&asked[1]), wanted("refresh_token=refresh%2F2"));
    assert_eq!(form(&asked[2]), wanted("refresh_token=refresh%2F2"));

    // One that is refused is forgotten: the Secret's may have been renewed meanwhile.
    let refused = peer::json(400, &json!({"error": "invalid_grant"}));
    tokens.follow(Manner::Say(refused));
    app.provider_is("main", |shown| shown["healthy"] == false).await;
    tokens.follow(granting(3600));
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    let asked = tokens.asked();
    let last = asked.last().expect("requests");
    assert_eq!(form(last), wanted("refresh_token=refresh-1"), "{asked:#?}");
}
