//! Every endpoint: its method, its path, what answers it, and what `/openapi.json` says of it.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::openapi::requests::{RetryFilter, RetryRequest};
use super::openapi::strings::{
    DeadCursor, Include, JobCursor, JobState, Key, Limit, MailboxPart, Name, Reason,
};
use super::openapi::{Answer, Endpoints, Operation, Tag};
use super::problem::ProblemKind as P;
use super::request::NotifyRequest;
use super::{deadletters, explain, history, mailbox, notify, probes, providers, read, revive};

const PROVIDER: &str = "Only what this provider has.";
const RECIPIENT: &str = "Only those to a recipient whose address contains this, in any case.";
const REASON: &str = "Only those that were given up for this reason.";
const LIMIT: &str = "How many items at most.";
const CURSOR: &str = "The `next` of the page before; without it the first page.";
const NOTIFICATION: &str = "Of the notification.";
const DEAD_LETTER: &str = "Of the job that was given up.";

/// The document of `/openapi.json`, with the endpoints that only `dev` has.
#[must_use]
pub fn document() -> Value {
    all(Some(Path::new(""))).document(true)
}

/// All of them. Those of the mailbox are there only with its folder.
pub(super) fn all(mailbox: Option<&Path>) -> Endpoints {
    let endpoints = machines(dead_letters(notifications(Endpoints::default())));
    match mailbox {
        Some(folder) => letters(endpoints, folder.into()),
        None => endpoints,
    }
}

fn notifications(endpoints: Endpoints) -> Endpoints {
    use Tag::Notifications as T;
    let notify = Operation::new(T, "notify", "Takes a notification in")
        .detail(
            "It is one job for each recipient. `202` comes only after all of them are on stable \
             storage; after any other answer no mail is ever sent.",
        )
        .parameter::<Key>(
            "header",
            "Idempotency-Key",
            "The same key with the same request gives the first answer again, and no second mail, \
             also after a restart.",
        )
        .query::<bool>(
            "dryRun",
            "With `true` nothing is taken in: the answer is `200`, and tells what would become of \
             the notification and why. An `Idempotency-Key` must be well formed then, too, and \
             counts for nothing.",
        )
        .body::<NotifyRequest>(json!({
            "recipients": ["oncall@example.com"],
            "subject": "Breakglass request on prod-1",
            "html": "<p>Ada asks for <b>cluster-admin</b> on prod-1.</p>",
            "text": "Ada asks for cluster-admin on prod-1.",
        }))
        .answer(
            Answer::json::<notify::Answer<'_>>(StatusCode::ACCEPTED, "It is taken in.")
                .header("Location", true, "The path of the notification.")
                .header(
                    "Idempotency-Replayed",
                    false,
                    "`true` when this is the first answer again.",
                )
                .example(json!({
                    "id": "01a205c3-ccf8-736e-95c7-4b450c39d6b1",
                    "provider": "urgent-mail",
                    "chain": ["urgent-mail", "standard-mail"],
                    "jobs": [{
                        "id": "01a205c3-ccf8-736e-95c7-4b46a65dc48e",
                        "recipient": "oncall@example.com",
                    }],
                    "acceptedAt": "2026-11-23T00:17:27.799Z",
                    "warnings": [],
                })),
        )
        .answer(
            Answer::json::<explain::Explanation>(
                StatusCode::OK,
                "With `dryRun=true`: what would become of it. Nothing is taken in.",
            )
            .example(json!({
                "status": 202,
                "type": null,
                "detail": null,
                "provider": "urgent-mail",
                "rule": "escalation",
                "chain": ["urgent-mail"],
                "warnings": [],
                "recipients": ["oncall@example.com"],
                "queue": {"depth": 3, "capacity": 1000, "wanted": 1},
                "candidates": [{
                    "level": "escalation",
                    "named": "production-escalation",
                    "provider": "urgent-mail",
                    "decision": "taken",
                    "reason": "escalation production-escalation: MailProvider urgent-mail is enabled",
                    "healthy": true,
                    "circuitOpenSince": null,
                    "lastError": null,
                    "heldUntil": null,
                    "heldReason": null,
                }],
            })),
        )
        .problems(&[P::KeyInUse, P::KeyReused, P::NoMailProvider, P::QueueFull])
        .problems(&[P::StoreUnavailable, P::ShuttingDown]);
    let queue = Operation::new(T, "getQueue", "How many jobs each provider holds, by state")
        .query::<Name>("provider", PROVIDER)
        .answer(Answer::json::<read::QueueView>(StatusCode::OK, "The queue."));
    let history = Operation::new(T, "getQueueHistory", "The queues over the last hour")
        .answer(Answer::json::<history::HistoryView>(StatusCode::OK, "Since the start at most."));
    let jobs = Operation::new(T, "listJobs", "Jobs, newest first")
        .query::<JobState>("state", "Only jobs in this state.")
        .query::<Name>("provider", PROVIDER)
        .query::<MailboxPart>("recipient", RECIPIENT)
        .query::<Limit>("limit", LIMIT)
        .query::<JobCursor>("cursor", CURSOR)
        .answer(Answer::json::<read::JobsView>(StatusCode::OK, "A page of jobs."))
        .problems(&[P::StoreUnavailable]);
    let show = Operation::new(T, "getNotification", "A notification, its jobs and every attempt")
        .id(NOTIFICATION)
        .answer(Answer::json::<read::NotificationView>(StatusCode::OK, "The notification."))
        .problems(&[P::StoreUnavailable]);
    let cancel = Operation::new(T, "cancelNotification", "Cancels what is not in flight")
        .id(NOTIFICATION)
        .answer(Answer::json::<read::CancelledView>(StatusCode::OK, "What became of its jobs."))
        .problems(&[P::StoreUnavailable]);
    endpoints
        .post("/notify", notify::notify, notify)
        .get("/queue", read::queue, queue)
        .get("/queue/history", history::show, history)
        .get("/jobs", read::jobs, jobs)
        .get("/notifications/{id}", read::notification, show)
        .delete("/notifications/{id}", read::cancel, cancel)
}

