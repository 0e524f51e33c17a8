//! What a store holds, in numbers: never a recipient, a subject or a body.
//!
//! It is counted from the journal alone, so it needs neither the index nor a stopped server.

use std::collections::BTreeMap;
use std::path::Path;

use super::OpenError;
use super::recover::look;
use super::seen::Seen;
use crate::core::job::DeadReason;
use crate::migrations::latest::State;

/// See the module.
#[derive(Debug, Default)]
pub struct Stats {
    /// The jobs that are remembered, by the provider whose turn it is or was last.
    pub providers: BTreeMap<String, JobCounts>,
    /// The contents that a queued or dead job needs.
    pub content_bytes: u64,
    /// All segments.
    pub journal_bytes: u64,
    /// The part of the segments that is needed still.
    pub alive_bytes: u64,
    /// When the oldest notification with a queued job was accepted: milliseconds since the epoch.
    pub oldest_queued_at: Option<u64>,
    /// The idempotency keys that are remembered.
    pub keys_count: u64,
    /// Places of the journal that could not be read: what was there is not counted.
    pub damage_count: usize,
}

/// Jobs by their state.
#[derive(Debug, Default)]
pub struct JobCounts {
    /// Wait for an attempt, or are in flight.
    pub queued: u64,
    /// Given up, by the reason; those that were unreachable are parked.
    pub dead: BTreeMap<&'static str, u64>,
    /// Delivered.
    pub delivered: u64,
    /// Cancelled.
    pub cancelled: u64,
}

/// Counts what is in `folder`, also while a server works on it.
///
/// # Errors
/// When there is no store, or nothing of it can be read.
pub fn stats(folder: &Path) -> Result<Stats, OpenError> {
    let (seen, found) = look(folder, Seen::take)?;
    let journal_bytes = found.segments.iter().map(|(_, bytes)| bytes).sum();
    let damage_count = found.damage.len() + found.refusals.len();
    Ok(Stats { journal_bytes, damage_count, ..counted(&seen) })
}

fn counted(seen: &Seen) -> Stats {
    let mut stats = Stats::default();
    for remembered in seen.remembered() {
        stats.keys_count += u64::from(remembered.has_key);
        for (_, _, stand) in &remembered.jobs {
            let counts = stats.providers.entry(stand.provider().to_owned()).or_default();
            match &stand.progress.state {
                State::Queued { .. } => {
                    counts.queued += 1;
                    let oldest = stats.oldest_queued_at.get_or_insert(remembered.accepted_at);
                    *oldest = remembered.accepted_at.min(*oldest);
                }
                State::Dead { reason, .. } => {
                    let reason = DeadReason::from(*reason).as_str();
                    *counts.dead.entry(reason).or_default() += 1;
                }
                State::Delivered { .. } => counts.delivered += 1,
                State::Cancelled { .. } => counts.cancelled += 1,
            }
        }
        let mut location = remembered.location;
        if !remembered.needs_content() {
            location.content_bytes = 0;
        }
        stats.content_bytes += u64::from(location.content_bytes);
        if remembered.has_key || !remembered.jobs.is_empty() {
            stats.alive_bytes += location.bytes();
        }
    }
    stats
}
