//! Power cuts: what was answered 202 before the cut is there after it, with its content.

mod busy;
mod owed;
mod replay;
mod volumes;

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::app::Home;
use crate::support::crashfs::CrashFs;
use crate::support::disk::Cut;
use crate::support::{lots, need, nightly};

use busy::{Busy, Peers};
use owed::Found;

const CUTS_PER_LIFE: usize = 10;

fn lives() -> usize {
    if nightly() { 20 } else { 3 }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_when_all_that_was_not_synced_is_gone() {
    if let Some(found) = found_in_cuts(lives(), Syncing::Real, |_| Cut::Strict).await {
        found.assert_all_well();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_when_unsynced_pages_survive_at_random() {
    let how = |lots: &mut fastrand::Rng| Cut::Torn(lots.u64(..));
    if let Some(found) = found_in_cuts(lives(), Syncing::Real, how).await {
        found.assert_all_well();
    }
}

/// The control: were this green, the two above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_sync_is_caught() {
    if let Some(found) = found_in_cuts(1, Syncing::Pretended, |_| Cut::Strict).await {
        found.assert_lost();
    }
}

/// Whether the server syncs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syncing {
    Real,
    Pretended,
}

impl Syncing {
    fn at(self, home: Home) -> Home {
        match self {
            Self::Real => home,
            Self::Pretended => home.env("BREAKGLASS_MAILER_TEST_NO_SYNC", "1"),
        }
    }
}

/// What was found after all cuts; `None` when this machine cannot cut.
async fn found_in_cuts(
    lives_count: usize,
    syncing: Syncing,
    how: fn(&mut fastrand::Rng) -> Cut,
) -> Option<Found> {
    if !need("fuse") {
        return None;
    }
    let mut lots = lots();
    let mut found = Found::default();
    for life in 0..lives_count {
        let peers = Peers::start().await;
        let mountpoint = tempfile::tempdir().expect("a temporary folder");
        let volume = CrashFs::mount(mountpoint.path());
        // Folders that the server makes itself: their names must be safe too.
        let below = Path::new("breakglass/mailer");
        let home = Home::at(mountpoint.path().join(below), &peers.providers());
        let app = syncing.at(home).start().await;
        let mut busy = Busy::start(&app, &peers);
        for cut_no in 0..CUTS_PER_LIFE {
            let how = how(&mut lots);
            let (posts, image) = busy.cut(&volume, how, &mut lots).await;
            let cut = format!("life {life}, cut {cut_no}, {how:?}");
            let folder = tempfile::tempdir().expect("a temporary folder");
            let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
            for copy in [&first, &second] {
                image.write(copy).expect("write the image");
            }
            let open = || owed::opened(&first.join(below), &posts, &busy.sent);
            found.add(&cut, tokio::task::block_in_place(open));
            found.add(&cut, owed::served(second.join(below), &[], &posts, &busy.sent).await);
        }
        busy.finish().await;
    }
    Some(found)
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
