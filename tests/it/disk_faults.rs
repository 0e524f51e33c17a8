//! A disk that fails: no change that could not be made is ever said to be made, and nothing that was
//! answered is lost by it.
//!
//! The disk fails at the nth change of a script, for one n after the other. CI draws some of them
//! by lots, the nightly form tries every one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::{JobId, JobState};
use breakglass_mailer::core::notification::Notification;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::store::{Change as StoreChange, Store};
use breakglass_mailer::store::{DiskStore, OpenError, Opened, Options};
use fuser::Errno;
use serde_json::json;

use crate::store::{accept, update};
use crate::support::app::{App, Home, Provider};
use crate::support::crashfs::CrashFs;
use crate::support::faults::{Change, Fault, Which, io_error, read_only};
use crate::support::load::{End, end};
use crate::support::sink::Sink;
use crate::support::wait::{eventually, within};
use crate::support::{lots, need, nightly};

/// How soon a process is usable again or gone after its disk failed.
const FAULT_TIME_MAX: Duration = Duration::from_secs(5);

/// An `after` that is never reached: changes are counted and none fails.
const NEVER: usize = usize::MAX;

/// All changes but those of the index.
fn of_the_truth(_: Change, path: &Path) -> bool {
    !path.components().any(|part| part.as_os_str() == "index")
}

fn of_the_index(change: Change, path: &Path) -> bool {
    !of_the_truth(change, path)
}

fn all(_: Change, _: &Path) -> bool {
    true
}

/// Those of `0..count` that are tried: all, or `some` drawn by lots.
fn chosen(lots: &mut fastrand::Rng, count: usize, some: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    if !nightly() {
        lots.shuffle(&mut all);
        all.truncate(some);
    }
    all
}

/// What the script knows of a notification of one job.
struct Known {
    notification: Notification,
    /// Whether the store said that it was accepted; `None` when it did not answer.
    accepted: Option<bool>,
    /// The same of its delivery, when that was reported.
    delivered: Option<Option<bool>>,
}

/// A store whose segments are small, so that the script goes through several.
fn open(folder: &Path) -> Result<(Arc<DiskStore>, Opened), OpenError> {
    let mut options = Options::new(folder);
    options.segment_bytes_max = 3_000;
    options.slack_bytes = 3_000;
    DiskStore::open(options)
}

/// Commits; `None` when the store stopped and gave no answer.
async fn commit(store: &DiskStore, change: StoreChange) -> Option<bool> {
    let mut stopped = store.stopped();
    let has_stopped = async {
        let _ = stopped.wait_for(Option::is_some).await;
        // An answer comes before the word that it stopped, or never.
        tokio::task::yield_now().await;
    };
    tokio::select! {
        biased;
        committed = store.commit(vec![change]) => Some(committed.is_ok()),
        () = has_stopped => None,
    }
}

/// Accepts notifications and reports every second one delivered, until the end or until the store stops.
async fn run_script(store: &DiskStore) -> Vec<Known> {
    let mut known = Vec::new();
    for number in 0..14 {
        let (notification, change) = accept(number, 1);
        let id = notification.jobs[0].0;
        let accepted = commit(store, change).await;
        let mut delivered = None;
        if accepted == Some(true) && number % 2 == 0 {
            let state = JobState::Delivered { at: Time(4_000) };
            delivered = Some(commit(store, update(id, state, 1)).await);
        }
        known.push(Known { notification, accepted, delivered });
        if store.stopped().borrow().is_some() {
            break;
        }
    }
    known
}

fn state(store: &DiskStore, id: JobId) -> Option<JobState> {
    store.job(id).expect("a read").map(|(job, _)| job.progress.state)
}

