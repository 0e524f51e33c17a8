//! Health checks through the whole program: what passes, what is said of what does not, and how
//! often it is tried.

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::condition;
use crate::support::metrics::Scrape;
use crate::support::need;
use crate::support::smtp::{
    Action, Blackhole, Certificate, PKI, Script, Seen, SmtpServer, Verb, say,
};
use crate::support::wait::eventually;

/// A check that failed is not repeated within a test.
const ONCE: [&str; 2] = ["--unhealthy-interval", "1h"];

fn many(count: usize) -> Value {
    let to: Vec<_> = (0..count).map(|n| format!("to-{n}@example.com")).collect();
    json!({"recipients": to, "subject": "Breakglass", "text": "Please look."})
}

/// Waits for the check of a provider; what `GET /providers` shows of it then.
async fn checked(app: &App, provider: &str, is_healthy: bool) -> Value {
    app.provider_is(provider, |shown| shown["healthy"] == is_healthy).await
}

/// Offers AUTH LOGIN alone.
fn login_only(script: Script) -> Script {
    script.on(Verb::Ehlo, say("250-fake\r\n250 AUTH LOGIN"))
}

fn refusing_logins(script: Script) -> Script {
    script.on(Verb::Auth, say("535 5.7.8 bad credentials"))
}

fn starttls(name: &'static str, server: &SmtpServer) -> Provider {
    Provider::tls(name, "localhost", server.port(), &PKI.ca_pem).login("mailer", "hunter2")
}

/// Logs in without TLS.
fn plain(name: &'static str, server: &SmtpServer) -> Provider {
    Provider::plain(name, server.port()).login("mailer", "hunter2")
}

