//! `store verify`, `stats`, `backup` and `restore`: a whole folder is told from a damaged one, and a
//! backup has everything that was answered 202 before it.

mod damaged;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use breakglass_mailer::core::job::JobState;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Change, Store};
use breakglass_mailer::store::{DiskStore, Options, backup, verify};
use serde_json::{Value, json};

use crate::store::{Disk, accept, update};
use crate::support::app::{Home, Provider};
use crate::support::cli::{Ran, Shell};
use crate::support::image::Image;
use crate::support::load::{End, Load};
use crate::support::sink::{Act, Moment, Sink};
use crate::support::wait::eventually;
use crate::support::{live_jobs, lots};

/// Runs `store` with these words and paths.
async fn tool(words: &[&str], paths: &[&Path]) -> Ran {
    let mut args = vec!["store"];
    args.extend(words);
    args.extend(paths.iter().map(|path| path.to_str().expect("UTF-8")));
    Shell::default().run(&args).await
}

async fn verified(folder: &Path) -> Ran {
    tool(&["verify", "--output", "json", "--data-dir"], &[folder]).await
}

/// Takes what is for `ok`, refuses `no` for good and puts `later` off.
fn moody() -> Sink {
    Sink::with(|moment| match moment {
        Moment::Recipient(to) if to.starts_with("no") => Act::Say("550 5.1.1 no such user"),
        Moment::Recipient(to) if to.starts_with("later") => Act::Say("451 4.3.0 not now"),
        _ => Act::Accept,
    })
}

fn three_fates(n: usize) -> Value {
    let to = ["ok", "no", "later"].map(|kind| format!("{kind}-{n}@example.com"));
    json!({"recipients": to, "text": "Please look. ".repeat(100)})
}

