//! A full volume: new mail is refused, delivery goes on, and with room again everything works
//! without a person's hand, also for a server that starts on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use breakglass_mailer::queue::store::{Store, StoreError};
use breakglass_mailer::store::{DiskStore, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::store::accept;
use crate::support::app::{App, Home, Provider};
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::{eventually, within};

/// A small volume of its own.
struct Volume {
    folder: TempDir,
}

impl Volume {
    fn mount(size: &str) -> Option<Self> {
        if !need("tmpfs") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        assert!(mount.status().expect("mount runs").success(), "a tmpfs can be mounted");
        Some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all room that is left; somebody else's file.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("somebody-else");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn post(number: usize) -> Value {
    json!({
        "recipients": [format!("r{number}@example.com")],
        "subject": format!("post {number}"),
        "text": "Please look. ".repeat(2_000),
    })
}

#[tokio::test]
async fn a_segment_has_its_room_at_once_and_gives_it_back_where_the_volume_gets_full() {
    const SEGMENT_BYTES: u64 = 256 << 10;
    let Some(volume) = Volume::mount("32m") else { return };
    let mut options = Options::new(&volume.path().join("store"));
    options.segment_bytes_max = SEGMENT_BYTES;
    let (store, _) = DiskStore::open(options).expect("the store opens");
    let second = volume.path().join("store/journal/0000000002.seg");
    let mut number = 0;
    while !second.exists() {
        number += 1;
        store.commit(vec![accept(number, 1).1]).await.expect("there is room");
    }
    let taken = || {
        let file = second.metadata().expect("the second segment");
        (file.len(), 512 * file.blocks())
    };
    assert_eq!(taken(), (SEGMENT_BYTES, SEGMENT_BYTES), "its length, and its room on the volume");

    volume.fill();
    let refused = store.commit(vec![accept(number + 1, 1).1]).await;
    assert_eq!(refused, Err(StoreError::NoSpace));
    let (length, room) = taken();
    assert!(length < SEGMENT_BYTES / 8, "{length} bytes");
    assert!(room < length + SEGMENT_BYTES / 8, "{length} of {room} bytes");
    store.close().expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_refuses_new_mail_delivers_the_rest_and_recovers_by_itself() {
    let Some(volume) = Volume::mount("24m") else { return };
    let mut sink = Sink::start();
    sink.close().await;
    let provider = Provider::plain("sink", sink.port);
    let home = Home::at(volume.path().join("data"), &[provider]).args(&[
        "--unhealthy-interval",
        "1s",
        "--max-connections",
        "2",
    ]);
    let app = home.start().await;

    let mut accepted = BTreeSet::new();
    let refused = loop {
        let answer = app.client.notify(&post(accepted.len()), None).await.expect("an answer");
        if answer.status != 202 {
            break answer;
        }
        accepted.insert(format!("r{}@example.com", accepted.len()));
    };
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.json()["type"].as_str().expect("a type").ends_with("/store-unavailable"));
    assert!(100 < accepted.len(), "the volume took only {} posts", accepted.len());

    // Somebody else takes even the reserve, and the server comes back: nothing can be recorded.
    let filler = volume.fill();
    sink.open();
    eventually("the check finds the server again", async || {
        (app.client.get("/queue").await["providers"][0]["healthy"] == true).then_some(())
    })
    .await;
    let refused = app.client.notify(&post(0), None).await.expect("an answer");
    assert_eq!(refused.status, 503);

    std::fs::remove_file(filler).expect("room again");
    eventually("everything accepted is delivered", async || {
        let queue = app.client.get("/queue").await;
        (queue["depth"] == 0).then_some(())
    })
    .await;
    eventually("a post with a key is accepted, so the index is whole", async || {
        let answer = app.client.notify(&post(1), Some("key")).await.ok()?;
        (answer.status == 202).then_some(())
    })
    .await;
    eventually("jobs can be listed", async || {
        let answer = app.client.get("/jobs?limit=1").await;
        (answer["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let delivered: BTreeSet<String> = sink.letters().into_iter().map(|l| l.recipient).collect();
    assert!(accepted.is_subset(&delivered), "lost: {:?}", accepted.difference(&delivered));
    assert!(sink.letters().len() <= accepted.len() + 1, "nothing was sent twice");
    assert!(!app.process.log().contains("a panic"), "{}", app.process.log());
    app.stop().await;
}

/// How soon new mail is taken again once there is room.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(30);

/// How a server ended before the volume was full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Cleanly,
    Killed,
}

/// Waits until everything is sent; a server without its index can still tell how much it has.
async fn sent_once(app: &App, sink: &Sink, accepted: &BTreeSet<String>) {
    app.drained().await;
    let letters = sink.letters();
    let sent: BTreeSet<String> = letters.iter().map(|letter| letter.recipient.clone()).collect();
    assert_eq!(accepted.difference(&sent).count(), 0, "lost");
    assert_eq!(letters.len(), accepted.len(), "nothing was sent twice");
}

/// Queues `jobs_count` jobs for a provider that is away, fills the volume, and starts on it.
async fn start_on_a_full_volume(size: &str, jobs_count: usize, ended: Ended) {
    let Some(volume) = Volume::mount(size) else { return };
    let mut sink = Sink::start();
    sink.close().await;
    let provider = Provider::plain("sink", sink.port);
    let home = Home::at(volume.path().join("data"), &[provider]).args(&[
        "--unhealthy-interval",
        "1s",
        "--max-connections",
        "8",
    ]);
    let mut app = home.start().await;
    let mut accepted = BTreeSet::new();
    for n in 0..jobs_count / 100 {
        let to: Vec<String> = (0..100).map(|m| format!("to-{n}-{m}@example.com")).collect();
        let post = json!({"recipients": to, "subject": "s", "text": "Please look. ".repeat(100)});
        app.notify(&post).await;
        accepted.extend(to);
    }
    app.queue_has("sink", "parked", accepted.len()).await;
    match ended {
        Ended::Cleanly => app.stop().await,
        Ended::Killed => app.process.kill9(),
    }

    let filler = volume.fill();
    sink.open();
    let app = home.start().await;
    let refused = app.client.notify(&post(0), None).await.expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.json()["type"].as_str().expect("a type").ends_with("/store-unavailable"));
    sent_once(&app, &sink, &accepted).await;
    let refused = app.client.notify(&post(0), None).await.expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.body);

    // What was sent is recorded: it is not sent again by the next one, which starts on it too.
    app.stop().await;
    let app = home.start().await;
    sent_once(&app, &sink, &accepted).await;

    std::fs::remove_file(filler).expect("room again");
    within(RECOVERY_TIME_MAX, "a post with a key is accepted, so the index is whole", async || {
        let answer = app.client.notify(&post(1), Some("key")).await.expect("an answer");
        (answer.status == 202).then_some(())
    })
    .await;
    accepted.insert("r1@example.com".to_owned());
    sent_once(&app, &sink, &accepted).await;
    assert!(home.data().join("reserve").exists(), "for the next time");
    assert!(!app.process.log().contains("panicked at"), "{}", app.process.log());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_volume_after_a_clean_stop_delivers_and_recovers_by_itself() {
    start_on_a_full_volume("64m", 400, Ended::Cleanly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_volume_after_a_kill_delivers_five_thousand_jobs_and_recovers_by_itself()
{
    start_on_a_full_volume("96m", 5_000, Ended::Killed).await;
}
