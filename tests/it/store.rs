//! The store: what was committed is there again, however the process ended.

mod versions;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::{
    Attempt, AttemptOutcome, DeadReason, Job, JobId, JobState, Progress,
};
use breakglass_mailer::core::notification::{Address, Content, Notification, NotificationId};
use breakglass_mailer::core::outcome::{Reply, Stage};
use breakglass_mailer::core::provider::ProviderName;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::core::trace::TraceContext;
use breakglass_mailer::queue::store::{Change, IdempotencyKey, Store, StoreError};
use breakglass_mailer::store::{DiskStore, OpenError, Opened, Options, verify};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::live_jobs;

pub(crate) struct Disk {
    pub(crate) folder: TempDir,
    pub(crate) segment_bytes_max: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self { folder, segment_bytes_max: 64 << 10 }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn try_open(&self) -> Result<(Arc<DiskStore>, Opened), OpenError> {
        let mut options = Options::new(self.path());
        options.segment_bytes_max = self.segment_bytes_max;
        options.slack_bytes = self.segment_bytes_max;
        DiskStore::open(options)
    }

    pub(crate) fn open(&self) -> (Arc<DiskStore>, Opened) {
        self.try_open().expect("the store opens")
    }

    /// The folder as a crash at this moment would leave it.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_folder(self.path(), copy.path());
        copy
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// What was written to a segment, without the zeros behind it.
pub(crate) fn written(segment: &Path) -> Vec<u8> {
    let mut bytes = fs::read(segment).expect("the journal");
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

pub(crate) fn chain(names: &[&str]) -> Arc<[ProviderName]> {
    names.iter().map(|name| ProviderName::new(name).expect("a name")).collect()
}

pub(crate) fn content(number: u32) -> Content {
    Content {
        subject: format!("request {number}"),
        html: None,
        text: Some(format!("text {number} ").repeat(50)),
        reply_to: Some(Address::parse("security@example.com").expect("valid")),
    }
}

/// Where a caller stands in a trace of its own.
fn trace() -> Arc<TraceContext> {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Arc::new(TraceContext::parse(parent, "vendor=1").expect("it is valid"))
}

pub(crate) fn accept(number: u32, recipients_count: u32) -> (Notification, Change) {
    let to = |n| Address::parse(&format!("r{n}@example.com")).expect("valid");
    let notification = Notification {
        id: NotificationId(Uuid::now_v7()),
        subject: format!("request {number}"),
        accepted_at: Time(1_000 + u64::from(number)),
        expires_at: None,
        chain: chain(&["a", "b"]),
        warnings: vec!["escalation x does not exist".into()],
        jobs: (0..recipients_count).map(|n| (JobId(Uuid::now_v7()), to(n))).collect(),
        trace: number.is_multiple_of(2).then(trace),
    };
    let key = IdempotencyKey { key: format!("key {number}"), fingerprint: [7; 32] };
    let change = Change::Accept {
        notification: notification.clone(),
        content: content(number),
        deadline: Time(99_000),
        key: number.is_multiple_of(2).then_some(key),
    };
    (notification, change)
}

pub(crate) fn update(id: JobId, state: JobState, number: u32) -> Change {
    let progress = Progress {
        state,
        attempts_all: number,
        attempts_here: 1,
        position: 1,
        ..Progress::fresh(chain(&["a", "b"]), Time(5), Time(99_000))
    };
    let attempt = Attempt {
        number,
        at: Time(2_000),
        provider: ProviderName::new("b").expect("a name"),
        stage: Stage::Rcpt,
        outcome: AttemptOutcome::Deferred,
        reply: Some(Reply::new(450, Some([4, 2, 1]), "later".into())),
        message: "the server put the recipient off: 450 4.2.1 later".into(),
        duration: Duration::from_millis(12),
    };
    Change::Update { job: id, progress, attempt: Some(attempt) }
}

fn dead() -> JobState {
    JobState::Dead { reason: DeadReason::Deferred, at: Time(3_000), detail: "later".into() }
}

/// Everything that the store tells of these notifications.
pub(crate) fn told(store: &DiskStore, notifications: &[Notification]) -> String {
    let mut live: Vec<Job> = live_jobs(store);
    live.sort_by_key(|job| job.id);
    let mut told = format!("{live:#?}");
    for notification in notifications {
        told += &format!("{:?}", store.notification(notification.id).expect("a read"));
        told += &format!("{:?}", store.content(notification.id).map(|c| (c.subject, c.text)).ok());
        for (id, _) in &notification.jobs {
            told += &format!("{:?}", store.job(*id).expect("a read"));
        }
    }
    told + &format!("{:?}", store.accepted_under("key 2").expect("a read"))
}

async fn filled(store: &DiskStore, count: u32) -> Vec<Notification> {
    let mut notifications = Vec::new();
    for number in 0..count {
        let (notification, change) = accept(number, 3);
        store.commit(vec![change]).await.expect("a commit");
        let [(first, _), (second, _), _] = notification.jobs[..] else { panic!("three jobs") };
        let delivered = JobState::Delivered { at: Time(4_000) };
        store.commit(vec![update(first, delivered, 1)]).await.expect("a commit");
        let changes = vec![
            update(second, JobState::Queued { due: Time(7_000) }, 1),
            update(second, dead(), 2),
        ];
        store.commit(changes).await.expect("a commit");
        notifications.push(notification);
    }
    notifications
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_clean_end_and_after_a_crash() {
    let disk = Disk::new();
    let (store, opened) = disk.open();
    assert!(opened.created);
    let notifications = filled(&store, 5).await;
    let before = told(&store, &notifications);

    let crashed = disk.copy();
    let (again, opened) = crashed.open();
    assert_eq!((opened.created, opened.rebuilt.is_some(), opened.damage), (false, true, vec![]));
    assert_eq!(told(&again, &notifications), before);

    store.close().expect("a clean end");
    drop(store);
    let (again, opened) = disk.open();
    assert_eq!((opened.created, opened.rebuilt, opened.damage), (false, None, vec![]));
    assert_eq!(told(&again, &notifications), before);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_writing_goes_on_behind_it() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let notifications = filled(&store, 2).await;
    let before = told(&store, &notifications);
    let (_, unanswered) = accept(9, 1);
    store.commit(vec![unanswered]).await.expect("a commit");

    let segment = "journal/0000000001.seg";
    let whole = written(&disk.path().join(segment));
    for cut in [1, 30, 200] {
        let crashed = disk.copy();
        fs::write(crashed.path().join(segment), &whole[..whole.len() - cut]).expect("a write");
        let (again, opened) = crashed.open();
        assert_eq!(opened.damage, vec![], "cut by {cut}");
        assert_eq!(told(&again, &notifications), before, "cut by {cut}");
        let (_, change) = accept(10, 1);
        again.commit(vec![change]).await.expect("a commit behind the cut");
        again.close().expect("a clean end");
    }
}

#[tokio::test]
async fn room_behind_the_end_is_no_damage_and_a_missing_record_is_no_room() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let notifications = filled(&store, 2).await;
    let first = Path::new("journal/0000000001.seg");
    let bytes_of = |disk: &Disk| disk.path().join(first).metadata().expect("the segment").len();

    let room = bytes_of(&disk);
    let (_, change) = accept(9, 1);
    store.commit(vec![change]).await.expect("a commit");
    assert_eq!(bytes_of(&disk), room, "a small commit changes bytes alone");
    let before = told(&store, &notifications);
    let crashed = disk.copy();
    assert!(verify(crashed.path()).expect("it is read").is_whole());
    let (again, opened) = crashed.open();
    assert_eq!(opened.damage, vec![]);
    assert!(told(&again, &notifications) == before);
    assert!(bytes_of(&crashed) < room, "what is behind the end was cut off");

    store.close().expect("a clean end");
    drop(store);
    assert!(bytes_of(&disk) < room, "a journal that was closed has no room");
    let whole = fs::read(disk.path().join(first)).expect("the journal");
    // A power cut may leave it to a segment that is not the last.
    let longer = disk.copy();
    let (store, _) = longer.open();
    while !longer.path().join("journal/0000000002.seg").exists() {
        store.commit(vec![accept(10, 1).1]).await.expect("a commit");
    }
    store.close().expect("a clean end");
    let segment = fs::File::options().write(true).open(longer.path().join(first));
    let segment = segment.expect("the first of two");
    let length = segment.metadata().expect("its length").len();
    segment.set_len(length + 5_000).expect("more room");
    assert!(verify(longer.path()).expect("it is read").is_whole());

    // Where the end is known, zeros before it are no room.
    let cut = whole.len() - written(&disk.path().join(first)).len() + 50;
    let zeros = [&whole[..whole.len() - cut], &vec![0; cut]].concat();
    fs::write(disk.path().join(first), zeros).expect("a write");
    let (_, opened) = disk.open();
    assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
}

#[tokio::test]
async fn damage_before_the_end_is_set_aside_and_reported_and_the_rest_is_kept() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let notifications = filled(&store, 6).await;
    let crashed = disk.copy();
    let segment = crashed.path().join("journal/0000000001.seg");
    let mut bytes = fs::read(&segment).expect("the journal");
    let marker = b"request 3";
    let at = bytes.windows(marker.len()).position(|w| w == marker).expect("the record");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("a write");

    let (again, opened) = crashed.open();
    assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
    assert!(opened.damage[0].to_string().starts_with("journal/0000000001.seg at offset "));
    assert_eq!(fs::read_dir(crashed.path().join("aside")).expect("kept").count(), 1);
    for (number, notification) in notifications.iter().enumerate() {
        let found = again.notification(notification.id).expect("a read");
        assert_eq!(found.is_some(), number != 3);
    }
}

#[tokio::test]
async fn segments_are_freed_as_mail_passes_through_and_nothing_is_lost_with_them() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let kept = filled(&store, 3).await;
    let before = told(&store, &kept);
    for number in 100..1_500 {
        let (notification, change) = accept(number * 2 + 1, 1);
        let id = notification.jobs[0].0;
        store.commit(vec![change]).await.expect("a commit");
        let delivered = JobState::Delivered { at: Time(4_000) };
        store.commit(vec![update(id, delivered, 1)]).await.expect("a commit");
        store.commit(vec![Change::ForgetJob(id)]).await.expect("a commit");
    }
    store.close().expect("a clean end");
    let segments = fs::read_dir(disk.path().join("journal")).expect("a folder").count();
    assert!(segments <= 4, "{segments} segments for three notifications");
    let crashed = disk.copy();
    fs::remove_file(crashed.path().join("index.clean")).expect("the note of a clean end");
    drop(store);

