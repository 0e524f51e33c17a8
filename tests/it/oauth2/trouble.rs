//! Token servers that refuse, fail, hang and lie.

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{OFTEN, ONCE, main_provider, many};
use crate::support::app::{Home, Provider};
use crate::support::client::condition;
use crate::support::metrics::Scrape;
use crate::support::peer::{self, Peer};
use crate::support::smtp::{Certificate, PKI, Script, SmtpServer};
use crate::support::token_server::{Manner, TokenServer, granting, refusing};

fn to(provider: &str) -> Value {
    let mut body = many(3);
    body["mailProvider"] = provider.into();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_provider_says_why_and_its_mail_is_parked_and_goes_out_after() {
    let elsewhere = Peer::start(vec![peer::json(200, &json!({"access_token": "stolen"}))]).await;
    let redirect = format!("Location: {}/token\r\n", elsewhere.url);
    let huge = json!({"access_token": "token", "padding": "x".repeat(100_000)});
    let entra = json!({"error": "invalid_client", "error_description":
        "AADSTS7000222: The provided client secret keys for app are expired: hunter2"});
    let answer = |status, body| Manner::Say(peer::json(status, &body));
    let table = [
        (refusing(400, "invalid_grant"), "the token server refused the client: invalid_grant"),
        (answer(401, entra), "the token server refused the client: invalid_client (AADSTS7000222)"),
        (refusing(503, "hunter2"), "the token server answered with status 503"),
        (Manner::Hang, "the token server did not answer within 300ms"),
        (
            Manner::Say(peer::answer(307, &redirect, "")),
            "the token server answered with status 307, and no redirect is followed",
        ),
        (answer(200, huge), "the token server's answer is too large"),
        (
            answer(200, json!({"token": "hunter2"})),
            "the token server answered without an access token",
        ),
        (
            Manner::Say(peer::answer(200, "", "hunter2")),
            "the token server answered with no JSON object",
        ),
        (Manner::Say("hunter2\r\n\r\n".into()), "the token server's answer is not HTTP"),
        (Manner::Say(String::new()), "the connection to the token server broke before its answer"),
    ];
    let mut rows = Vec::new();
    let mut manifests = String::new();
    for (n, (manner, words)) in table.into_iter().enumerate() {
        let (tokens, server) =
            (TokenServer::start().await, SmtpServer::start(Script::starttls()).await);
        tokens.follow(manner);
        let name = format!("row-{n}");
        let provider = Provider::tls(&*name, "localhost", server.port(), &PKI.ca_pem);
        // Without a default, which would be the last of each chain.
        manifests += &provider.oauth2(&tokens.url, "mailer", "hunter2").manifests(false);
        rows.push((name, words, tokens, server));
    }
    let home = Home::new(&[]).args(&OFTEN).args(&["--health-timeout", "300ms"]);
    home.write(&manifests);
    let app = home.start().await;
    let mut ids = Vec::new();
    for (name, words, _, server) in &rows {
        let id = app.notify(&to(name)).await;
        app.queue_has(name, "parked", 3).await;
        let shown = app.provider_is(name, |shown| shown["lastError"] == *words).await;
        let (ready, healthy) = (condition(&shown, "Ready"), condition(&shown, "Healthy"));
        let reasons = (&ready["reason"], &healthy["reason"]);
        assert_eq!(reasons, (&json!("HealthCheckFailed"), &json!("Unhealthy")), "{words}");
        let messages = (&ready["message"], &healthy["message"]);
        assert_eq!(messages, (&json!(words), &json!(words)));
        assert_eq!(server.seen().connections_count, 0, "{words}: nobody was dialled");
        let told = app.client.get(&format!("/notifications/{id}")).await;
        assert_eq!(told["jobs"][0]["attempts"][0]["stage"], "prepare", "{words}: {told}");
        ids.push(id);
    }
    for ((_, words, tokens, server), id) in rows.iter().zip(&ids) {
        tokens.follow(granting(3600));
        app.jobs_are(id, &["delivered"]).await;
        assert_eq!(server.accepted().len(), 3, "{words}: each once");
    }
    assert_eq!(elsewhere.requests(), [""; 0], "no secret goes where nobody sent it");
    assert!(!app.process.log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_is_not_tried_again_however_much_mail_comes() {
    let tokens = TokenServer::start().await;
    tokens.follow(refusing(401, "invalid_client"));
    let server = SmtpServer::start(Script::starttls()).await;
    let main = main_provider(&server, &tokens);
    let home = Home::new(std::slice::from_ref(&main)).args(&ONCE);
    let app = home.start().await;
    app.provider_is("main", |shown| shown["healthy"] == false).await;
    let id = app.notify(&many(100)).await;
    app.queue_has("main", "parked", 100).await;
    assert_eq!(tokens.asked().len(), 1, "only the check asked");
    let told = app.client.get(&format!("/notifications/{id}")).await;
    let words = "not tried again yet: the token server refused the client: invalid_client";
    assert_eq!(told["jobs"][0]["attempts"][0]["message"], words);
    let labels = [("provider", "main"), ("reason", "auth_failed")];
    assert_eq!(Scrape::of(&app.client).await.count("emails_failed_total", &labels), 100);

    tokens.follow(granting(3600));
    home.providers(&[main.oauth2(&tokens.url, "mailer", "another")]);
    app.jobs_are(&id, &["delivered"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_away_is_told_from_a_mail_server_that_is() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let server = SmtpServer::start(Script::starttls()).await;
    let at = |name: &'static str, url: &str| {
        let provider = Provider::tls(name, "localhost", server.port(), &PKI.ca_pem);
        provider.oauth2(url, "mailer", "hunter2")
    };
    let providers = [
        at("refuses", &format!("http://127.0.0.1:{port}/token")),
        at("nowhere", "https://no-such-host.invalid/token"),
    ];
    let app = Home::new(&providers).args(&ONCE).start().await;
    let says = async |name| {
        let shown = app.provider_is(name, |shown| shown["healthy"] == false).await;
        shown["lastError"].as_str().expect("words").to_owned()
    };
    assert_eq!(says("refuses").await, "the token server refuses connections");
    assert_eq!(says("nowhere").await, "the token server's name has no address");
    assert_eq!(server.seen().connections_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_token_server_that_this_machine_trusts_is_told_the_secret() {
    let good = peer::json(200, &json!({"access_token": "token", "token_type": "Bearer"}));
    let cannot = Some("the token server's TLS cannot be trusted");
    for (certificate, words) in [
        (Certificate::Good, None),
        (Certificate::UnknownCa, cannot),
        (Certificate::WrongName, cannot),
        (Certificate::Expired, cannot),
    ] {
        let config = PKI.server_config(certificate).expect("a certificate");
        let tokens = Peer::over_tls(vec![good.clone()], TlsAcceptor::from(config)).await;
        let server = SmtpServer::start(Script::starttls()).await;
        let main = Provider::tls("main", "localhost", server.port(), &PKI.ca_pem);
        let home = Home::new(&[main.oauth2(&tokens.url, "mailer", "hunter2")]).args(&ONCE);
        let roots = home.path("roots.pem");
        std::fs::write(&roots, &PKI.ca_pem).expect("write it");
        let app = home.env("SSL_CERT_FILE", roots.to_str().expect("UTF-8")).start().await;
        let shown = app.provider_is("main", |shown| shown["healthy"] == words.is_none()).await;
        assert_eq!(shown["lastError"].as_str(), words, "{certificate:?}");
        let is_trusted = usize::from(words.is_none());
        assert_eq!(tokens.requests().len(), is_trusted, "{certificate:?}");
        assert_eq!(server.seen().connections_count, is_trusted, "{certificate:?}");
    }
}
