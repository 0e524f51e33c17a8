//! The thread that answers what the journal has on stable storage, and passes it on to the index.

use std::iter::zip;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use super::entry::Written;
use super::journal::Durable;
use super::shared::Shared;

/// With so many records before a batch that the index has not applied, this thread waits for it, and
/// the journal for this thread.
const RECORDS_BEHIND_MAX: u64 = 4096;

/// Answers until the journal's thread ends. `on_commit` is told how long each write and sync took, and
/// for how many jobs.
pub(super) fn run(
    shared: &Shared,
    durable: &Receiver<Durable>,
    batches: &SyncSender<Vec<Written>>,
    on_commit: &dyn Fn(Duration, usize),
) {
    for Durable { batch, places, took } in durable {
        on_commit(took, batch.iter().map(|append| append.jobs_count).sum());
        let (records, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|append| (append.records, append.done)).unzip();
        let entries = records.into_iter().flatten().map(|(entry, _)| entry);
        let written: Vec<_> = zip(entries, places)
            .map(|(entry, (sequence, location))| Written { sequence, entry, location })
            .collect();
        // Before anybody is answered: then it can be read.
        shared.written(&written);
        for done in waiting {
            done.answer(Ok(()));
        }
        // What the index has still to apply is in memory. An index that failed holds up nothing.
        let before = written.first().map_or(0, |written| written.sequence - 1);
        let _ = shared.progress.wait(before.saturating_sub(RECORDS_BEHIND_MAX));
        // The thread of the index ends only after this one.
        let _ = batches.send(written);
    }
}
