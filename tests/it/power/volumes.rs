//! Power cuts under a real file system: its disk is a file on a disk in memory, which learns of each
//! flush as a sync of that file.

use std::path::Path;

use super::Syncing;
use super::busy::{Busy, Peers};
use super::owed::{self, Found};
use crate::support::app::Home;
use crate::support::crashfs::CrashFs;
use crate::support::disk::Cut;
use crate::support::volume::{FileSystem, loops_below};
use crate::support::wait::eventually;
use crate::support::{lots, need, nightly};

fn cuts() -> usize {
    if nightly() { 60 } else { 10 }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_on_ext4() {
    if let Some(found) = found_on(FileSystem::Ext4, cuts(), Syncing::Real).await {
        assert_eq!(found.wrong, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_on_xfs() {
    if let Some(found) = found_on(FileSystem::Xfs, cuts(), Syncing::Real).await {
        assert_eq!(found.wrong, Vec::<String>::new());
    }
}

/// The control: a file system keeps for a while what nobody synced, and then it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_sync_is_caught_on_ext4() {
    if let Some(found) = found_on(FileSystem::Ext4, 2, Syncing::Pretended).await {
        found.assert_lost();
    }
}

/// What was found after so many cuts; `None` when this machine cannot cut.
async fn found_on(kind: FileSystem, cuts_count: usize, syncing: Syncing) -> Option<Found> {
    if !(need("fuse") && need("loop")) {
        return None;
    }
    let mut lots = lots();
    let mut found = Found::default();
    let peers = Peers::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [below, mountpoint, again] = ["below", "volume", "again"].map(|name| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        path
    });
    let disk = CrashFs::mount(&below);
    kind.make(&below.join("disk"));
    let home = Home::at(mountpoint.clone(), &peers.providers())
        .under(&kind.command(&below.join("disk"), &mountpoint));
    let app = syncing.at(home).start().await;
    let mut busy = Busy::start(&app, &peers);
    for cut_no in 0..cuts_count {
        let cut = if cut_no % 2 == 0 { Cut::Strict } else { Cut::Torn(lots.u64(..)) };
        let (posts, image) = busy.cut(&disk, cut, &mut lots).await;
        let copy = folder.path().join(format!("cut-{cut_no}"));
        image.write(&copy).expect("write the image");
        let under = kind.command(&copy.join("disk"), &again);
        let served = owed::served(again.clone(), &under, &posts, &busy.sent).await;
        found.add(&format!("cut {cut_no}, {cut:?}"), served);
        std::fs::remove_dir_all(&copy).expect("remove the copy");
    }
    busy.finish().await;
    drop(app);
    drop(disk);
    no_loop_device_is_left(folder.path()).await;
    Some(found)
}

async fn no_loop_device_is_left(folder: &Path) {
    eventually("the loop devices are free", async || loops_below(folder).is_empty().then_some(()))
        .await;
}
