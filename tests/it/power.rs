//! Power cuts: what was answered 202 before the cut is there after it, with its content.

use std::collections::{BTreeMap, BTreeSet};

use mail_parser::MessageParser;
use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::crashfs::CrashFs;
use crate::support::disk::Cut;
use crate::support::load::{Load, Post};
use crate::support::sink::{Act, Letter, Moment, Sink};
use crate::support::wait::eventually;
use crate::support::{lots, need};

const LIVES: usize = 3;
const CUTS_PER_LIFE: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_when_all_that_was_not_synced_is_gone() {
    let lost = lost_in_cuts(LIVES, Syncing::Real, |_| Cut::Strict).await;
    assert_eq!(lost.unwrap_or_default(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_when_unsynced_pages_survive_at_random() {
    let lost = lost_in_cuts(LIVES, Syncing::Real, |lots| Cut::Torn(lots.u64(..))).await;
    assert_eq!(lost.unwrap_or_default(), Vec::<String>::new());
}

/// The control: were this green, the two above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_sync_is_caught() {
    if let Some(lost) = lost_in_cuts(1, Syncing::Pretended, |_| Cut::Strict).await {
        assert!(!lost.is_empty(), "ten cuts found nothing lost without any sync");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Syncing {
    Real,
    Pretended,
}

/// Contents of 1, 32 and 512 KiB, half of them for a provider that is away.
fn sized(n: usize) -> Value {
    let kib = [1, 1, 1, 32, 1, 32, 1, 512][n % 8];
    let line = format!("This is line of post {n:06}, and there are more of its kind.\r\n");
    let text = line.repeat(kib * 1024 / line.len()).trim_end().to_owned();
    let to = if n % 10 == 9 { "no" } else { "ok" };
    let provider = if n.is_multiple_of(2) { "open" } else { "shut" };
    json!({"recipients": [format!("{to}-{n}@example.com")], "text": text, "mailProvider": provider})
}

fn refuses_no() -> Sink {
    Sink::with(|moment| match moment {
        Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
        _ => Act::Accept,
    })
}

/// What was found missing, over all cuts; `None` when this machine cannot cut.
async fn lost_in_cuts(
    lives_count: usize,
    syncing: Syncing,
    how: fn(&mut fastrand::Rng) -> Cut,
) -> Option<Vec<String>> {
    if !need("fuse") {
        return None;
    }
    let mut lots = lots();
    let mut lost = Vec::new();
    for life in 0..lives_count {
        let live = refuses_no();
        let mut away = Sink::start();
        away.close().await;
        let mountpoint = tempfile::tempdir().expect("a temporary folder");
        let volume = CrashFs::mount(mountpoint.path());
        let providers = [Provider::plain("open", live.port), Provider::plain("shut", away.port)];
        let mut home = Home::at(mountpoint.path().to_owned(), &providers);
        if syncing == Syncing::Pretended {
            home = home.env("BREAKGLASS_MAILER_TEST_NO_SYNC", "1");
        }
        let app = home.start().await;
        let load = Load::start(8, sized);
        load.serve(Some(app.client.clone()));
        for cut_no in 0..CUTS_PER_LIFE {
            let goal = load.ended_count() + lots.usize(1..20);
            load.allow(25);
            eventually("enough posts have ended", async || {
                (load.ended_count() >= goal).then_some(())
            })
            .await;
            // First the ledger, then the cut: whatever the ledger holds was answered before.
            let posts = load.posts();
            let image = volume.cut(how(&mut lots));
            let folder = tempfile::tempdir().expect("a temporary folder");
            image.write(folder.path()).expect("write the image");
            let found = lost_after(folder.path().to_owned(), &posts, &live.letters()).await;
            lost.extend(found.into_iter().map(|what| format!("life {life}, cut {cut_no}: {what}")));
        }
        load.finish().await;
    }
    Some(lost)
}

/// Starts a server on what a cut left, with every provider reachable again, and holds the ledger
/// against what it knows and what it sends.
async fn lost_after(data: std::path::PathBuf, posts: &[Post], before: &[Letter]) -> Vec<String> {
    let sink = refuses_no();
    let providers = [Provider::plain("open", sink.port), Provider::plain("shut", sink.port)];
    let home = Home::at(data, &providers);
    let app = match home.try_start().await {
        Ok(app) => app,
        Err(refusal) => return vec![format!("{}: {}", refusal.status, refusal.log)],
    };
    app.drained().await;
    let letters = sink.letters();
    let sent = texts(before.iter().chain(letters.iter()));
    let mut lost = Vec::new();
    for post in posts {
        let Some((id, jobs)) = post.accepted() else { continue };
        let states = states(&app, id).await;
        for (to, job) in jobs {
            let fault = match states.get(job).map(String::as_str) {
                Some("dead") => None,
                Some("delivered") => match sent.get(&(&*post.token, &**to)) {
                    Some(texts) if texts.iter().all(|text| post.body["text"] == **text) => None,
                    Some(_) => Some("was sent with another content"),
                    None => Some("is said to be delivered and was not"),
                },
                Some(_) => Some("is neither delivered nor dead"),
                None => Some("is gone"),
            };
            lost.extend(fault.map(|fault| format!("{} to {to} {fault}", post.token)));
        }
    }
    lost
}

/// The states of a notification's jobs by their ids; empty when it is unknown.
async fn states(app: &App, id: &str) -> BTreeMap<String, String> {
    let path = format!("/notifications/{id}");
    let answer = app.client.call(hyper::Method::GET, &path, &[], None).await.expect("an answer");
    if answer.status == 404 {
        return BTreeMap::new();
    }
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let notification = answer.json();
    let jobs = notification["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| (text(&job["id"]), text(&job["state"]))).collect()
}

/// The plain texts that arrived, by subject and recipient.
fn texts<'a>(
    letters: impl Iterator<Item = &'a Letter>,
) -> BTreeMap<(&'a str, &'a str), BTreeSet<String>> {
    let mut texts: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for letter in letters {
        let message = MessageParser::new().parse(&**letter.bytes).expect("a message");
        // A line end at the very end is the mail format's, not the content's.
        let text = message.body_text(0).expect("a text").trim_end().to_owned();
        texts.entry((&*letter.subject, &*letter.recipient)).or_default().insert(text);
    }
    texts
}

/// The instrument itself, with a writer whose syncs are known.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_keeps_what_was_synced_and_only_that() {
    use std::io::Write;
    if !need("fuse") {
        return;
    }
    let mountpoint = tempfile::tempdir().expect("a temporary folder");
    let volume = CrashFs::mount(mountpoint.path());
    let root = mountpoint.path().to_owned();
    let writer = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let folder = std::fs::File::open(&root)?;
        let mut kept = std::fs::File::create(root.join("kept"))?;
        kept.write_all(b"synced")?;
        kept.sync_data()?;
        folder.sync_all()?;
        kept.write_all(b", and not")?;
        let nameless = std::fs::File::create(root.join("nameless"))?;
        nameless.sync_all()?;
        std::fs::create_dir(root.join("folder"))?;
        std::fs::rename(root.join("kept"), root.join("folder/kept"))
    });
    writer.await.expect("no panic").expect("no error");

    let image = volume.cut(Cut::Strict);
    let file = std::path::Path::new("kept");
    assert_eq!(image.files.keys().collect::<Vec<_>>(), [file]);
    assert_eq!(image.files[file], b"synced");

    let ends: BTreeSet<Vec<u8>> =
        (0..200).filter_map(|seed| volume.cut(Cut::Torn(seed)).files.remove(file)).collect();
    let torn = [&b"synced"[..], b"synced, and not", b"synced\0\0\0\0\0\0\0\0\0"];
    assert_eq!(ends, torn.map(<[u8]>::to_vec).into());
}
