//! Reading dead letters: `GET /deadletters` and one of them. Their content only where it is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::openapi::strings;
use super::params::{Params, dead_cursor, id};
use super::problem::Problem;
use super::view::{AttemptView, Stamp, enhanced_code, names, redrive};
use crate::core::job::{Attempt, AttemptOutcome, Job, JobState};
use crate::core::notification::{Content, NotificationId};
use crate::core::time::Time;
use crate::queue::DeadFilter;
use crate::queue::store::StoreError;

/// A page of dead letters.
#[derive(JsonSchema, Serialize)]
pub(super) struct DeadLetters {
    /// How many there are on all pages.
    total: usize,
    /// Newest first.
    items: Vec<DeadLetter<u32>>,
    /// The `cursor` of the next page; null on the last.
    #[schemars(with = "Option<strings::DeadCursor>")]
    next: Option<String>,
}

/// A job that was given up: in a list with the count of its attempts, by itself with all of them.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetter")]
struct DeadLetter<Attempts> {
    /// Of the job.
    #[schemars(with = "strings::Id")]
    id: String,
    /// The id of its notification.
    #[schemars(with = "strings::Id")]
    notification: String,
    /// The provider that had it last.
    #[schemars(with = "strings::Name")]
    provider: String,
    /// Of the notification; empty when it cannot be read.
    subject: String,
    /// To whom it was to go.
    #[schemars(with = "strings::Mailbox")]
    recipient: String,
    /// Why it was given up.
    #[schemars(with = "strings::Reason")]
    reason: &'static str,
    /// Whether it goes out by itself when its provider recovers.
    #[schemars(with = "strings::Redrive")]
    redrive: &'static str,
    /// What went wrong last.
    last_error: LastError,
    /// The attempts that were made.
    attempts: Attempts,
    /// When it was given up.
    dead_at: Stamp,
}

/// The last error of a dead letter.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastError {
    /// The code of the server's reply, when there was one.
    code: Option<u16>,
    /// The enhanced status code of that reply (RFC 3463), when it had one.
    #[schemars(with = "Option<strings::EnhancedCode>")]
    enhanced_code: Option<String>,
    /// One sentence.
    message: String,
    /// Where in the dialogue; null when it was given up without an attempt.
    #[schemars(with = "Option<strings::Stage>")]
    stage: Option<&'static str>,
    /// When.
    at: Stamp,
}

/// Dead letters, newest first; never their bodies.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<DeadLetters>, Problem> {
    let params = Params::of(&uri, &["provider", "reason", "recipient", "limit", "cursor"])?;
    let filter = DeadFilter {
        provider: params.provider()?,
        reason: params.reason()?,
        recipient: params.recipient()?,
    };
    let page = api.queue.dead_letters(&filter, params.dead_cursor()?, params.limit()?);
    let mut subjects: HashMap<NotificationId, String> = HashMap::new();
    let mut items = Vec::with_capacity(page.items.len());
    for job in &page.items {
        let subject = match subjects.get(&job.notification) {
            Some(subject) => subject.clone(),
            None => subject(&api, job).await?,
        };
        subjects.insert(job.notification, subject.clone());
        let found = if_readable(api.queue.job(job.id).await)?;
        let attempts = found.map(|(_, attempts)| attempts).unwrap_or_default();
        items.extend(DeadLetter::of(&api, job, subject, &attempts, job.progress.attempts_all));
    }
    Ok(Json(DeadLetters { total: page.total, items, next: page.next.map(dead_cursor) }))
}

impl<Attempts> DeadLetter<Attempts> {
    /// `None` when the job is not dead.
    fn of(
        api: &Api,
        job: &Job,
        subject: String,
        made: &[Attempt],
        attempts: Attempts,
    ) -> Option<Self> {
        let JobState::Dead { reason, at, detail } = &job.progress.state else { return None };
        Some(Self {
            id: job.id.to_string(),
            notification: job.notification.to_string(),
            provider: job.progress.provider().to_string(),
            subject,
            recipient: job.recipient.to_string(),
            reason: reason.as_str(),
            redrive: redrive(job, api)?,
            last_error: LastError::of(made, detail, *at),
            attempts,
            dead_at: Stamp(*at),
        })
    }
}

impl LastError {
    /// The last attempt's error; a job that was given up without one says why.
    fn of(attempts: &[Attempt], detail: &str, dead_at: Time) -> Self {
        let failed = attempts.iter().rfind(|a| a.outcome != AttemptOutcome::Delivered);
        match failed {
            Some(attempt) => Self {
                code: attempt.reply.as_ref().map(|reply| reply.code),
                enhanced_code: enhanced_code(attempt),
                message: attempt.message.clone(),
                stage: Some(attempt.stage.as_str()),
                at: Stamp(attempt.at),
            },
            None => Self {
                code: None,
                enhanced_code: None,
                message: detail.to_owned(),
                stage: None,
                at: Stamp(dead_at),
            },
        }
    }
}

async fn subject(api: &Api, job: &Job) -> Result<String, Problem> {
    let notification = if_readable(api.queue.notification(job.notification).await)?;
    Ok(notification.map(|found| found.subject).unwrap_or_default())
}

/// One damaged record must not hide the dead letters beside it.
fn if_readable<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, Problem> {
    match read {
        Err(StoreError::Unreadable(place)) => {
            tracing::warn!(%place, "a dead letter is shown without what cannot be read of it");
            Ok(None)
        }
        other => Ok(other?),
    }
}

/// One dead letter.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneDeadLetter {
    #[serde(flatten)]
    letter: DeadLetter<Vec<AttemptView>>,
    /// Why it was given up, in a sentence.
    detail: String,
    /// The providers that could have carried it, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// When its notification was taken in.
    accepted_at: Stamp,
    /// The message, with `include=content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ContentView")]
    content: Option<ContentView>,
}

/// What every recipient of a notification reads.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Content")]
struct ContentView {
    /// One line.
    subject: String,
    /// The message as HTML.
    html: Option<String>,
    /// The message as plain text.
    text: Option<String>,
    /// Where answers go.
    #[schemars(with = "Option<strings::Mailbox>")]
    reply_to: Option<String>,
}

impl From<Content> for ContentView {
    fn from(content: Content) -> Self {
        Self {
            subject: content.subject,
            html: content.html,
            text: content.text,
            reply_to: content.reply_to.map(|address| address.to_string()),
        }
    }
}

/// One dead letter with its attempts, and with its content where that is asked for.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<OneDeadLetter>, Problem> {
    let params = Params::of(&uri, &["include"])?;
    let include = params
        .take("include", |text| (text == "content").then_some(()).ok_or("must be \"content\""))?;
    let none = || Problem::not_found("There is no such dead letter.");
    let (job, attempts) = api.queue.job(id(path)?).await?.ok_or_else(none)?;
    let JobState::Dead { detail, .. } = &job.progress.state else { return Err(none()) };
    let views = attempts.iter().map(AttemptView::of).collect();
    let subject = subject(&api, &job).await?;
    let letter = DeadLetter::of(&api, &job, subject, &attempts, views).ok_or_else(none)?;
    let content = match include {
        Some(()) => Some(api.queue.content(job.notification).await?.into()),
        None => None,
    };
    Ok(Json(OneDeadLetter {
        letter,
        detail: detail.to_string(),
        chain: names(&job.progress.chain),
        accepted_at: Stamp(job.accepted_at),
        content,
    }))
}
