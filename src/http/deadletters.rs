//! Dead letters: listed, shown, queued again, taken out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::Serialize;

use super::body::OptionalJsonBytes;
use super::fields::Object;
use super::params::{NOT_A_PROVIDER_NAME, Params, dead_cursor, dead_reason, id};
use super::problem::{FieldError, Problem};
use super::view::{AttemptView, Stamp, enhanced_code, names};
use super::{Api, run_to_end};
use crate::core::job::{Attempt, AttemptOutcome, Job, JobId, JobState};
use crate::core::notification::{Content, NotificationId};
use crate::core::provider::ProviderName;
use crate::core::time::Time;
use crate::queue::{ActError, DeadFilter};

/// `GET /deadletters`.
#[derive(Serialize)]
pub(super) struct DeadLetters {
    total: usize,
    items: Vec<DeadLetter<u32>>,
    next: Option<String>,
}

/// A dead letter: with the count of its attempts in a list, with all of them by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<Attempts> {
    id: String,
    notification: String,
    provider: String,
    subject: String,
    recipient: String,
    reason: &'static str,
    redrive: &'static str,
    last_error: LastError,
    attempts: Attempts,
    dead_at: Stamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastError {
    code: Option<u16>,
    enhanced_code: Option<String>,
    message: String,
    stage: Option<&'static str>,
    at: Stamp,
}

/// Dead letters, newest first; never their bodies.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<DeadLetters>, Problem> {
    let params = Params::of(&uri, &["provider", "reason", "limit", "cursor"])?;
    let filter = DeadFilter { provider: params.provider()?, reason: params.reason()? };
    let page = api.queue.dead_letters(&filter, params.dead_cursor()?, params.limit()?);
    let mut subjects: HashMap<NotificationId, String> = HashMap::new();
    let mut items = Vec::with_capacity(page.items.len());
    for job in &page.items {
        let attempts = api.queue.job(job.id).await?.map(|(_, attempts)| attempts);
        let subject = match subjects.get(&job.notification) {
            Some(subject) => subject.clone(),
            None => subject(&api, job).await?,
        };
        subjects.insert(job.notification, subject.clone());
        let attempts = attempts.unwrap_or_default();
        let count = job.progress.attempts_all;
        items.extend(DeadLetter::of(&api, job, subject, &attempts, count));
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
        let goes_out_by_itself = api.redrives && job.progress.is_parked();
        Some(Self {
            id: job.id.to_string(),
            notification: job.notification.to_string(),
            provider: job.progress.provider().to_string(),
            subject,
            recipient: job.recipient.to_string(),
            reason: reason.as_str(),
            redrive: if goes_out_by_itself { "automatic" } else { "manual" },
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
    let notification = api.queue.notification(job.notification).await?;
    Ok(notification.map(|found| found.subject).unwrap_or_default())
}

/// `GET /deadletters/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneDeadLetter {
    #[serde(flatten)]
    letter: DeadLetter<Vec<AttemptView>>,
    detail: String,
    chain: Vec<String>,
    accepted_at: Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContentView {
    subject: String,
    html: Option<String>,
    text: Option<String>,
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
        detail: detail.clone(),
        chain: names(&job.progress.chain),
        accepted_at: Stamp(job.accepted_at),
        content,
    }))
}

/// `POST /deadletters/{id}/retry`.
#[derive(Serialize)]
pub(super) struct Retried {
    id: String,
}

/// Queues one dead letter again, where it was or at another provider.
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<(StatusCode, Json<Retried>), Problem> {
    Params::of(&uri, &[])?;
    let job: JobId = id(path)?;
    let mut object = body.map_or_else(|| Ok(Object::empty()), |bytes| Object::parse(&bytes))?;
    let to = object.checked("mailProvider", provider_name);
    object.finish()?;
    if let Some(name) = &to {
        let rule = match api.registry.catalog().providers.get(name) {
            None => Some("does not exist"),
            Some(provider) => provider.disabled.then_some("is disabled"),
        };
        if let Some(rule) = rule {
            return Err(Problem::invalid(vec![FieldError::new("/mailProvider", rule)]));
        }
    }
    run_to_end(async move { Ok(revive(&api, job, to.as_ref()).await?) }).await?;
    Ok((StatusCode::ACCEPTED, Json(Retried { id: job.to_string() })))
}

fn provider_name(text: &str) -> Result<ProviderName, &'static str> {
    ProviderName::new(text).ok_or(NOT_A_PROVIDER_NAME)
}

async fn revive(api: &Api, job: JobId, to: Option<&ProviderName>) -> Result<(), ActError> {
    let catalog = api.registry.catalog();
    // A provider that was removed has no bound of its own any more: the job only passes it.
    let capacity = |name: &ProviderName| {
        let policy = catalog.providers.get(name).map(|provider| provider.retry);
        policy.unwrap_or_default().queue_size
    };
    let revived = api.queue.revive(job, to, capacity).await;
    if let Err(ActError::Full { provider, .. }) = &revived {
        api.metrics.refused(provider, "full");
    }
    revived
}

/// `POST /deadletters/retry`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct RetriedCount {
    retried: usize,
    refused: usize,
}

/// Queues all dead letters again, or those of one provider or one reason, oldest first. Once a
/// queue is full the rest of its dead letters are counted as refused.
pub(super) async fn retry_all(
    State(api): State<Arc<Api>>,
    uri: Uri,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<(StatusCode, Json<RetriedCount>), Problem> {
    Params::of(&uri, &[])?;
    let mut object = body.map_or_else(|| Ok(Object::empty()), |bytes| Object::parse(&bytes))?;
    let provider = object.checked("provider", provider_name);
    let reason = object.checked("reason", dead_reason);
    object.finish()?;
    let filter = DeadFilter { provider, reason };
    let done = run_to_end(async move { revive_all(&api, &filter).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(done)))
}

async fn revive_all(api: &Arc<Api>, filter: &DeadFilter) -> Result<RetriedCount, Problem> {
    let mut letters: Vec<(JobId, ProviderName)> = Vec::new();
    let mut before = None;
    loop {
        let page = api.queue.dead_letters(filter, before, PAGE_LEN);
        letters.extend(page.items.iter().map(|job| (job.id, job.progress.home().clone())));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    letters.reverse();
    let mut done = RetriedCount::default();
    let mut full: BTreeSet<ProviderName> = BTreeSet::new();
    for batch in letters.chunks(BATCH_LEN) {
        let mut reviving = tokio::task::JoinSet::new();
        for (id, home) in batch {
            if full.contains(home) {
                done.refused += 1;
                continue;
            }
            let (api, id) = (api.clone(), *id);
            reviving.spawn(async move { revive(&api, id, None).await });
        }
        while let Some(revived) = reviving.join_next().await {
            match revived.map_err(|error| super::broken(&error))? {
                Ok(()) => done.retried += 1,
                Err(ActError::Full { provider, .. }) => {
                    done.refused += 1;
                    full.insert(provider);
                }
                // Somebody else took it meanwhile.
                Err(ActError::NotFound) => {}
                Err(error @ ActError::Store(_)) => return Err(error.into()),
            }
        }
    }
    Ok(done)
}

/// How many dead letters are looked at in one go.
const PAGE_LEN: usize = 1000;
/// How many are queued again side by side, so that they share a sync of the disk.
const BATCH_LEN: usize = 64;

/// Takes one dead letter out for good.
pub(super) async fn discard(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?;
    let job = id(path)?;
    run_to_end(async move { Ok(api.queue.discard(job).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}
