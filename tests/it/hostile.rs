//! Mail servers at their worst beside one that is well, and the real process between them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::app::{App, Home, Provider};
use crate::support::smtp::{Action, Certificate, Mode, PKI, Script, SmtpServer, Verb, say};
use crate::support::wait::eventually;

/// Longer than a message takes on a busy machine, and shorter than the deadlines that the servers
/// below let pass, which begin at 15 s.
const DELIVERY_MAX: Duration = Duration::from_secs(12);
const MEMORY_KIB_MAX: usize = 16 * 1024;
const FLOOD_BYTES: usize = 400 << 20;
/// Enough for all connections to a provider.
const JOBS_COUNT: usize = 8;

/// Those that hold what they have got, up to its deadline.
fn holding() -> [(&'static str, Script); 6] {
    let drip = |bytes: &[u8]| Action::Drip(bytes.to_vec(), Duration::from_millis(200));
    [
        ("silent", Script::plain().on(Verb::Greeting, Action::Hang)),
        ("dripping", Script::plain().on(Verb::Greeting, drip(b"2"))),
        ("rambling", Script::plain().on(Verb::Ehlo, drip(b"250-x\r\n"))),
        ("deaf", Script::starttls().certificate(Certificate::Hang)),
        ("thinking", Script::starttls().on(Verb::Auth, Action::Hang)),
        ("forgetful", Script::plain().on(Verb::Dot, Action::Hang)),
    ]
}

/// Those that fail at once.
fn failing() -> [(&'static str, Script); 10] {
    let flood = |bytes: &[u8]| Action::Flood(bytes.to_vec(), FLOOD_BYTES);
    [
        ("flooding", Script::plain().on(Verb::Greeting, flood(b"2"))),
        ("endless", Script::plain().on(Verb::Ehlo, flood(b"250-x\r\n"))),
        ("overflowing", Script::plain().on(Verb::Dot, flood(b"250-x\r\n"))),
        ("secure-flood", Script::starttls().on(Verb::Mail, flood(b"x"))),
        ("closing", Script::plain().on(Verb::Greeting, Action::Close(Vec::new()))),
        ("resetting", Script::plain().on(Verb::Rcpt, Action::Reset(Vec::new()))),
        ("leaving", Script::plain().on(Verb::Mail, say("421 4.3.2 shutting down"))),
        ("babbling", Script::plain().on(Verb::Data, say("what?"))),
        ("injecting", Script::starttls().on(Verb::StartTls, say("220 go\r\n250 AUTH\r\n235 ok"))),
        ("untrusted", Script::starttls().certificate(Certificate::UnknownCa)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_servers_delay_no_mail_of_another_take_none_and_fill_no_memory() {
    let well = SmtpServer::start(Script::plain()).await;
    let mut providers = vec![Provider::plain("well", well.port())];
    let mut hostile = Vec::new();
    let failing = failing();
    let failing_names = failing.clone().map(|(name, _)| name);
    for (name, script) in failing.into_iter().chain(holding()) {
        let mode = script.mode();
        let server = SmtpServer::start(script).await;
        let port = server.port();
        providers.push(match mode {
            Mode::Plain => Provider::plain(name, port),
            _ => Provider::tls(name, "localhost", port, &PKI.ca_pem).login("mailer", "a password"),
        });
        hostile.push((name, server));
    }
    let app = Home::new(&providers).start().await;
    let memory = memory_kib(&app, "VmRSS");

    let mut given = Vec::new();
    for (name, _) in &hostile {
        let to: Vec<_> = (0..JOBS_COUNT).map(|n| format!("to-{n}@example.com")).collect();
        let body =
            json!({"recipients": to, "subject": "s", "text": "t\n.\nt", "mailProvider": name});
        given.push((*name, app.notify(&body).await));
    }
    for _ in 0..20 {
        let begin = Instant::now();
        let body = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
        let id = app.notify(&body).await;
        app.jobs_are(&id, &["delivered"]).await;
        assert!(begin.elapsed() < DELIVERY_MAX, "it took {:?}", begin.elapsed());
    }

    // What has failed goes out by the default provider.
    for (name, id) in &given {
        if failing_names.contains(name) {
            let found = app.jobs_are(id, &["delivered"]).await;
            assert_eq!(found["jobs"][0]["provider"], "well", "{name}: {found}");
        }
    }
    for (name, server) in &hostile {
        let met = format!("{name} was met");
        eventually(&met, async || (server.seen().connections_count > 0).then_some(())).await;
        assert_eq!(server.accepted().len(), 0, "{name}");
    }
    let grown = memory_kib(&app, "VmHWM").saturating_sub(memory);
    assert!(grown < MEMORY_KIB_MAX, "{grown} KiB more");
    app.client.get("/livez").await;
    assert!(!app.process.log().contains("panicked"), "{}", app.process.log());
}

/// A line of `/proc/PID/status`.
fn memory_kib(app: &App, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process.id()))
        .expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {status}"))
}