    for disk in [disk, crashed] {
        let (again, opened) = disk.open();
        assert_eq!(opened.damage, vec![]);
        assert_eq!(told(&again, &kept), before);
    }
}

#[tokio::test]
async fn a_content_goes_when_its_last_job_ended_and_a_key_outlives_its_jobs() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let (notification, change) = accept(2, 1);
    let id = notification.jobs[0].0;
    store.commit(vec![change]).await.expect("a commit");
    assert_eq!(store.content(notification.id).expect("its content"), content(2));
    let delivered = JobState::Delivered { at: Time(4_000) };
    store.commit(vec![update(id, delivered, 1)]).await.expect("a commit");
    assert_eq!(store.ended_before(Time(4_001), 10).expect("a read"), vec![id]);
    assert!(matches!(store.content(notification.id), Err(StoreError::Unreadable(_))));
    store.commit(vec![Change::ForgetJob(id)]).await.expect("a commit");
    assert_eq!(store.job(id).expect("a read"), None);
    assert!(store.accepted_under("key 2").expect("a read").is_some());
    assert_eq!(store.keys_before(Time(2_000), 10).expect("a read"), vec![notification.id]);
    store.commit(vec![Change::ForgetKey(notification.id)]).await.expect("a commit");
    assert_eq!(store.accepted_under("key 2").expect("a read"), None);
    assert_eq!(store.notification(notification.id).expect("a read"), None);
}

