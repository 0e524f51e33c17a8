//! Access tokens before a real mail server, which asks the token server whose they are.

use serde_json::json;

use super::short;
use crate::support::app::{Home, Provider};
use crate::support::mail_servers::{Door, USER, postfix_with_tokens};
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::token_server::{Manner, TokenServer};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_mail_by_access_token_and_one_that_is_taken_back_is_renewed() {
    if !need("postfix") {
        return;
    }
    let tokens = TokenServer::start().await;
    let server = postfix_with_tokens(&tokens.introspection_url()).await;
    let main = Provider::tls("main", server.host(), Door::Submission.port(), server.ca());
    let home = Home::new(&[main.oauth2(&tokens.url, USER, "hunter2")]);
    let home = home.args(&["--health-interval", "200ms", "--unhealthy-interval", "1h"]);
    let app = home.start().await;
    app.provider_is("main", |shown| shown["healthy"] == true).await;
    let deliver = async || {
        let accepted = app.client.accepted(&short("ada")).await;
        let id = accepted["id"].as_str().expect("an id");
        app.jobs_are(id, &["delivered"]).await;
        let job = accepted["jobs"][0]["id"].as_str().expect("an id").to_owned();
        // Postfix says 250 before it is in the mailbox.
        let message = eventually("the message is in the mailbox", async || {
            Some(String::from_utf8_lossy(server.messages(&job).first()?).into_owned())
        })
        .await;
        assert!(message.contains("(Authenticated sender: breakglass)"), "{message}");
    };
    deliver().await;
    assert_eq!(tokens.asked().len(), 1);

    tokens.takes_back_all();
    tokens.was_asked(2).await;
    deliver().await;
    let checks = async |result| {
        let labels = [("provider", "main"), ("result", result)];
        let scrape = Scrape::of(&app.client).await;
        scrape.find("health_check_total", &labels).unwrap_or_default()
    };
    let passed = checks("success").await;
    // One may have begun before the new token was there.
    eventually("the new token is good for more than one check", async || {
        (passed + 2.0 <= checks("success").await).then_some(())
    })
    .await;
    assert_eq!(checks("failure").await, 0.0);

    tokens.follow(Manner::Grant(json!({"access_token": "worthless"})));
    tokens.takes_back_all();
    let shown = app.provider_is("main", |shown| shown["healthy"] == false).await;
    let error = shown["lastError"].as_str().expect("words");
    assert!(error.starts_with("the server refused the login: 535 5.7.8"), "{error}");
    assert_eq!(tokens.asked().len(), 3);
}
