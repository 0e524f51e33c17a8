//! `deadletters`: mail that was given up is looked at, sent again, or taken out.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attempts::{self, Attempt};
use super::failure::Failure;
use super::server::Server;
use super::{age, pages, screen};
use crate::config::client::{DeadFilter, Output, Pages, Reach, Retry};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<Attempts> {
    id: String,
    notification: String,
    provider: String,
    subject: String,
    recipient: String,
    reason: String,
    redrive: String,
    last_error: LastError,
    attempts: Attempts,
    dead_at: String,
    #[serde(default)]
    chain: Vec<String>,
    accepted_at: Option<String>,
    content: Option<Content>,
}

#[derive(Deserialize)]
struct LastError {
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    html: Option<String>,
    text: Option<String>,
    reply_to: Option<String>,
}

#[derive(Deserialize)]
struct Retried {
    id: Uuid,
}

#[derive(Deserialize)]
struct RetriedCount {
    retried: u64,
    refused: u64,
}

/// Lists dead letters, newest first.
///
/// # Errors
/// See [`Failure`].
pub(super) fn list(filter: &DeadFilter, pages: &Pages, reach: &Reach) -> Result<(), Failure> {
    let filter = [("provider", filter.provider.as_deref()), ("reason", filter.reason.as_deref())];
    let server = Server::new(reach)?;
    let found = pages::fetch::<DeadLetter<u32>>(pages, &server, "/deadletters", &filter)?;
    let now = Timestamp::now();
    found.show(reach.output, |page| {
        let row = |letter: &DeadLetter<u32>| {
            [
                letter.id.clone(),
                letter.reason.clone(),
                letter.redrive.clone(),
                age::since(&letter.dead_at, now),
                letter.attempts.to_string(),
                letter.provider.clone(),
                letter.recipient.clone(),
                letter.subject.clone(),
                letter.last_error.message.clone(),
            ]
        };
        let header = [
            "ID",
            "REASON",
            "REDRIVE",
            "AGE",
            "ATTEMPTS",
            "PROVIDER",
            "RECIPIENT",
            "SUBJECT",
            "ERROR",
        ];
        screen::table(header, page.items.iter().map(row).collect(), "no dead letters")
    })
}

/// Shows one dead letter, with its bodies where they are asked for.
///
/// # Errors
/// See [`Failure`].
pub(super) fn show(id: Uuid, with_content: bool, reach: &Reach) -> Result<(), Failure> {
    let include = [("include", with_content.then_some("content"))];
    let server = Server::new(reach)?;
    let found = server.get::<DeadLetter<Vec<Attempt>>>(&format!("/deadletters/{id}"), &include)?;
    let now = Timestamp::now();
    found.show(reach.output, |letter| {
        let content = letter.content.as_ref();
        screen::fields(&[
            ("ID", Some(letter.id.clone())),
            ("NOTIFICATION", Some(letter.notification.clone())),
            ("SUBJECT", Some(letter.subject.clone())),
            ("RECIPIENT", Some(letter.recipient.clone())),
            ("REPLY-TO", content.and_then(|content| content.reply_to.clone())),
            ("PROVIDER", Some(letter.provider.clone())),
            ("CHAIN", Some(letter.chain.join(", "))),
            ("ACCEPTED", letter.accepted_at.as_deref().map(|at| age::at(at, now))),
            ("DEAD", Some(age::at(&letter.dead_at, now))),
            ("REASON", Some(letter.reason.clone())),
            ("REDRIVE", Some(letter.redrive.clone())),
            ("ERROR", Some(letter.last_error.message.clone())),
        ])?;
        screen::line("")?;
        attempts::table(&letter.attempts, now)?;
        for (title, body) in [
            ("TEXT", content.and_then(|content| content.text.as_ref())),
            ("HTML", content.and_then(|content| content.html.as_ref())),
        ] {
            if let Some(body) = body {
                screen::text(title, body)?;
            }
        }
        Ok(())
    })
}

/// Queues these dead letters again.
///
/// # Errors
/// See [`each`].
pub(super) fn retry(retry: &Retry) -> Result<(), Failure> {
    let body = match &retry.mail_provider {
        Some(provider) => json!({"mailProvider": provider}),
        None => json!({}),
    };
    each(&retry.ids, &retry.reach, ["queued again", "retried"], |server, id| {
        let path = format!("/deadletters/{id}/retry");
        let retried = server.post::<Retried>(&path, &body, None)?;
        let is_it = retried.view.id == id;
        is_it.then_some(()).ok_or_else(|| server.foreign("the id of something else"))
    })
}

/// Takes these dead letters out for good.
///
/// # Errors
/// See [`each`].
pub(super) fn delete(ids: &[Uuid], reach: &Reach) -> Result<(), Failure> {
    each(ids, reach, ["deleted", "deleted"], |server, id| {
        server.delete(&format!("/deadletters/{id}"))
    })
}

/// Queues all dead letters again, or those that the filter names.
///
/// # Errors
/// See [`Failure`]; also when a queue had no place for some.
pub(super) fn retry_all(retry: &Retry) -> Result<(), Failure> {
    let mut body = Map::new();
    let fields = [("provider", &retry.filter.provider), ("reason", &retry.filter.reason)];
    for (name, value) in fields {
        body.extend(value.iter().map(|value| (name.to_owned(), Value::from(&**value))));
    }
    let server = Server::new(&retry.reach)?;
    let done = server.post::<RetriedCount>("/deadletters/retry", &body.into(), None)?;
    done.show(retry.reach.output, |count| {
        screen::line(&format!("{} queued again", count.retried))
    })?;
    match done.view.refused {
        0 => Ok(()),
        refused => Err(Failure::Failed {
            sentence: format!("{refused} dead letters found no place in their queue"),
            hint: Some("`breakglass-mailer queue` shows what waits; repeat it later".to_owned()),
        }),
    }
}

/// Acts on each id and goes on after one that the server refuses, which is named at once. `words`
/// say what was done: to a person, and as the field of the JSON.
///
/// # Errors
/// When some were refused. Ends at once where the server is not reached: the rest would fare alike.
fn each(
    ids: &[Uuid],
    reach: &Reach,
    words: [&str; 2],
    act: impl Fn(&Server, Uuid) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let server = Server::new(reach)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let (mut hint, mut end) = (None, None);
    for id in ids {
        match act(&server, *id) {
            Ok(()) => done.push(*id),
            Err(Failure::Refused(problem)) => {
                failed.push(json!({"id": id, "problem": problem}));
                let failure = Failure::Refused(problem);
                failure.tell_of(&format!("breakglass-mailer: {id}"));
                hint = failure.hint("deadletters list");
            }
            Err(failure) => {
                screen::note(&format!("breakglass-mailer: stopped at {id}"));
                end = Some(failure);
                break;
            }
        }
    }
    match reach.output {
        Output::Json => screen::json(&json!({words[1]: done, "failed": failed}))?,
        Output::Table => {
            done.iter().try_for_each(|id| screen::line(&format!("{id} {}", words[0])))?
        }
    }
    match end {
        Some(failure) => Err(failure),
        None if failed.is_empty() => Ok(()),
        None => {
            let sentence = format!("{} of {} failed", failed.len(), ids.len());
            Err(Failure::Failed { sentence, hint })
        }
    }
}
