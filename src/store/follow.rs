//! The thread that lets the index follow the journal.
//!
//! An index that fails (sled keeps failing after the first write without room) is thrown away and
//! made again from the journal, as soon as that works. So is one that could not be opened. Meanwhile
//! delivery goes on, which needs the journal and memory alone; looking things up and new mail, which
//! would take the room that the new index needs, have to wait.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::entry::Written;
use super::index::Index;
use super::make::{Making, discard, guarded};
use super::scan::Scan;
use super::segment::segment_path;
use super::shared::Shared;

/// Before the first try to make the index again; doubles with each.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// After so long without a change the index writes out what it has in memory.
const REST: Duration = Duration::from_secs(1);

/// Applies batches to the index until the journal's thread ends.
pub(super) fn run(shared: &Shared, batches: &Receiver<Vec<Written>>) {
    if let Err(error) = shared.progress.check() {
        tracing::error!(%error, "the store works without its index: new mail is refused");
        if !make_again(shared, batches) {
            return;
        }
        tracing::info!("the index is whole again");
    }
    let mut is_written_out = true;
    loop {
        // What is in memory goes to sled when nothing more comes for a while.
        let batch = match batches.recv_timeout(if is_written_out { Duration::MAX } else { REST }) {
            Ok(batch) => Some(batch),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        is_written_out = batch.is_none();
        if let Err(why) = batch.map_or_else(|| write_out(shared), |batch| apply(shared, batch)) {
            tracing::error!(error = %why, "the index failed; it is made again from the journal");
            shared.progress.fail(&why);
            if !make_again(shared, batches) {
                return;
            }
            tracing::info!("the index is whole again");
        }
    }
}

fn apply(shared: &Shared, batch: Vec<Written>) -> Result<(), String> {
    let Some(index) = shared.index() else { return Err("there is no index".to_owned()) };
    let applied = shared.progress.applied();
    let last = batch.last().map_or(0, |written| written.sequence);
    let new = batch.into_iter().filter(|written| applied < written.sequence);
    let apply = || new.map(|written| index.apply(written, None)).collect::<Result<Vec<_>, _>>();
    let released = guarded(apply)?;
    shared.release(released.into_iter().flatten());
    shared.progress.advance(last);
    Ok(())
}

fn write_out(shared: &Shared) -> Result<(), String> {
    shared.index().map_or(Ok(()), |index| guarded(|| index.write_out()))
}

/// Tries until it works; `false` when the journal's thread has ended before.
fn make_again(shared: &Shared, batches: &Receiver<Vec<Written>>) -> bool {
    let folder = shared.folder.join("index");
    let mut broken = shared.take_index();
    let mut pause = PAUSE;
    loop {
        // Its files go at once, because the journal may need their room; but they are locked until
        // the last reader has let go of it.
        broken = broken.and_then(|index| match Arc::try_unwrap(index) {
            Ok(index) => {
                discard(index, &folder);
                None
            }
            Err(index) => Some(index),
        });
        // What comes meanwhile is in the journal, and will be read from there.
        let until = Instant::now() + pause;
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            match batches.recv_timeout(rest) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        if broken.is_some() {
            continue;
        }
        pause = (2 * pause).min(PAUSE_MAX);
        shared.reserve.hold();
        match replay(shared, &folder) {
            Ok((index, sequence)) => {
                let needless = |id: &_| {
                    let row = index.row(id);
                    row.is_ok_and(|row| row.is_some_and(|row| row.location.content_bytes == 0))
                };
                shared.release(shared.known_contents().into_iter().filter(needless));
                shared.set_index(index);
                shared.progress.begin(sequence);
                return true;
            }
            Err(error) => tracing::warn!(error, "the index cannot be made again yet"),
        }
    }
}

/// A new index from the journal as far as it is acknowledged, and the number of the last record that
/// was: it may be one of those that cannot be read.
fn replay(shared: &Shared, folder: &Path) -> Result<(Index, u64), String> {
    let mut making = Making::begin(folder, &shared.reserve);
    // What is behind it may still be undone, and its numbers given to other records.
    let until = shared.committed();
    let (mut sequence, mut knows_sequence) = (0, false);
    for segment in shared.segment_sizes().into_keys() {
        if !making.is_possible() {
            break;
        }
        let path = segment_path(&shared.journal, segment);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                making.fail(format!("cannot read {}: {error}", path.display()));
                break;
            }
        };
        let (path, bytes) = (&path, &bytes[..]);
        let mut scan = Scan { path, segment, bytes, sequence, knows_sequence, synced: until };
        // Damage was told when the store was opened; the end may be in the middle of a write.
        let scanned = scan.run(None, &mut Vec::new(), &mut |scanned| {
            if scanned.sequence <= until {
                making.apply(scanned);
            }
            Ok(())
        });
        if let Err(error) = scanned {
            making.fail(error.to_string());
        }
        (sequence, knows_sequence) = (scan.sequence, true);
    }
    let (index, _) = making.finish()?;
    Ok((index, until))
}
