//! schemathesis reads the document and attacks the API with what it says and with what it does not.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::support::app::{App, Home, Provider};
use crate::support::metrics::Scrape;
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;
use crate::support::{lots, need, nightly, schemathesis_path};

/// Beyond its own time limit schemathesis ends what it is at, and tells.
const END_TIME_MAX: Duration = Duration::from_secs(120);

#[tokio::test]
async fn schemathesis_finds_no_fault_without_authentication() {
    attack(&["--auth", "none"], None).await;
}

#[tokio::test]
async fn schemathesis_finds_no_fault_with_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    let token = "fuzz-0123456789abcdef0123456789abcdef";
    std::fs::write(&file, token).expect("write the token");
    let file = file.to_str().expect("UTF-8");
    attack(&["--auth", "token", "--token-file", file], Some(token)).await;
}

/// Runs schemathesis against a server whose mail is partly refused, so that every kind of answer can
/// come; then the server has logged no error, and no mail waits.
async fn attack(auth: &[&str], token: Option<&str>) {
    if !need("schemathesis") {
        return;
    }
    let sink = Sink::with(|moment| match moment {
        Moment::Recipient(address) if address.contains('1') => Act::Say("550 5.1.1 no such user"),
        _ => Act::Accept,
    });
    // The name in the examples of the document.
    let home = Home::new(&[Provider::plain("urgent-mail", sink.port)]).args(auth);
    let app = home.start().await;
    let time = if nightly() { 600 } else { 25 };
    let mut command = Command::new("python3");
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", app.client.url()), "--no-color"])
        // A finding can be repeated only with the header that it names; the token is of no worth.
        .args(["--output-sanitize", "false"])
        .args(["--max-time", &time.to_string(), "--seed", &lots().u64(..).to_string()])
        .env("PYTHONPATH", schemathesis_path())
        // It keeps what it found and generated in its folder.
        .current_dir(home.path("."))
        .kill_on_drop(true);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let limit = Duration::from_secs(time) + END_TIME_MAX;
    let ran = tokio::time::timeout(limit, command.output()).await.expect("it ends");
    let ran = ran.expect("python3 runs");
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}\n{said}", ran.status);
    check_afterwards(&app).await;
}

/// Nothing went wrong inside, and no mail waits for ever.
async fn check_afterwards(app: &App) {
    let log = app.process.log();
    let errors: Vec<&str> =
        log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    eventually("every job is at its end", async || {
        let scrape = Scrape::of(&app.client).await;
        let depth = |state| {
            let labels = [("provider", "urgent-mail"), ("state", state)];
            scrape.count("queue_depth", &labels)
        };
        (["ready", "scheduled", "inFlight"].map(depth) == [0; 3]).then_some(())
    })
    .await;
}
