//! The tools for a data folder: what they print, and with which exit code they end.

use std::path::Path;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{age, screen};
use crate::config::client::Output;
use crate::config::store::Store;
use crate::core::job::DeadReason;
use crate::store::{self, BackupError, IndexState, Stats, StoredFile, Verified};

/// Does what was asked for.
///
/// # Errors
/// When it was not done, or the folder is not whole.
pub fn run(command: &Store) -> Result<()> {
    match command {
        Store::Verify(reading) => verify(&reading.folder.data_dir, reading.output),
        Store::Stats(reading) => stats(&reading.folder.data_dir, reading.output),
        Store::Backup { from, target } => {
            let copied = store::backup(&from.data_dir, target);
            copy_ended("backed up", copied, &from.data_dir, target)
        }
        Store::Restore { backup, folder } => {
            copy_ended("restored", store::restore(backup, folder), backup, folder)
        }
    }
}

fn verify(folder: &Path, output: Output) -> Result<()> {
    let verified = store::verify(folder)?;
    match output {
        Output::Json => screen::json(&verified_json(&verified))?,
        Output::Table => show(&verified)?,
    }
    require_whole(folder, &verified)
}

/// Says what to do about a folder that is not whole.
fn require_whole(folder: &Path, verified: &Verified) -> Result<()> {
    if verified.is_whole() {
        return Ok(());
    }
    let folder = folder.display();
    let is_of_index = |file: &Path| file.starts_with("index") || file.starts_with("index.clean");
    if !verified.refusals.is_empty() {
        bail!("{folder} is damaged, and a server would refuse it: do as it says above");
    }
    if verified.damage.iter().all(|damage| is_of_index(&damage.file)) {
        bail!(
            "the index of {folder} is damaged, and no mail is lost: the next start makes it again. \
             Check the disk"
        );
    }
    bail!(
        "{folder} is damaged: restore a backup, or start a server on it, which sets aside what it \
         cannot read and goes on with the rest. Check the disk"
    )
}

fn show(verified: &Verified) -> Result<()> {
    let index = match verified.index {
        IndexState::Whole => "whole",
        IndexState::NotClosed => {
            "not closed: a server works on it, or was killed and makes it again at its next start"
        }
        IndexState::Missing => "none that can be used: the next start makes it",
        IndexState::Damaged => "damaged: the next start makes it again",
    };
    screen::fields(&[
        ("store", Some(verified.store.to_string())),
        ("schema", Some(verified.schema.to_string())),
        ("index", Some(index.to_owned())),
    ])?;
    screen::line("")?;
    let row = |file: &StoredFile| {
        let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        [
            file.file.display().to_string(),
            file.bytes.to_string(),
            count(file.records.map(|records| records.count)),
            count(file.records.map(|records| records.jobs_count)),
        ]
    };
    let rows = verified.files.iter().map(row).collect();
    screen::table(["FILE", "BYTES", "RECORDS", "JOBS"], rows, "no segment can be read")?;
    for damage in &verified.damage {
        screen::line(&format!("damage: {damage}"))?;
    }
    for refusal in &verified.refusals {
        screen::line(&format!("refused: {refusal}"))?;
    }
    if verified.is_whole() {
        screen::line("everything can be read")?;
    }
    Ok(())
}

fn verified_json(verified: &Verified) -> Value {
    let files = verified.files.iter().map(|file| {
        let records = file.records.map(|records| records.count);
        let jobs = file.records.map(|records| records.jobs_count);
        json!({"file": file.file, "bytes": file.bytes, "records": records, "jobs": jobs})
    });
    let damage = verified
        .damage
        .iter()
        .map(|damage| json!({"file": damage.file, "offset": damage.offset, "what": damage.what}));
    let index = match verified.index {
        IndexState::Whole => "whole",
        IndexState::NotClosed => "notClosed",
        IndexState::Missing => "missing",
        IndexState::Damaged => "damaged",
    };
    json!({
        "whole": verified.is_whole(),
        "store": verified.store,
        "schema": verified.schema,
        "index": index,
        "files": files.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
        "refusals": verified.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn stats(folder: &Path, output: Output) -> Result<()> {
    let stats = store::stats(folder)?;
    match output {
        Output::Json => screen::json(&stats_json(&stats))?,
        Output::Table => show_stats(&stats)?,
    }
    if stats.damage_count > 0 {
        screen::note("some of the store cannot be read and is not counted: see store verify");
    }
    Ok(())
}

fn show_stats(stats: &Stats) -> Result<()> {
    let oldest = stats.oldest_queued_at.and_then(timestamp);
    screen::fields(&[
        ("journal", Some(format!("{} bytes", stats.journal_bytes))),
        ("of it needed", Some(format!("{} bytes", stats.alive_bytes))),
        ("of it contents", Some(format!("{} bytes", stats.content_bytes))),
        ("idempotency keys", Some(stats.keys_count.to_string())),
        ("oldest queued", oldest.map(|at| age::at(&at, Timestamp::now()))),
    ])?;
    screen::line("")?;
    let rows = stats.providers.iter().map(|(provider, jobs)| {
        let dead = DeadReason::ALL.map(|reason| jobs.dead.get(reason.as_str()).copied());
        let [rejected, deferred, unreachable, expired, internal] =
            dead.map(|count| count.unwrap_or_default().to_string());
        let counts = [jobs.queued, jobs.delivered, jobs.cancelled].map(|count| count.to_string());
        let [queued, delivered, cancelled] = counts;
        let provider = provider.clone();
        [provider, queued, delivered, cancelled, rejected, deferred, unreachable, expired, internal]
    });
    let header = [
        "PROVIDER",
        "QUEUED",
        "DELIVERED",
        "CANCELLED",
        "REJECTED",
        "DEFERRED",
        "UNREACHABLE",
        "EXPIRED",
        "INTERNAL",
    ];
    Ok(screen::table(header, rows.collect(), "no jobs")?)
}

fn stats_json(stats: &Stats) -> Value {
    let provider = |(name, jobs): (&String, &store::JobCounts)| {
        json!({
            "name": name,
            "queued": jobs.queued,
            "delivered": jobs.delivered,
            "cancelled": jobs.cancelled,
            "dead": jobs.dead,
        })
    };
    json!({
        "providers": stats.providers.iter().map(provider).collect::<Vec<_>>(),
        "contentBytes": stats.content_bytes,
        "journalBytes": stats.journal_bytes,
        "neededBytes": stats.alive_bytes,
        "oldestQueuedAt": stats.oldest_queued_at.and_then(timestamp),
        "idempotencyKeys": stats.keys_count,
        "damage": stats.damage_count,
    })
}

fn copy_ended(
    done: &str,
    copied: Result<Verified, BackupError>,
    from: &Path,
    to: &Path,
) -> Result<()> {
    let verified = match copied {
        Err(error @ BackupError::Damaged { .. }) => bail!(
            "{error}. `breakglass-mailer store verify --data-dir {}` tells all. A server started on \
             it, or on a copy made by hand, sets aside what it cannot read; then this can be \
             repeated",
            from.display()
        ),
        copied => copied?,
    };
    require_whole(to, &verified)?;
    let segments_count = verified.files.len();
    let bytes: u64 = verified.files.iter().map(|file| file.bytes).sum();
    let to = to.display();
    Ok(screen::line(&format!(
        "{done} to {to}: {segments_count} segments, {bytes} bytes, read back whole"
    ))?)
}

/// Milliseconds since the epoch as RFC 3339.
fn timestamp(millis: u64) -> Option<String> {
    let at = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some(at.to_string())
}
