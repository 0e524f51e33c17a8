//! Stores of every schema: each opens, says what it said, and goes on in the latest.

use std::path::Path;

use breakglass_mailer::core::job::JobState;
use breakglass_mailer::core::trace::TraceContext;
use breakglass_mailer::queue::store::Store;
use breakglass_mailer::store::{DiskStore, OpenError};

use super::{Disk, accept, copy_folder, filled};

/// A copy of the store that a version left.
fn left_by(version: &str) -> Disk {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures");
    let disk = Disk::new();
    copy_folder(&fixtures.join(version), disk.path());
    disk
}

/// A line for each live job of a store: what a person would look for.
fn summary(store: &DiskStore) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for job in store.live().expect("live jobs") {
        let notification = store.notification(job.notification).expect("a read").expect("known");
        let text = store.content(job.notification).expect("a content").text.unwrap_or_default();
        let (_, attempts) = store.job(job.id).expect("a read").expect("known");
        let state = match job.progress.state {
            JobState::Queued { due } => format!("queued until {}", due.0),
            other => format!("{other:?}"),
        };
        lines.push(format!(
            "{} to {}: {state}, {} attempts, {} bytes of text",
            notification.subject,
            job.recipient,
            attempts.len(),
            text.len()
        ));
    }
    lines.sort();
    lines
}

/// The trace of each live job, and that of its notification, which is the same.
fn traces(store: &DiskStore) -> Vec<String> {
    let mut traces: Vec<String> = Vec::new();
    for job in store.live().expect("live jobs") {
        let notification = store.notification(job.notification).expect("a read").expect("known");
        assert_eq!(notification.trace, job.trace);
        let told = |trace: &TraceContext| format!("{} {}", trace.traceparent(), trace.state());
        traces.push(job.trace.as_deref().map_or("none".to_owned(), told));
    }
    traces.sort();
    traces
}

#[tokio::test]
async fn a_store_that_version_0_1_0_left_after_a_crash_still_opens_and_goes_on() {
    let disk = left_by("v0001-store");
    let (store, opened) = disk.open();
    assert_eq!((opened.created, opened.damage), (false, vec![]));
    insta::assert_debug_snapshot!(summary(&store), @r#"
    [
        "request 0 to r1@example.com: Dead { reason: Deferred, at: Time(3000), detail: \"later\" }, 2 attempts, 350 bytes of text",
        "request 0 to r2@example.com: queued until 1000, 0 attempts, 350 bytes of text",
        "request 1 to r1@example.com: Dead { reason: Deferred, at: Time(3000), detail: \"later\" }, 2 attempts, 350 bytes of text",
        "request 1 to r2@example.com: queued until 1001, 0 attempts, 350 bytes of text",
        "request 2 to r1@example.com: Dead { reason: Deferred, at: Time(3000), detail: \"later\" }, 2 attempts, 350 bytes of text",
        "request 2 to r2@example.com: queued until 1002, 0 attempts, 350 bytes of text",
        "request 300 to r0@example.com: queued until 1300, 0 attempts, 450 bytes of text",
    ]
    "#);
    assert_eq!(traces(&store), vec!["none"; 7]);
    let before = summary(&store);
    let (_, change) = accept(2000, 1);
    store.commit(vec![change]).await.expect("a commit");
    // As a crash leaves it: records of both schemas lie in one segment.
    let crashed = disk.copy();
    drop(store);
    let (again, reopened) = crashed.open();
    assert_eq!(reopened.damage, vec![]);
    let after = summary(&again);
    assert!(before.iter().all(|line| after.contains(line)), "{after:#?}");
    assert_eq!(after.len(), 8);
    let kept = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=1";
    assert_eq!(traces(&again).iter().filter(|trace| *trace == kept).count(), 1);
}

#[tokio::test]
async fn a_store_of_schema_2_opens_with_its_traces() {
    let disk = left_by("v0002-store");
    let (store, opened) = disk.open();
    assert_eq!((opened.created, opened.damage), (false, vec![]));
    insta::assert_debug_snapshot!(summary(&store), @r#"
    [
        "request 1 to ada@example.com: Dead { reason: Unreachable, at: Time(1795635044151), detail: \"connection refused\" }, 1 attempts, 6 bytes of text",
        "request 1 to bob@example.com: Dead { reason: Unreachable, at: Time(1795635044151), detail: \"connection refused\" }, 1 attempts, 6 bytes of text",
        "request 2 to ada@example.com: Dead { reason: Unreachable, at: Time(1795635044167), detail: \"main is unreachable: connection refused\" }, 0 attempts, 6 bytes of text",
    ]
    "#);
    insta::assert_debug_snapshot!(traces(&store), @r#"
    [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-672c0eeecb69b02a-01 vendor=1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-672c0eeecb69b02a-01 vendor=1",
        "00-babeba2def33d82386bce86da76eaceb-8096c32d72cc8a8e-01 ",
    ]
    "#);
}

#[tokio::test]
async fn a_record_of_a_newer_schema_is_refused_and_the_journal_stays_as_it_is() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    filled(&store, 1).await;
    store.close().expect("a clean end");
    drop(store);
    let segment = disk.path().join("journal/0000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("the journal");
    // The first frame is behind the header of the segment; its checksum is over 36 bytes and the
    // record.
    let at = bytes.windows(4).skip(4).position(|four| four == b"BGM\n").expect("a frame") + 4;
    bytes[at + 4] = 3;
    let length = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let record_end = at + 40 + length(at + 8) as usize;
    let checksum = crc32c::crc32c(&bytes[at..at + 36]);
    let checksum = crc32c::crc32c_append(checksum, &bytes[at + 40..record_end]);
    bytes[at + 36..at + 40].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&segment, &bytes).expect("a write");
    assert!(matches!(disk.try_open().err(), Some(OpenError::Newer { schema: 3 })));
    assert!(std::fs::read(&segment).expect("the journal") == bytes);
    assert!(!disk.path().join("aside").exists());
}