fn dead_letters(endpoints: Endpoints) -> Endpoints {
    use Tag::DeadLetters as T;
    let list = Operation::new(T, "listDeadLetters", "Dead letters, newest first, without bodies")
        .query::<Name>("provider", PROVIDER)
        .query::<Reason>("reason", REASON)
        .query::<MailboxPart>("recipient", RECIPIENT)
        .query::<Limit>("limit", LIMIT)
        .query::<DeadCursor>("cursor", CURSOR)
        .answer(Answer::json::<deadletters::DeadLetters>(StatusCode::OK, "A page of them."))
        .problems(&[P::StoreUnavailable]);
    let show = Operation::new(T, "getDeadLetter", "A dead letter with its attempts")
        .id(DEAD_LETTER)
        .query::<Include>("include", "Adds the message.")
        .answer(Answer::json::<deadletters::OneDeadLetter>(StatusCode::OK, "The dead letter."))
        .problems(&[P::StoreUnavailable]);
    let retry = Operation::new(T, "retryDeadLetter", "Queues a dead letter again")
        .detail("It gets fresh attempts and a new age limit, where it was or at another provider.")
        .id(DEAD_LETTER)
        .optional_body::<RetryRequest>(json!({"mailProvider": "urgent-mail"}))
        .answer(Answer::json::<revive::Retried>(StatusCode::ACCEPTED, "It is queued again."))
        .problems(&[P::QueueFull, P::StoreUnavailable]);
    let retry_all = Operation::new(T, "retryDeadLetters", "Queues dead letters again")
        .detail("All of them or those that the filter names, oldest first.")
        .optional_body::<RetryFilter>(json!({"reason": "rejected"}))
        .answer(Answer::json::<revive::RetriedCount>(StatusCode::ACCEPTED, "How many are."))
        .problems(&[P::StoreUnavailable]);
    let discard = Operation::new(T, "deleteDeadLetter", "Takes a dead letter out for good")
        .id(DEAD_LETTER)
        .answer(Answer::empty(StatusCode::NO_CONTENT, "It is taken out."))
        .problems(&[P::StoreUnavailable]);
    endpoints
        .get("/deadletters", deadletters::list, list)
        .post("/deadletters/retry", revive::retry_all, retry_all)
        .get("/deadletters/{id}", deadletters::show, show)
        .delete("/deadletters/{id}", revive::discard, discard)
        .post("/deadletters/{id}/retry", revive::retry, retry)
}

fn machines(endpoints: Endpoints) -> Endpoints {
    let providers = Operation::new(Tag::Providers, "listProviders", "Settings, health, conditions")
        .answer(Answer::json::<providers::Providers>(StatusCode::OK, "All providers, by name."));
    let livez = Operation::new(Tag::Probes, "getLivez", "Whether the process answers")
        .answer(Answer::json::<probes::Probe>(StatusCode::OK, "It does."));
    let readyz = Operation::new(Tag::Probes, "getReadyz", "Whether notifications are taken in")
        .answer(Answer::json::<probes::Probe>(StatusCode::OK, "They are."))
        .answer(Answer::json::<probes::Probe>(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not yet, or not any more.",
        ));
    let metrics = Operation::new(Tag::Probes, "getMetrics", "Metrics for Prometheus")
        .answer(Answer::text("In the text format, version 0.0.4."));
    endpoints
        .get("/providers", providers::list, providers)
        .get("/livez", probes::livez, livez)
        .get("/readyz", probes::readyz, readyz)
        .get("/metrics", probes::metrics, metrics)
}

/// What `dev` caught.
fn letters(endpoints: Endpoints, folder: Arc<Path>) -> Endpoints {
    let list = Operation::new(Tag::Notifications, "listMailbox", "The mail that `dev` caught")
        .answer(Answer::text("One line for each message, newest first."))
        .problems(&[P::NotFound]);
    let show = Operation::new(Tag::Notifications, "getLetter", "One message that `dev` caught")
        .parameter::<String>("path", "name", "As the list shows it.")
        .answer(Answer::text("As its reader would see it."))
        .problems(&[P::NotFound]);
    let folder_of_one = folder.clone();
    endpoints.get("/mailbox", move || mailbox::list(folder), list).get(
        "/mailbox/{name}",
        move |name| mailbox::show(folder_of_one, name),
        show,
    )
}
