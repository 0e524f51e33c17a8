//! The tools on damaged folders: whatever is wrong, they end with a message, and change nothing.

use std::path::{Path, PathBuf};

use super::{stopped_home, tool};
use crate::support::cli::Ran;
use crate::support::image::Image;
use crate::support::{lots, nightly};

/// A copy with one damage, by lots, and what it is; `None` when the lots changed nothing.
fn damaged(whole: &Image, lots: &mut fastrand::Rng) -> Option<(Image, String)> {
    let paths: Vec<&PathBuf> = whole.files.keys().collect();
    let path = *lots.choice(&paths).expect("there are files");
    let mut image = whole.clone();
    let bytes = image.files.get_mut(path).filter(|bytes| !bytes.is_empty())?;
    let at = lots.usize(..bytes.len());
    let zero = |bytes: &mut Vec<u8>, block_bytes: usize| {
        let begin = at / block_bytes * block_bytes;
        let end = bytes.len().min(begin + block_bytes);
        bytes[begin..end].fill(0);
    };
    let what = match lots.u8(..5) {
        0 => {
            bytes[at] ^= 1 << lots.u8(..8);
            "a bit flipped"
        }
        1 => {
            zero(bytes, 512);
            "a sector zeroed"
        }
        2 => {
            zero(bytes, 4096);
            "a page zeroed"
        }
        3 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            image.files.remove(path);
            "missing"
        }
    };
    (image != *whole).then(|| (image, format!("{} {what} at {at}", path.display())))
}

/// Whether it ended with one of these codes, and with a line that says why unless all is well.
fn is_clear(ran: &Ran, codes: &[i32]) -> bool {
    let lines_count = ran.err.lines().count();
    let is_told = ran.code == Some(0) || lines_count == 1;
    ran.code.is_some_and(|code| codes.contains(&code))
        && is_told
        && !ran.err.contains("panicked at")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_ends_clearly_on_a_damaged_folder_and_changes_nothing_in_it() {
    let mut lots = lots();
    let home = stopped_home().await;
    let backup = home.path("backup");
    tool(&["backup", "--data-dir"], &[home.data(), &backup]).await.ended(0);
    let read = |folder: &Path| {
        let mut image = Image::read(folder).expect("read a folder");
        for meaningless in ["lock", "reserve"] {
            image.files.remove(Path::new(meaningless));
        }
        image
    };
    let wholes = [read(home.data()), read(&backup)];
    for n in 0..if nightly() { 1_000 } else { 60 } {
        let Some((image, what)) = damaged(&wholes[n % 2], &mut lots) else { continue };
        let (folder, copies) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir());
        let (folder, copies) = (folder.path(), copies.expect("a folder"));
        image.write(folder).expect("write the store");

        let verified = tool(&["verify", "--data-dir"], &[folder]).await;
        // Without the note of a clean end it is a store that was not stopped cleanly.
        let is_damage = image.files.contains_key(Path::new("index.clean"));
        let codes: &[i32] = if is_damage { &[1] } else { &[0] };
        assert!(is_clear(&verified, codes), "{what}: {verified:?}");
        let stats = tool(&["stats", "--data-dir"], &[folder]).await;
        assert!(is_clear(&stats, &[0, 1]), "{what}: {stats:?}");
        let calls: [(&[&str], &str); 2] = [(&["backup", "--data-dir"], "b"), (&["restore"], "r")];
        for (words, name) in calls {
            let copy = copies.path().join(name);
            let copied = tool(words, &[folder, &copy]).await;
            assert!(is_clear(&copied, &[0, 1]), "{what}: {copied:?}");
            if copied.code == Some(0) {
                tool(&["verify", "--data-dir"], &[&copy]).await.ended(0);
            }
        }
        let after = Image::read(folder).expect("read the store");
        assert!(after == image, "{what}: something was changed");
    }
}
