//! Callers that misbehave cost the others nothing: the real binary under slow, idle, flooding and
//! greedy callers, with little memory and few file descriptors.
//!
//! With `BREAKGLASS_MAILER_TEST_NIGHTLY=1` the memory is held against 10,000 jobs instead of 1,000.

mod few_files;
mod floods;
mod memory;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::app::App;
use crate::support::client::Client;

/// A good request is answered within this, whatever others do.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

fn note() -> Value {
    json!({"recipients": ["a@example.com"], "subject": "x", "text": "y"})
}

/// Posts one notification over a connection of its own and holds the answer against the limit.
async fn post_in_time(app: &App) {
    let begun = Instant::now();
    let address = app.client.url().trim_start_matches("http://").to_owned();
    Client::new(&address).accepted(&note()).await;
    assert!(begun.elapsed() < ANSWER_TIME_MAX, "answered after {:?}", begun.elapsed());
}

/// Opens a connection and sends `bytes`.
async fn open(app: &App, bytes: &[u8]) -> TcpStream {
    let address = app.client.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("open");
    stream
}

/// A line of `/proc/PID/status`, in KiB.
fn memory_kib(app: &App, name: &str) -> u64 {
    let path = format!("/proc/{}/status", app.process.id());
    let status = std::fs::read_to_string(path).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in:\n{status}"))
}

/// How many file descriptors the server has open.
fn descriptors(app: &App) -> usize {
    let folder = format!("/proc/{}/fd", app.process.id());
    std::fs::read_dir(folder).expect("the server runs").count()
}