#[tokio::test]
async fn jobs_are_paged_newest_first() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let mut ids = Vec::new();
    for number in 0..7 {
        let (notification, change) = accept(number, 1);
        store.commit(vec![change]).await.expect("a commit");
        ids.insert(0, notification.jobs[0].0);
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.jobs(before, 3, &|_| true).expect("a read");
        seen.extend(page.items.iter().map(|job| job.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_second_process_and_a_newer_store_are_refused_with_the_reason() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let refused = disk.try_open().err().expect("it is locked").to_string();
    assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
    drop(store);

    let segment = disk.path().join("journal/0000000001.seg");
    let mut bytes = fs::read(&segment).expect("the journal");
    bytes[4] = 3;
    let checksum = crc32c::crc32c(&bytes[..32]).to_le_bytes();
    bytes[32..36].copy_from_slice(&checksum);
    fs::write(&segment, bytes).expect("a write");
    let refused = disk.try_open().err().expect("it is newer").to_string();
    assert!(refused.starts_with("the store has schema 3"), "{refused}");
}

#[tokio::test]
async fn a_lost_identity_is_read_from_the_journal_and_a_lost_journal_is_refused() {
    let disk = Disk::new();
    let (store, opened) = disk.open();
    let notifications = filled(&store, 2).await;
    let before = told(&store, &notifications);
    store.close().expect("a clean end");
    drop(store);
    fs::remove_file(disk.path().join("identity")).expect("the identity");
    let (again, reopened) = disk.open();
    assert_eq!((reopened.store, reopened.created), (opened.store, false));
    assert_eq!(told(&again, &notifications), before);
    drop(again);
    fs::remove_file(disk.path().join("journal/0000000001.seg")).expect("the journal");
    assert!(matches!(disk.try_open().err(), Some(OpenError::JournalMissing)));
}

#[test]
fn a_first_start_that_was_cut_short_is_begun_anew() {
    for left in [0, 20, 36] {
        let disk = Disk::new();
        fs::create_dir(disk.path().join("journal")).expect("a folder");
        fs::write(disk.path().join("journal/0000000001.seg"), vec![0; left]).expect("a segment");
        let (store, opened) = disk.open();
        assert_eq!((opened.created, opened.damage), (true, vec![]), "{left} bytes");
        store.close().expect("a clean end");
        drop(store);
        assert!(!disk.open().1.created);
    }
}
