//! The store at its hardest: changes that come while a segment is freed, and ends torn in a content.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use breakglass_mailer::core::job::{JobId, JobState};
use breakglass_mailer::core::notification::Notification;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Change, Store, StoreError};
use breakglass_mailer::store::DiskStore;

use crate::store::{Disk, accept, content, update, written};
use crate::support::{live_jobs, lots, nightly};

/// The end of one job, as the store tells it.
fn end(store: &DiskStore, id: JobId) -> Option<JobState> {
    store.job(id).expect("a read").map(|(job, _)| job.progress.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_comes_while_its_segment_is_freed_is_kept_over_a_crash() {
    let disk = Disk { segment_bytes_max: 2_000, ..Disk::new() };
    let (store, _) = disk.open();
    let mut lots = lots();
    let mut expected: Vec<(JobId, Option<JobState>)> = Vec::new();
    let mut open: Vec<JobId> = Vec::new();
    for round in 0..400u32 {
        let (notification, change) = accept(round, 2);
        store.commit(vec![change]).await.expect("a commit");
        open.extend(notification.jobs.iter().map(|(id, _)| *id));
        // Some jobs move on now, some much later: when their segment is the oldest.
        while open.len() > 40 {
            let id = open.swap_remove(lots.usize(..open.len()));
            let state = match lots.u8(..3) {
                0 => JobState::Delivered { at: Time(u64::from(round)) },
                1 => JobState::Cancelled { at: Time(u64::from(round)) },
                _ => JobState::Queued { due: Time(u64::from(round)) },
            };
            store.commit(vec![update(id, state.clone(), 1)]).await.expect("a commit");
            if lots.bool() && !matches!(state, JobState::Queued { .. }) {
                store.commit(vec![Change::ForgetJob(id)]).await.expect("a commit");
                expected.push((id, None));
            } else {
                expected.push((id, Some(state)));
            }
        }
    }
    for (id, state) in &expected {
        assert_eq!(&end(&store, *id), state);
    }
    let segments = fs::read_dir(disk.path().join("journal")).expect("a folder").count();
    assert!(segments < 300, "{segments} segments: none was freed");
    // Closed, so that the copy is of one moment; without its note it is as after a crash.
    store.close().expect("a clean end");
    let crashed = disk.copy();
    fs::remove_file(crashed.path().join("index.clean")).expect("the note of a clean end");
    let (again, opened) = crashed.open();
    assert_eq!(opened.damage, vec![]);
    assert!(opened.rebuilt.is_some());
    for (id, state) in &expected {
        assert_eq!(&end(&again, *id), state, "job {id}");
    }
    for id in &open {
        assert!(matches!(end(&again, *id), Some(JobState::Queued { .. })), "job {id}");
    }
}

#[tokio::test]
async fn an_end_torn_in_a_content_was_never_accepted_and_its_key_is_free() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let (kept, change) = accept(1, 1);
    store.commit(vec![change]).await.expect("a commit");
    let (torn, change) = accept(2, 1);
    store.commit(vec![change]).await.expect("a commit");
    let crashed = disk.copy();
    let segment = crashed.path().join("journal/0000000001.seg");
    let mut bytes = written(&segment);
    let length = bytes.len();
    bytes[length - 100..].fill(0);
    fs::write(&segment, bytes).expect("a write");

    let (again, opened) = crashed.open();
    assert_eq!(opened.damage, vec![]);
    assert!(again.notification(kept.id).expect("a read").is_some());
    assert_eq!(again.notification(torn.id).expect("a read"), None);
    assert_eq!(again.accepted_under("key 2").expect("a read"), None);
}

#[tokio::test]
async fn a_first_start_cut_short_before_its_journal_began_is_begun_again() {
    for bytes in [0, 36] {
        let disk = Disk::new();
        fs::create_dir(disk.path().join("journal")).expect("a folder");
        let segment = disk.path().join("journal/0000000001.seg");
        fs::write(segment, vec![0; bytes]).expect("a write");
        let (store, opened) = disk.open();
        assert!(opened.created);
        assert_eq!(opened.damage, vec![]);
        let (kept, change) = accept(1, 1);
        store.commit(vec![change]).await.expect("a commit");
        store.close().expect("a clean end");
        drop(store);
        let (again, _) = disk.open();
        assert!(again.notification(kept.id).expect("a read").is_some());
    }
}

#[tokio::test]
async fn damage_in_the_middle_of_a_batch_costs_nothing_behind_it() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    // One commit is one batch: its frames all say the same of what was synced before.
    let (mut batch, changes): (Vec<_>, Vec<_>) = (11..14).map(|n| accept(n, 1)).unzip();
    store.commit(changes).await.expect("a commit");
    let (later, change) = accept(14, 1);
    store.commit(vec![change]).await.expect("a commit");
    batch.push(later);

    for (marker, is_content) in [("request 11", false), ("text 11 ", true)] {
        let crashed = disk.copy();
        let segment = crashed.path().join("journal/0000000001.seg");
        let mut bytes = fs::read(&segment).expect("the journal");
        let mut found = bytes.windows(marker.len()).position(|bytes| bytes == marker.as_bytes());
        bytes[found.take().expect("it is there")] ^= 1;
        fs::write(&segment, bytes).expect("a write");

        let (again, opened) = crashed.open();
        assert_eq!(opened.damage.len(), 1, "{marker}: {:?}", opened.damage);
        for (number, notification) in batch.iter().enumerate() {
            let is_damaged = number == 0;
            let known = again.notification(notification.id).expect("a read").is_some();
            assert_eq!(known, !is_damaged || is_content, "{marker}, {number}");
            assert_eq!(again.content(notification.id).is_ok(), !is_damaged, "{marker}, {number}");
        }
    }
}