/// A check logs in, says NOOP and QUIT, and sends nothing.
fn is_one_check(seen: &Seen) -> bool {
    [Verb::Auth, Verb::Noop, Verb::Quit, Verb::Mail].map(|verb| seen.count(verb)) == [1, 1, 1, 0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_logs_in_says_goodbye_and_sends_nothing_over_starttls_and_plaintext() {
    let encrypted = SmtpServer::start(Script::starttls()).await;
    let offers_login = SmtpServer::start(login_only(Script::plain())).await;
    let relay = SmtpServer::start(Script::plain()).await;
    let providers = [
        starttls("encrypted", &encrypted),
        plain("plain", &offers_login),
        Provider::tls("relay", "localhost", relay.port(), &PKI.ca_pem),
    ];
    let app = Home::new(&providers).start().await;
    for name in ["encrypted", "plain", "relay"] {
        let shown = checked(&app, name, true).await;
        assert!(shown["lastHealthCheck"].is_string(), "{shown}");
        let ready = condition(&shown, "Ready");
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("Configured")));
        assert_eq!(condition(&shown, "Healthy")["reason"], "HealthCheckPassed");
        let password = condition(&shown, "PasswordLoaded");
        match name {
            "relay" => assert_eq!(password, Value::Null),
            _ => assert_eq!(password["reason"], "SecretLoaded"),
        }
    }
    for server in [&encrypted, &offers_login] {
        server.wait_until(is_one_check).await;
    }
    let seen = relay.wait_until(|seen| seen.count(Verb::Quit) == 1).await;
    assert_eq!((seen.count(Verb::Auth), seen.count(Verb::Mail)), (0, 0));
    assert!(offers_login.seen().lines.iter().any(|line| line == "AUTH LOGIN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn port_465_is_checked_over_tls_from_the_first_byte_and_a_login_may_be_auth_login() {
    if !need("low port") {
        return;
    }
    let server = SmtpServer::at((PKI.own_address, 465), login_only(Script::tls())).await;
    let host = PKI.own_address.to_string();
    let main = Provider::tls("main", &host, 465, &PKI.ca_pem).login("mailer", "hunter2");
    let app = Home::new(&[main]).start().await;
    let shown = checked(&app, "main", true).await;
    assert_eq!(shown["security"], "implicit");
    let seen = server.wait_until(is_one_check).await;
    assert!(seen.lines.iter().any(|line| line == "AUTH LOGIN"), "{:?}", seen.lines);
    let id = app.notify(&many(1)).await;
    app.jobs_are(&id, &["delivered"]).await;
    assert!(server.accepted()[0].is_encrypted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_an_ipv6_address_is_checked_and_its_certificate_verified() {
    if !need("ipv6") {
        return;
    }
    let address = (std::net::Ipv6Addr::LOCALHOST, 0);
    let good = SmtpServer::at(address, Script::starttls()).await;
    let wrong = Script::starttls().certificate(Certificate::WrongName);
    let wrong = SmtpServer::at(address, wrong).await;
    let at = |name, server| starttls(name, server).host("::1");
    let app = Home::new(&[at("good", &good), at("wrong", &wrong)]).args(&ONCE).start().await;
    checked(&app, "good", true).await;
    good.wait_until(is_one_check).await;
    let shown = checked(&app, "wrong", false).await;
    assert!(shown["lastError"].to_string().contains("another host name"), "{shown}");
    let id = app.notify(&many(1)).await;
    app.jobs_are(&id, &["delivered"]).await;
    assert!(good.accepted()[0].is_encrypted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_server_is_said_and_it_gets_no_password() {
    let shows = |certificate| Script::starttls().certificate(certificate);
    let table = [
        ("expired", shows(Certificate::Expired), "its certificate has expired"),
        (
            "untrusted",
            shows(Certificate::UnknownCa),
            "its certificate is from an unknown authority",
        ),
        ("misnamed", shows(Certificate::WrongName), "its certificate is for another host name"),
        ("bare", Script::plain(), "the server does not offer STARTTLS"),
        ("away", Script::starttls().on(Verb::Greeting, say("554 5.3.2 no")), "554 5.3.2 no"),
    ];
    let mut servers = Vec::new();
    for (name, script, words) in table {
        servers.push((name, SmtpServer::start(script).await, words));
    }
    let providers: Vec<_> =
        servers.iter().map(|(name, server, _)| starttls(name, server)).collect();
    let app = Home::new(&providers).args(&ONCE).start().await;
    for (name, server, words) in &servers {
        let shown = checked(&app, name, false).await;
        let (ready, healthy) = (condition(&shown, "Ready"), condition(&shown, "Healthy"));
        assert_eq!((&ready["status"], &healthy["status"]), (&json!("False"), &json!("False")));
        assert_eq!(ready["reason"], "HealthCheckFailed", "{name}");
        assert_eq!(healthy["reason"], "Unhealthy", "{name}");
        for message in [&ready["message"], &healthy["message"]] {
            assert!(message.to_string().contains(words), "{name}: {message}");
        }
        assert_eq!(shown["lastHealthCheck"], Value::Null, "only one that passed counts");
        assert_eq!(server.seen().count(Verb::Auth), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_authority_that_is_none_nothing_is_dialled_until_it_is_corrected() {
    let server = SmtpServer::start(Script::starttls()).await;
    let two = format!("# old and new\n{0}\n{0}", PKI.ca_pem);
    let half = format!("{}\n-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----", two);
    let at = |ca: &str| Provider::tls("main", "localhost", server.port(), ca);
    let home = Home::new(&[at(&half)]).args(&ONCE);
    let app = home.start().await;
    let id = app.notify(&many(3)).await;
    app.queue_has("main", "parked", 3).await;
    let shown = checked(&app, "main", false).await;
    let ready = condition(&shown, "Ready");
    assert_eq!(ready["status"], "False");
    assert_eq!(ready["reason"], "InvalidCertificateAuthority");
    assert!(ready["message"].to_string().contains("not a PEM certificate"), "{ready}");
    assert_eq!(server.seen().connections_count, 0);

    home.providers(&[at(&two)]);
    app.jobs_are(&id, &["delivered"]).await;
    assert!(server.accepted().iter().all(|letter| letter.is_encrypted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_is_tried_ever_more_rarely() {
    let locked = SmtpServer::start(refusing_logins(Script::plain())).await;
    let away = SmtpServer::start(Script::plain().on(Verb::Greeting, say("554 no"))).await;
    let providers = [plain("locked", &locked), plain("away", &away)];
    let home = Home::new(&providers).args(&["--unhealthy-interval", "50ms"]);
    let app = home.start().await;
    let shown = checked(&app, "locked", false).await;
    let message = &condition(&shown, "Healthy")["message"];
    assert_eq!(message, "the server refused the login: 535 5.7.8 bad credentials");
    // After the first check the login waits 100, 200, 400, … ms, and the other one 50 each time.
    away.wait_until(|seen| 60 <= seen.connections_count).await;
    let logins_count =
        locked.wait_until(|seen| 3 <= seen.count(Verb::Auth)).await.count(Verb::Auth);
    assert!(logins_count <= 12, "{logins_count} logins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_or_server_is_checked_at_once() {
    let locked = SmtpServer::start(refusing_logins(Script::plain())).await;
    let other = SmtpServer::start(Script::plain()).await;
    let providers = [plain("mended", &locked), plain("moved", &locked), plain("kept", &locked)];
    let home = Home::new(&providers).args(&ONCE);
    let app = home.start().await;
    for name in ["mended", "moved", "kept"] {
        checked(&app, name, false).await;
    }
    locked.follow(Script::plain());
    home.providers(&[
        plain("mended", &locked).login("mailer", "new"),
        plain("moved", &other),
        plain("kept", &locked).retry(5, 10),
    ]);
    checked(&app, "mended", true).await;
    checked(&app, "moved", true).await;
    let kept = app.provider_is("kept", |shown| shown["retry"]["count"] == 5).await;
    assert_eq!(kept["healthy"], false, "neither its password nor its server changed");
    assert_eq!(locked.seen().count(Verb::Auth), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_not_repeated_however_much_mail_comes_and_a_new_password_releases_it() {
    let server = SmtpServer::start(refusing_logins(Script::plain())).await;
    let main = plain("main", &server).retry(3, 10);
    let home = Home::new(std::slice::from_ref(&main)).args(&ONCE);
    let app = home.start().await;
    app.provider_is("main", |shown| shown["healthy"] == false).await;
    let mut ids = vec![app.notify(&many(100)).await];
    app.queue_has("main", "parked", 100).await;
    ids.push(app.notify(&many(100)).await);
    app.queue_has("main", "parked", 200).await;
    assert_eq!(server.seen().count(Verb::Auth), 1, "only the check logged in");
    let told = app.client.get(&format!("/notifications/{}", ids[0])).await;
    let message =
        told["jobs"][0]["attempts"][0]["message"].as_str().expect("an attempt").to_owned();
    assert!(message.starts_with("not tried again yet: the server refused the login: 535"));

    server.follow(Script::plain());
    home.providers(&[main.login("mailer", "new")]);
    for id in &ids {
        app.jobs_are(id, &["delivered"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_at_any_step_is_left_in_time_leaks_nothing_and_delays_no_other() {
    const CHECKS: usize = 12;
    let good = SmtpServer::start(Script::plain()).await;
    let blackhole = Blackhole::start().await;
    let hangs = |verb| Script::plain().on(verb, Action::Hang);
    let table = [
        ("greeting", hangs(Verb::Greeting), "the server sent no greeting within"),
        ("ehlo", hangs(Verb::Ehlo), "the server did not answer EHLO within"),
        ("starttls", Script::starttls().on(Verb::StartTls, Action::Hang), "TLS within"),
        ("handshake", Script::starttls().certificate(Certificate::Hang), "TLS within"),
        ("auth", hangs(Verb::Auth), "the server did not answer AUTH within"),
        ("noop", hangs(Verb::Noop), "the server did not answer NOOP"),
        ("quit", hangs(Verb::Quit), ""),
    ];
    let mut servers = Vec::new();
    let mut providers = vec![plain("good", &good), Provider::plain("connect", blackhole.port)];
    for (name, script, words) in table {
        let server = SmtpServer::start(script).await;
        let is_encrypted = words.starts_with("TLS");
        let provider = if is_encrypted { starttls(name, &server) } else { plain(name, &server) };
        providers.push(provider);
        servers.push((name, server, words));
    }
    let home = Home::new(&providers).args(&["--health-timeout", "300ms"]);
    let home = home.args(&["--health-interval", "50ms", "--unhealthy-interval", "50ms"]);
    let app = home.start().await;
    let says = |name, words: &'static str| {
        app.provider_is(name, move |shown| {
            shown["lastError"].as_str().is_some_and(|said| said.contains(words))
        })
    };
    says("connect", "no connection within 300ms").await;
    for (name, _, words) in &servers {
        match *words {
            "" => drop(checked(&app, name, true).await),
            words => drop(says(*name, words).await),
        }
    }
    let first = app.notify(&many(1)).await;
    app.jobs_are(&first, &["delivered"]).await;
    let files_count = || {
        let path = format!("/proc/{}/fd", app.process.id());
        std::fs::read_dir(path).expect("the files of the server").count()
    };
    let before = files_count();
    for provider in ["good", "connect"].into_iter().chain(servers.iter().map(|(name, ..)| *name)) {
        eventually(&format!("{CHECKS} checks of {provider}"), async || {
            let scrape = Scrape::of(&app.client).await;
            let ended = |result| {
                let labels = [("provider", provider), ("result", result)];
                scrape.count("health_check_total", &labels)
            };
            (CHECKS <= ended("success") + ended("failure")).then_some(())
        })
        .await;
    }
    // Each provider may be checked just now, and the API may have a connection more.
    let allowed = before + providers.len() + 2;
    let after = files_count();
    assert!(after <= allowed, "{after} files are open after {before}");
    for (name, server, _) in &servers {
        // The end of one may be on its way while the next one begins.
        server.wait_until(|seen| seen.open_count <= 1).await;
        assert_eq!(server.seen().count(Verb::Mail), 0, "{name}");
    }
    let second = app.notify(&many(1)).await;
    app.jobs_are(&second, &["delivered"]).await;
    app.stop().await;
}
