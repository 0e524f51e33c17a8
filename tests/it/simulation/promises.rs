//! What has to hold: after each step, and when nothing more can happen.

use std::collections::{BTreeMap, BTreeSet};

use breakglass_mailer::core::job::{Attempt, DeadReason, Job, JobId, JobState};
use breakglass_mailer::core::provider::ProviderName;
use breakglass_mailer::queue::Queue;

use super::callers::{Answer, Ledger};
use super::disk::Disk;
use super::life::Run;
use super::wire::Net;

/// No queue holds more than it was ever allowed to.
pub fn bounds(queue: &Queue, largest: &BTreeMap<ProviderName, usize>) -> Vec<String> {
    let too_many = |(name, depth): &(ProviderName, _)| {
        let depth: &breakglass_mailer::queue::Depth = depth;
        largest.get(name).is_none_or(|largest| depth.depth > *largest)
    };
    let depths = queue.depths(&BTreeMap::new());
    depths.iter().filter(|all| too_many(all)).map(|all| format!("too many jobs: {all:?}")).collect()
}

/// A yes is on stable storage from when it is said; a job that was accepted is never gone.
pub fn kept(disk: &Disk, ledger: &Ledger) -> Vec<String> {
    let known: BTreeSet<JobId> = disk.kept.all().1.iter().map(|(job, _)| job.id).collect();
    let mut faults = Vec::new();
    for request in ledger.requests().iter() {
        let gone = request.accepted().unwrap_or_default().iter().filter(|id| !known.contains(id));
        faults.extend(gone.map(|id| format!("lost: {id} of {}", request.subject)));
    }
    faults
}

/// What holds at the end of a run, and its sums.
pub fn at_the_end(
    run: &mut Run,
    disk: &Disk,
    net: &Net,
    ledger: &Ledger,
    cancels: &BTreeSet<JobId>,
) {
    let (notifications, jobs) = disk.kept.all();
    let seen = net.seen();
    let mut faults = seen.faults.clone();
    for (job, attempts) in &jobs {
        let taken_count = seen.taken.get(&job.id).copied().unwrap_or_default();
        let excused_count = seen.excused.get(&job.id).copied().unwrap_or_default();
        let mut fault = |what: &str| faults.push(format!("{what}: {job:?} {attempts:?}"));
        if taken_count > 1 + excused_count {
            fault("sent again without a reason");
        }
        if !are_in_order(job, attempts) {
            fault("attempts are missing or made up");
        }
        match &job.progress.state {
            JobState::Delivered { .. } if taken_count == 0 => fault("nobody has it"),
            JobState::Cancelled { .. } if !cancels.contains(&job.id) => fault("nobody cancelled"),
            JobState::Queued { .. } => fault("it waits, and there is nothing to wait for"),
            JobState::Dead { reason, at, .. } => {
                let has_cause = match reason {
                    DeadReason::Rejected => seen.refused.contains(&job.id),
                    DeadReason::Deferred => seen.put_off.contains(&job.id),
                    DeadReason::Expired => job.progress.deadline <= *at,
                    // Every provider is there again, and nothing breaks the sender.
                    DeadReason::Unreachable | DeadReason::Internal => false,
                };
                if !has_cause {
                    fault("given up without a cause");
                }
                run.dead += 1;
            }
            JobState::Delivered { .. } => run.delivered += 1,
            JobState::Cancelled { .. } => run.cancelled += 1,
        }
        run.copies += taken_count.saturating_sub(1);
        run.redriven += usize::from(job.progress.redrives > 0);
    }
    for request in ledger.requests().iter() {
        if request.is_refused() {
            let is_it = |subject: &str| subject == request.subject;
            if seen.subjects.iter().any(|subject| is_it(subject)) {
                faults.push(format!("sent though every answer was a no: {request:?}"));
            }
            if notifications.iter().any(|kept| is_it(&kept.subject)) {
                faults.push(format!("stored though every answer was a no: {request:?}"));
            }
        }
        let known = |subject: &str| notifications.iter().filter(|n| n.subject == subject).count();
        if known(&request.subject) > 1 && request.key.is_some() {
            faults.push(format!("one key and two notifications: {request:?}"));
        }
        for answer in &request.answers {
            match answer {
                Answer::Accepted { jobs, .. } if Some(&jobs[..]) != request.accepted() => {
                    faults.push(format!("another answer than the first: {request:?}"));
                }
                Answer::Accepted { .. } => run.accepted += 1,
                Answer::Refused(_) => run.refused += 1,
            }
        }
    }
    run.held += seen.held_count;
    run.history.extend(seen.history.iter().cloned());
    run.history.extend(jobs.iter().map(|(job, _)| format!("{job:?}")));
    drop(seen);
    run.faults.extend(faults);
    run.faults.extend(kept(disk, ledger));
}

/// Each attempt that came to its end has its record, in order.
fn are_in_order(job: &Job, attempts: &[Attempt]) -> bool {
    let numbers = attempts.iter().map(|attempt| attempt.number);
    let counted = u32::try_from(attempts.len()).is_ok_and(|len| len == job.progress.attempts_all);
    counted
        && numbers.eq(1..=job.progress.attempts_all)
        && attempts.is_sorted_by_key(|attempt| attempt.at)
}