/// What is wrong with a store that was opened on a sound disk again.
fn faults_of(store: &DiskStore, opened: &Opened, known: &[Known]) -> Vec<String> {
    let mut faults: Vec<String> = opened.damage.iter().map(ToString::to_string).collect();
    for Known { notification, accepted, delivered } in known {
        let name = &notification.subject;
        let job = state(store, notification.jobs[0].0);
        let is_delivered = matches!(job, Some(JobState::Delivered { .. }));
        match (accepted, &job) {
            (Some(true), None) => faults.push(format!("{name} is lost")),
            (Some(false), Some(_)) => faults.push(format!("{name} was refused and is there")),
            _ => {}
        }
        match delivered {
            Some(Some(true)) if !is_delivered => faults.push(format!("{name} would be sent again")),
            Some(Some(false)) | None if is_delivered => {
                faults.push(format!("{name} counts as delivered"));
            }
            _ => {}
        }
        if job.is_some() && !is_delivered && store.content(notification.id).is_err() {
            faults.push(format!("{name} has lost its content"));
        }
    }
    faults
}

/// Runs the script in a folder of its own, with this fault, and once more without one.
async fn one_trial(volume: &CrashFs, folder: &Path, fault: Fault) -> (usize, Vec<String>) {
    volume.faults().arm(fault);
    let mut known = Vec::new();
    if let Ok((store, _)) = open(folder) {
        known = run_script(&store).await;
        let _ = store.close();
    }
    let counted = volume.faults().disarm();
    // A process that another test starts holds the lock, too, until it has become another program.
    let opened = eventually("nobody holds the folder", async || match open(folder) {
        Err(OpenError::InUse { .. }) => None,
        opened => Some(opened),
    });
    let (store, opened) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return (counted, vec![format!("it does not open again: {error}")]),
    };
    let faults = faults_of(&store, &opened, &known);
    let _ = store.close();
    (counted, faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_disk_fails_at_any_change_keeps_what_it_answered_and_nothing_it_refused() {
    if !need("fuse") {
        return;
    }
    let mut lots = lots();
    let mountpoint = tempfile::tempdir().expect("a temporary folder");
    let volume = CrashFs::mount(mountpoint.path());
    let folder = |name: &str| mountpoint.path().join(name);
    let mut wrong = BTreeMap::new();
    let kinds: [(&str, Which, usize); 2] =
        [("truth", of_the_truth, 60), ("index", of_the_index, 15)];
    for (kind, counts, some) in kinds {
        let dry = Fault { counts, after: NEVER, stays: false, errno: io_error };
        let (count, faults) = one_trial(&volume, &folder(kind), dry).await;
        assert_eq!(faults, Vec::<String>::new(), "without a fault");
        for after in chosen(&mut lots, count, some) {
            for stays in [false, true] {
                let fault = Fault { after, stays, ..dry };
                let name = format!("{kind} {after} {stays}");
                let (_, faults) = one_trial(&volume, &folder(&name), fault).await;
                if !faults.is_empty() {
                    wrong.insert(format!("{name}: {:?}", volume.faults().failed()), faults);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How a server that was started on a disk that fails ended, and what its callers know.
struct Life {
    posts: Vec<(String, End)>,
    wrong: Vec<String>,
}

/// Posts until the script ends or the server has.
async fn live(home: &Home, volume: &CrashFs) -> Life {
    let mut life = Life { posts: Vec::new(), wrong: Vec::new() };
    let has_failed = || !volume.faults().failed().is_empty();
    let mut app = match home.try_start().await {
        Ok(app) => app,
        Err(refusal) => {
            let (code, log) = (refusal.status.code(), refusal.log);
            if code != Some(1) || !has_failed() || log.contains("panicked at") {
                life.wrong.push(format!("it ended with {code:?}:\n{log}"));
            }
            return life;
        }
    };
    for n in 0..8 {
        let to = format!("to-{n}@example.com");
        let post =
            json!({"recipients": [to.clone()], "subject": to.clone(), "text": "Please look."});
        life.posts.push((to, end(app.client.notify(&post, None).await)));
    }
    if has_failed() {
        // It mends itself, or it ends: what is asked of it then is answered by its successor.
        let usable_or_gone = async || {
            if app.process.has_exited() {
                return Some(());
            }
            let to = format!("to-{}@example.com", life.posts.len());
            let post =
                json!({"recipients": [to.clone()], "subject": to.clone(), "text": "Please look."});
            let end = end(app.client.notify(&post, None).await);
            let is_accepted = matches!(end, End::Accepted { .. });
            life.posts.push((to, end));
            is_accepted.then_some(())
        };
        within(FAULT_TIME_MAX, "it is usable again or gone", usable_or_gone).await;
    }
    if !app.process.has_exited() {
        app.process.term();
    }
    let status = app.process.exit(Duration::from_secs(30)).await;
    let log = app.process.log();
    let is_fine = status.success() || (status.code() == Some(1) && has_failed());
    if !is_fine || log.contains("panicked at") {
        life.wrong.push(format!("it ended with {status}:\n{log}"));
    }
    life
}

/// Starts it on the mended disk: what was answered 202 is sent, what was refused is not.
async fn mended(home: &Home, sink: &Sink, life: Life) -> Vec<String> {
    let mut wrong = life.wrong;
    let app: App = match home.try_start().await {
        Ok(app) => app,
        Err(refusal) => {
            wrong.push(format!("it does not start again: {}", refusal.log));
            return wrong;
        }
    };
    app.drained().await;
    app.stop().await;
    let sent = sink.letters();
    for (to, end) in &life.posts {
        let copies = sent.iter().filter(|letter| letter.recipient == *to).count();
        match end {
            End::Accepted { .. } if copies == 0 => wrong.push(format!("{to} is lost")),
            End::Refused(status) if copies > 0 => {
                wrong.push(format!("{to} was refused with {status} and sent"));
            }
            _ => {}
        }
    }
    wrong
}

async fn assert_survived(some: usize, errno: fn() -> Errno, stays: bool) {
    if !need("fuse") {
        return;
    }
    let mut lots = lots();
    let mut wrong = BTreeMap::new();
    let trial = async |fault: Fault| {
        let mountpoint = tempfile::tempdir().expect("a temporary folder");
        let volume = CrashFs::mount(mountpoint.path());
        let sink = Sink::start();
        let data: PathBuf = mountpoint.path().join("data");
        let home = Home::at(data, &[Provider::plain("main", sink.port)]);
        volume.faults().arm(fault);
        let life = live(&home, &volume).await;
        let counted = volume.faults().disarm();
        let faults = mended(&home, &sink, life).await;
        (counted, faults, volume.faults().failed())
    };
    let dry = Fault { counts: all, after: NEVER, stays, errno };
    let (count, faults, _) = trial(dry).await;
    assert_eq!(faults, Vec::<String>::new(), "without a fault");
    for after in chosen(&mut lots, count, some) {
        let (_, faults, failed) = trial(Fault { after, ..dry }).await;
        if !faults.is_empty() {
            wrong.insert(format!("{after}: {:?}", failed.first()), faults);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_fails_once_mends_itself_or_exits_and_loses_nothing() {
    assert_survived(8, io_error, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_file_system_becomes_read_only_exits_and_loses_nothing() {
    assert_survived(8, read_only, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_system_at_start_is_named_with_its_path() {
    if !need("fuse") {
        return;
    }
    let mountpoint = tempfile::tempdir().expect("a temporary folder");
    let volume = CrashFs::mount(mountpoint.path());
    let sink = Sink::start();
    let home = Home::at(mountpoint.path().join("data"), &[Provider::plain("main", sink.port)]);
    let refused = async || {
        volume.faults().arm(Fault { counts: all, after: 0, stays: true, errno: read_only });
        let refusal = home.try_start().await.err().expect("it exits");
        volume.faults().disarm();
        assert_eq!(refusal.status.code(), Some(1));
        let data = home.data().display().to_string();
        let told = refusal.log.lines().last().unwrap_or_default();
        assert!(told.contains(&data) && told.contains("Read-only file system"), "{told}");
        assert!(!refusal.log.contains("panicked at"), "{}", refusal.log);
    };
    refused().await;
    let app = home.start().await;
    let post = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    app.notify(&post).await;
    app.drained().await;
    app.stop().await;
    refused().await;

    let app = home.start().await;
    app.notify(&post).await;
    eventually("both were sent", async || (sink.letters().len() == 2).then_some(())).await;
    app.stop().await;
}
