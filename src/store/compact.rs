//! Frees the oldest segment when most of the journal is needed no more, or some of it is damaged.
//!
//! What is still remembered of that segment is carried forward as it stands, in one record per
//! notification, and then the file goes. A record that was overtaken by a change does not count and
//! is made again. Segments go oldest first, so whatever is older than a carried record that counts
//! is never needed again, and a record that forgets something may go with its file: what a later
//! record carries all the same is forgotten once more before.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::entry::{Entry, Scanned};
use super::frame::Encoded;
use super::index::Index;
use super::journal::RESERVE_BYTES;
use super::notes::write_identity;
use super::rows::{JobRow, Row};
use super::scan::Scan;
use super::segment::{segment_path, sync_folder};
use super::shared::Shared;
use crate::migrations::latest::Record;
use crate::migrations::{self, latest};
use crate::queue::store::StoreError;

/// With so many files less garbage is worth collecting.
const SEGMENTS_MAX: usize = 1024;
/// Notifications carried by one commit, at most, and the bytes that end it early.
const BATCH: usize = 64;
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Between two looks for the answer of the journal.
const ANSWER_PAUSE: Duration = Duration::from_millis(1);
/// Between two tries to free a segment.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the store closes; wakes with each batch that the index applied.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut applied = 0;
    while let Some(now) = shared.progress.wait_beyond(applied, None) {
        applied = now;
        while let Some(segment) = candidate(shared) {
            if let Err(error) = free(shared, segment) {
                tracing::warn!(segment, %error, "a segment of the journal cannot be freed yet");
                // There may be room in a while; only the end of the store cuts this short.
                if shared.progress.wait_beyond(u64::MAX, Some(PAUSE)).is_none() {
                    return;
                }
            }
        }
    }
}

/// The oldest segment, when freeing it is worth it: more than half of the journal is needed no
/// more, there are very many segments, or it may be damaged.
fn candidate(shared: &Shared) -> Option<u64> {
    let sizes = shared.segment_sizes();
    let live_bytes = shared.index()?.live_bytes();
    let live: u64 = live_bytes.values().sum();
    let all: u64 = sizes.values().sum();
    let garbage = all.saturating_sub(live);
    let oldest = *sizes.keys().next()?;
    let worth_it = if shared.is_short() {
        // What is alive in it has to fit into a part of the reserve.
        live_bytes.get(&oldest).is_none_or(|live| *live < RESERVE_BYTES / 4)
    } else {
        garbage > live + shared.slack_bytes
            || (sizes.len() > SEGMENTS_MAX && garbage > live / 4)
            || oldest <= shared.damaged_through
    };
    // The last one is being written.
    (worth_it && sizes.len() > 1).then_some(oldest)
}

fn free(shared: &Arc<Shared>, segment: u64) -> Result<(), StoreError> {
    // The segment is not written any more, so all that it holds is in the index from now on.
    let mut ids = in_segment(shared, &*shared.index_of_old()?, segment)?;
    while !ids.is_empty() {
        let as_of = shared.progress.applied();
        let mut records: Vec<(Entry, Encoded)> = Vec::new();
        let mut bytes = 0;
        let carried_count = ids.len().min(BATCH);
        for id in &ids[..carried_count] {
            if let Some(carried) = carry(shared, as_of, id, segment)? {
                bytes += carried.1.frame().len();
                records.push(carried);
            }
            if bytes > BATCH_BYTES_MAX {
                break;
            }
        }
        if records.is_empty() {
            ids.drain(..carried_count);
            continue;
        }
        // Those that were overtaken meanwhile are carried again.
        append(shared, records, !shared.is_short())?;
        shared.index_now()?;
    }
    loop {
        let outlived = shared.index_now()?.outlived(BATCH)?;
        if outlived.is_empty() {
            break;
        }
        let records = outlived.into_iter().map(|record| {
            let encoded = Encoded::new(&record, None);
            (record.into(), encoded)
        });
        append(shared, records.collect(), false)?;
    }
    let live_bytes = shared.index_now()?.live_bytes();
    if live_bytes.get(&segment).is_some_and(|live| 0 < *live) {
        // Something of it was not among those that were listed: the next try lists anew.
        return Err(StoreError::Busy("some of it is needed still".to_owned()));
    }
    let path = segment_path(&shared.journal, segment);
    let next = segment + 1;
    write_identity(&shared.folder, shared.store, next)
        .map_err(|error| StoreError::Stopped(error.to_string()))?;
    remove(&path)
        .map_err(|error| StoreError::Busy(format!("cannot remove {}: {error}", path.display())))?;
    shared.forget_segment(segment);
    Ok(())
}