/// A stopped server's home, whose jobs are delivered, rejected, waiting for a retry and parked.
async fn stopped_home() -> Home {
    let (sink, mut away) = (moody(), Sink::start());
    away.close().await;
    // The default is at the end of every chain, so it is the one that is away.
    let main = Provider::plain("main", sink.port).retry(10, 60_000);
    let providers = [Provider::plain("away", away.port), main];
    let home = Home::new(&providers);
    let app = home.start().await;
    for n in 0..3 {
        let mut post = three_fates(n);
        post["subject"] = json!("A very private subject");
        post["mailProvider"] = json!("main");
        let answer = app.client.notify(&post, Some(&format!("key-{n}"))).await.expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    let to_away = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    app.notify(&to_away).await;
    app.queue_has("main", "scheduled", 3).await;
    app.queue_has("away", "parked", 1).await;
    app.stop().await;
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_whole_while_a_server_works_on_it_and_after_it_stopped() {
    let sink = moody();
    let home = Home::new(&[Provider::plain("main", sink.port).retry(3, 10)]);
    let app = home.start().await;
    let load = Load::start(8, three_fates);
    load.serve(Some(app.client.clone()));
    load.allow(600);
    while load.ended_count() < 600 {
        let found = verified(home.data()).await.json();
        assert_eq!((&found["whole"], &found["index"]), (&json!(true), &json!("notClosed")));
    }
    let posts = load.finish().await;
    assert!(posts.iter().all(|post| post.accepted().is_some()), "the server was disturbed");
    app.drained().await;
    app.stop().await;

    let before = Image::read(home.data()).expect("read the store");
    let found = verified(home.data()).await.json();
    assert_eq!((&found["whole"], &found["index"]), (&json!(true), &json!("whole")));
    assert_eq!(found["files"][0]["jobs"], 3 * posts.len());
    assert!(before == Image::read(home.data()).expect("read the store"), "something was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_told_with_its_file_and_changes_nothing() {
    let mut lots = lots();
    let home = stopped_home().await;
    let whole = Image::read(home.data()).expect("read the store");
    for (path, bytes) in whole.files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        // Whatever is in these, it means nothing.
        if path == Path::new("lock") || path == Path::new("reserve") {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[lots.usize(..bytes.len())] ^= 1 << lots.u8(..8);
        let half = bytes[..bytes.len() / 2].to_vec();
        for damaged in [Some(flipped), Some(half), Some(vec![]), None] {
            // Without it the store was not stopped cleanly, which is no damage.
            if damaged.is_none() && path == Path::new("index.clean") {
                continue;
            }
            let what =
                format!("{} with {:?} bytes", path.display(), damaged.as_ref().map(Vec::len));
            let mut image = whole.clone();
            match damaged {
                Some(damaged) => image.files.insert(path.clone(), damaged),
                None => image.files.remove(path),
            };
            let folder = tempfile::tempdir().expect("a folder");
            image.write(folder.path()).expect("write the store");
            let told = verified(folder.path()).await;
            assert_eq!(told.code, Some(1), "{what}: {told:?}");
            let file = path.to_str().expect("UTF-8");
            assert!(format!("{}{}", told.out, told.err).contains(file), "{what}: {told:?}");
            assert!(told.err.lines().count() == 1, "{what}: {told:?}");
            let after = Image::read(folder.path()).expect("read the store");
            assert!(after == image, "{what}: something was changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restored_elsewhere_has_every_job_that_was_answered_202_before() {
    let sink = moody();
    let home = Home::new(&[Provider::plain("main", sink.port).retry(3, 10)]);
    let app = home.start().await;
    let load = Load::start(8, three_fates);
    load.serve(Some(app.client.clone()));
    load.allow(800);
    eventually("some posts have ended", async || (load.ended_count() > 200).then_some(())).await;
    let before = load.posts();
    let target = home.path("backup");
    tool(&["backup", "--data-dir"], &[home.data(), &target]).await.ended(0);
    let posts = load.finish().await;
    assert!(posts.iter().all(|post| matches!(post.end, End::Accepted { .. })), "disturbed");
    app.drained().await;
    app.stop().await;
    assert_modes(&target);

    let other_sink = Sink::start();
    let other = Home::new(&[Provider::plain("main", other_sink.port)]);
    tool(&["restore"], &[&target, other.data()]).await.ended(0);
    let app = other.start().await;
    app.drained().await;
    let ends = ["delivered", "dead"];
    for (id, jobs) in before.iter().filter_map(|post| post.accepted()) {
        let found = app.jobs_are(id, &ends).await;
        assert_eq!(found["jobs"].as_array().map(Vec::len), Some(jobs.len()), "{id}");
    }
    app.stop().await;
    verified(other.data()).await.ended(0);
}

fn assert_modes(backup: &Path) {
    let image = Image::read(backup).expect("read the backup");
    let modes = |paths: Vec<&PathBuf>| -> Vec<u32> {
        let mode =
            |path| fs::metadata(backup.join(path)).expect("it is there").permissions().mode();
        paths.into_iter().map(|path| mode(path) & 0o777).collect()
    };
    let root = fs::metadata(backup).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((root, modes(image.folders.iter().collect())), (0o700, vec![0o700]));
    assert!(modes(image.files.keys().collect()).iter().all(|mode| *mode == 0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_or_backup_is_not_copied_and_nothing_is_left_of_it() {
    let home = stopped_home().await;
    let (target, elsewhere) = (home.path("backup"), home.path("elsewhere"));
    tool(&["backup", "--data-dir"], &[home.data(), &target]).await.ended(0);
    let whole = Image::read(&target).expect("read the backup");
    for (path, bytes) in &whole.files {
        for damaged in [None, Some(bytes[..bytes.len() / 2].to_vec())] {
            // Without the note of its end a backup is a store that was not stopped cleanly.
            if damaged.is_none() && path == Path::new("index.clean") {
                continue;
            }
            let mut image = whole.clone();
            match damaged {
                Some(damaged) => image.files.insert(path.clone(), damaged),
                None => image.files.remove(path),
            };
            let damaged = tempfile::tempdir().expect("a folder");
            image.write(damaged.path()).expect("write the backup");
            let copies: [(&[&str], &Path); 2] =
                [(&["restore"], damaged.path()), (&["backup", "--data-dir"], damaged.path())];
            for (words, from) in copies {
                let refused = tool(words, &[from, &elsewhere]).await.ended(1);
                assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
                let left = fs::read_dir(&elsewhere).map_or(0, Iterator::count);
                assert_eq!(left, 0, "{words:?} with another {}", path.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_copied_into_a_folder_that_is_not_empty() {
    let home = stopped_home().await;
    let target = home.path("backup");
    tool(&["backup", "--data-dir"], &[home.data(), &target]).await.ended(0);
    let before = Image::read(home.data()).expect("read the store");
    let refused = tool(&["backup", "--data-dir"], &[&target, home.data()]).await.ended(1);
    assert!(refused.err.contains("is not empty"), "{refused:?}");
    let app = home.start().await;
    let refused = tool(&["restore"], &[&target, home.data()]).await.ended(1);
    assert!(refused.err.contains("is not empty"), "{refused:?}");
    app.stop().await;
    let after = Image::read(home.data()).expect("read the store");
    let journal = Path::new("journal/0000000001.seg");
    assert!(after.files[journal].starts_with(&before.files[journal]), "it was written over");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_every_job_and_show_nobody() {
    let home = stopped_home().await;
    let found = tool(&["stats", "-o", "json", "--data-dir"], &[home.data()]).await.json();
    let providers = json!([
        {"name": "away", "queued": 0, "delivered": 0, "cancelled": 0, "dead": {"unreachable": 1}},
        {"name": "main", "queued": 3, "delivered": 3, "cancelled": 0, "dead": {"rejected": 3}},
    ]);
    assert_eq!(found["providers"], providers);
    assert_eq!((&found["idempotencyKeys"], &found["damage"]), (&json!(3), &json!(0)));
    assert!(found["oldestQueuedAt"].is_string());
    let bytes = ["contentBytes", "neededBytes", "journalBytes"].map(|name| found[name].as_u64());
    assert!(Some(0) < bytes[0] && bytes.is_sorted(), "{found}");

    let table = tool(&["stats", "--data-dir"], &[home.data()]).await.ended(0);
    for shown in [found.to_string(), table.out + &table.err] {
        for secret in ["@", "private", "Please", "key-"] {
            assert!(!shown.contains(secret), "{secret:?} in {shown}");
        }
    }
}

/// A start that is killed, or a power cut, leaves such a folder beside the note of a backup.
#[tokio::test]
async fn an_empty_folder_is_not_the_index_of_a_backup() {
    let (disk, target) = (Disk::new(), tempfile::tempdir().expect("a folder"));
    let (store, _) = disk.open();
    store.commit(vec![accept(0, 3).1]).await.expect("committed");
    store.close().expect("closed");
    backup(disk.path(), target.path()).expect("a backup");
    fs::create_dir(target.path().join("index")).expect("a folder");

    let (copy, opened) = DiskStore::open(Options::new(target.path())).expect("it opens");
    assert_eq!(opened.rebuilt, Some("a backup has none"));
    assert_eq!(live_jobs(&*copy).len(), 3);
}

/// Small segments, so that they are freed all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_while_segments_are_freed() {
    let disk = Disk::new();
    let (store, _) = disk.open();
    let (kept, change) = accept(0, 3);
    store.commit(vec![change]).await.expect("committed");
    let is_over = AtomicBool::new(false);
    let churn = async {
        let mut n = 1;
        while !is_over.load(Ordering::Relaxed) {
            let (notification, change) = accept(2 * n + 1, 1);
            let id = notification.jobs[0].0;
            let end = update(id, JobState::Delivered { at: Time(9) }, 1);
            for changes in [vec![change], vec![end], vec![Change::ForgetJob(id)]] {
                store.commit(changes).await.expect("committed");
            }
            n += 1;
        }
    };
    let first_segment = disk.path().join("journal/0000000001.seg");
    let backups = async {
        eventually("a segment was freed", async || (!first_segment.exists()).then_some(())).await;
        for _ in 0..20 {
            let (folder, target) = (disk.path().to_owned(), tempfile::tempdir().expect("a folder"));
            let copied = tokio::task::spawn_blocking(move || {
                assert!(verify(&folder).expect("it is read").is_whole());
                backup(&folder, target.path()).map(|_| target)
            });
            let target = copied.await.expect("no panic").expect("a backup");
            let (copy, opened) = DiskStore::open(Options::new(target.path())).expect("it opens");
            assert_eq!(opened.damage, []);
            let found =
                copy.notification(kept.id).expect("the index is read").expect("it is there");
            assert_eq!(found.jobs, kept.jobs);
            let live = live_jobs(&*copy);
            let kept_jobs = live.iter().filter(|job| job.notification == kept.id).count();
            assert!(kept_jobs == 3 && live.len() <= 4, "{live:?}");
            copy.content(kept.id).expect("its content is there");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(churn, backups);
    store.close().expect("closed");
}
