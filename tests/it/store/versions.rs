//! Stores of other versions: an older one opens and goes on, a newer one is refused.

use std::fs;
use std::path::Path;

use breakglass_mailer::core::job::JobState;
use breakglass_mailer::core::trace::TraceContext;
use breakglass_mailer::queue::store::Store;
use breakglass_mailer::store::DiskStore;

use super::{Disk, accept, copy_folder, dead, filled, update};
use crate::support::image::Image;
use crate::support::live_jobs;

/// A line for each live job of a store: what a person would look for.
fn summary(store: &DiskStore) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for job in live_jobs(store) {
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
    for job in live_jobs(store) {
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
    let disk = Disk::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures/v0001-store");
    copy_folder(&fixture, disk.path());
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
    let (notification, change) = accept(400, 1);
    let id = notification.jobs[0].0;
    store.commit(vec![change, update(id, dead(), 1)]).await.expect("a commit");
    store.close().expect("a clean end");
    drop(store);
    let (again, opened) = disk.open();
    assert_eq!((opened.rebuilt, opened.damage), (None, vec![]));
    assert!(
        matches!(again.job(id).expect("a read"), Some((job, _)) if job.progress.state == dead())
    );
    let rest: Vec<_> =
        summary(&again).into_iter().filter(|line| !line.starts_with("request 400 ")).collect();
    assert_eq!(rest, before);
    // Nothing of the old version was rewritten, so there is nothing to keep a copy of.
    for entry in fs::read_dir(fixture.join("journal")).expect("a folder") {
        let old = entry.expect("an entry").path();
        let now = disk.path().join("journal").join(old.file_name().expect("a name"));
        let (old, now) =
            (fs::read(old).expect("a file"), fs::read(now).expect("it is there still"));
        assert!(now.starts_with(&old), "something was rewritten");
    }
}

#[tokio::test]
async fn a_store_of_schema_2_opens_with_its_traces() {
    let disk = Disk::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures/v0002-store");
    copy_folder(&fixture, disk.path());
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
async fn whatever_a_newer_version_wrote_is_refused_and_left_as_it_is() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    filled(&store, 1).await;
    store.close().expect("a clean end");
    drop(store);
    let whole = Image::read(disk.path()).expect("read the store");
    let checksum = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();

    // Each names its schema in two bytes before which its checksum has no say.
    let mut identity = whole.files[Path::new("identity")].clone();
    identity[..2].copy_from_slice(&3u16.to_le_bytes());
    let body = identity.len() - 4;
    let sum = checksum(&identity[..body]);
    identity[body..].copy_from_slice(&sum);

    let segment = Path::new("journal/0000000001.seg");
    let mut record = whole.files[segment].clone();
    let frame = &mut record[36..];
    frame[4..6].copy_from_slice(&3u16.to_le_bytes());
    let record_bytes = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]) as usize;
    let signed = [&frame[..36], &frame[40..40 + record_bytes]].concat();
    frame[36..40].copy_from_slice(&checksum(&signed));

    for (path, newer) in [(Path::new("identity"), identity), (segment, record)] {
        let mut image = whole.clone();
        image.files.insert(path.to_owned(), newer);
        let disk = Disk::new();
        image.write(disk.path()).expect("write the store");
        let refused = disk.try_open().err().expect("it is newer").to_string();
        assert!(refused.starts_with("the store has schema 3"), "{refused}");
        assert!(refused.contains("start the newer program"), "{refused}");
        let mut after = Image::read(disk.path()).expect("read the store");
        for files in [&mut image.files, &mut after.files] {
            files.remove(Path::new("lock"));
        }
        assert!(after == image, "something was changed");
    }
}