/// The notifications whose record is in a segment, as the segment itself tells; where some of it
/// cannot be read, all that the index has are looked at.
fn in_segment(shared: &Shared, index: &Index, segment: u64) -> Result<Vec<latest::Id>, StoreError> {
    let path = segment_path(&shared.journal, segment);
    let mut ids = Vec::new();
    let mut visit = |scanned: Scanned| {
        match scanned.record {
            Record::Accepted(accepted) => ids.push(accepted.notification.id),
            Record::Carried(carried) => ids.push(carried.notification.id),
            Record::Updated(_) | Record::JobForgotten(_) | Record::KeyForgotten(_) => {}
        }
        Ok(())
    };
    let is_whole = segment > shared.damaged_through
        && fs::read(&path).is_ok_and(|bytes| {
            let (path, bytes) = (&path, &bytes[..]);
            let (sequence, knows_sequence, synced) = (0, false, u64::MAX);
            let mut damage = Vec::new();
            let mut scan = Scan { path, segment, bytes, sequence, knows_sequence, synced };
            let scanned = scan.run(None, &mut damage, &mut visit);
            damage.is_empty() && scanned.is_ok_and(|end| end == bytes.len() as u64)
        });
    if !is_whole {
        ids.clear();
        for row in index.newest_first(None) {
            ids.push(row?.id);
        }
    }
    let is_here = |id: &latest::Id| {
        let row = index.row(id)?;
        Ok(row.is_some_and(|row| is_in(&row, segment)).then_some(*id))
    };
    ids.iter().map(is_here).filter_map(Result::transpose).collect()
}

/// Returns when the records are on stable storage.
fn append(
    shared: &Shared,
    records: Vec<(Entry, Encoded)>,
    leaves_reserve: bool,
) -> Result<(), StoreError> {
    let mut answer = shared.append(records, 0, leaves_reserve);
    loop {
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        // What a failed sync leaves in doubt is never answered.
        if let Some(why) = &*shared.stopped.borrow() {
            return Err(StoreError::Stopped(why.clone()));
        }
        thread::sleep(ANSWER_PAUSE);
    }
}

/// One notification as it stands, with its content while a job needs it; `None` when it is not in
/// this segment any more.
fn carry(
    shared: &Shared,
    as_of: u64,
    id: &latest::Id,
    segment: u64,
) -> Result<Option<(Entry, Encoded)>, StoreError> {
    let index = shared.index().ok_or_else(|| StoreError::Stopped("no index".to_owned()))?;
    let row = index.row(id)?.filter(|row| is_in(row, segment));
    let Some(row) = row else { return Ok(None) };
    let carried = |job: &JobRow| {
        let attempts = index.attempts(job)?;
        Ok(latest::CarriedJob { job: job.id, progress: row.progress(job), attempts })
    };
    let jobs = row.jobs.iter().map(carried).collect::<Result<_, StoreError>>()?;
    let needed = row.needs_content().then(|| shared.frames.content(&row.location));
    let content = match needed.transpose() {
        Ok(read) => match read.flatten().map(|(schema, bytes)| migrations::content(schema, &bytes))
        {
            None => None,
            Some(Ok(content)) => Some(content),
            Some(Err(error)) => return Err(StoreError::Unreadable(error.to_string())),
        },
        Err(StoreError::Unreadable(what)) => {
            // Set aside when the store was opened, if it was damaged then. Its jobs end as dead
            // letters when they are tried; the rest of them is kept.
            tracing::error!(what, "a content cannot be carried forward");
            None
        }
        Err(error) => return Err(error),
    };
    let notification = match shared.frames.notification(&row.location) {
        Ok(notification) => notification,
        Err(StoreError::Unreadable(what)) => {
            tracing::error!(
                what,
                "the subject, warnings and end of life of a notification cannot be carried forward"
            );
            row.notification()
        }
        Err(error) => return Err(error),
    };
    let record = latest::Record::Carried(latest::Carried {
        as_of,
        notification,
        key: row.key.clone(),
        jobs,
    });
    let encoded = Encoded::new(&record, content.as_ref());
    Ok(Some((record.into(), encoded)))
}

fn is_in(row: &Row, segment: u64) -> bool {
    u64::from(row.location.segment) == segment
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        // An earlier try may have removed it and failed then.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), sync_folder)
}