#[tokio::test]
async fn a_damaged_content_is_set_aside_and_its_job_is_kept() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let (damaged, change) = accept(1, 1);
    store.commit(vec![change]).await.expect("a commit");
    let (sound, change) = accept(2, 1);
    store.commit(vec![change]).await.expect("a commit");
    store.close().expect("a clean end");
    drop(store);
    let segment = disk.path().join("journal/0000000001.seg");
    let mut bytes = fs::read(&segment).expect("the journal");
    let at = bytes.windows(7).position(|bytes| bytes == b"text 1 ").expect("its content");
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).expect("a write");

    let (again, opened) = disk.open();
    assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
    let aside = fs::read_dir(disk.path().join("aside")).expect("a folder");
    let kept: Vec<Vec<u8>> =
        aside.map(|entry| fs::read(entry.expect("an entry").path()).expect("a file")).collect();
    assert!(kept.iter().any(|kept| kept.windows(6).any(|bytes| bytes == b"ext 1 ")));
    assert!(matches!(again.content(damaged.id), Err(StoreError::Unreadable(_))));
    assert!(again.content(sound.id).is_ok());
    assert_eq!(live_jobs(&*again).len(), 2);
    // What can be read leaves the damaged segment, which then goes.
    again.close().expect("a clean end");
    let again: Arc<DiskStore> = {
        drop(again);
        disk.open().0
    };
    assert!(again.content(sound.id).is_ok());
    assert_eq!(live_jobs(&*again).len(), 2);
}

#[tokio::test]
async fn a_record_that_is_damaged_under_an_open_store_takes_no_job_with_it() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let (damaged, change) = accept(1, 2);
    store.commit(vec![change]).await.expect("a commit");
    let segment = disk.path().join("journal/0000000001.seg");
    let bytes = fs::read(&segment).expect("the journal");
    let at = bytes.windows(9).position(|bytes| bytes == b"request 1").expect("its subject");
    let file = fs::OpenOptions::new().write(true).open(&segment).expect("the journal");
    file.write_all_at(b"R", at as u64).expect("a write");

    let known = Notification { subject: String::new(), warnings: Vec::new(), ..damaged.clone() };
    assert_eq!(store.notification(damaged.id).expect("a read"), Some(known.clone()));
    assert_eq!(store.content(damaged.id).expect("it is sound"), content(1));
    // It is carried forward like all others.
    for number in 2.. {
        let (notification, change) = accept(number, 1);
        let (job, _) = notification.jobs[0];
        let delivered = update(job, JobState::Delivered { at: Time(3_000) }, 1);
        store.commit(vec![change]).await.expect("a commit");
        store.commit(vec![delivered]).await.expect("a commit");
        if !segment.exists() {
            break;
        }
        assert!(number < 5_000, "its segment is not freed");
    }
    store.close().expect("a clean end");
    drop(store);
    fs::remove_file(disk.path().join("index.clean")).expect("it was closed");
    let (again, opened) = disk.open();
    assert_eq!(opened.damage, []);
    assert_eq!(again.notification(damaged.id).expect("a read"), Some(known));
    assert_eq!(again.content(damaged.id).expect("it is sound"), content(1));
    assert_eq!(live_jobs(&*again).len(), 2);
}

/// Records that carry a notification forward race with those that forget it. The index that is made
/// from what is left must know of none that was forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_while_its_segment_was_freed_does_not_come_back() {
    let disk = Disk { segment_bytes_max: 1_000, ..Disk::new() };
    let (store, _) = disk.open();
    let rounds = if nightly() { 3_000 } else { 400 };
    let churn = async |callers: u32| {
        let mut waiting = std::collections::VecDeque::new();
        for round in 0..rounds {
            let (notification, change) = accept(round * 8 + callers, 1);
            let id = notification.jobs[0].0;
            let end = update(id, JobState::Delivered { at: Time(1) }, 1);
            store.commit(vec![change, end]).await.expect("a commit");
            waiting.push_back(notification);
            // By then its segment is about to be the oldest.
            if waiting.len() > 3 {
                forget(&store, waiting.pop_front()).await;
            }
        }
        while !waiting.is_empty() {
            forget(&store, waiting.pop_front()).await;
        }
    };
    tokio::join!(churn(0), churn(1), churn(2), churn(3));
    store.close().expect("a clean end");
    fs::remove_file(disk.path().join("index.clean")).expect("the note of a clean end");
    drop(store);
    let (again, opened) = disk.open();
    assert!(opened.rebuilt.is_some());
    let back = again.jobs(None, 100, &|_| true).expect("a read").items;
    assert_eq!(back, [], "{} jobs came back", back.len());
    assert_eq!(again.keys_before(Time(u64::MAX), 100).expect("a read"), [], "keys came back");
}

async fn forget(store: &DiskStore, notification: Option<Notification>) {
    let Some(notification) = notification else { return };
    let mut changes: Vec<_> =
        notification.jobs.iter().map(|(id, _)| Change::ForgetJob(*id)).collect();
    changes.push(Change::ForgetKey(notification.id));
    store.commit(changes).await.expect("a commit");
}
