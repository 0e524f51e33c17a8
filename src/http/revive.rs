//! Acting on dead letters: queued again, one or many, and taken out.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::OptionalJsonBytes;
use super::fields::Object;
use super::notify::retry_after;
use super::openapi::strings;
use super::params::{NOT_A_PROVIDER_NAME, Params, address_part, dead_reason, id};
use super::problem::{FieldError, Problem};
use super::{Api, broken, run_to_end};
use crate::core::job::JobId;
use crate::core::provider::ProviderName;
use crate::queue::{ActError, DeadFilter};

/// A dead letter that is queued again.
#[derive(JsonSchema, Serialize)]
pub(super) struct Retried {
    /// Of the job, as before.
    #[schemars(with = "strings::Id")]
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
    let mut object = body.map_or_else(|| Ok(Object::empty()), |body| Object::parse(&body.bytes))?;
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
    run_to_end(async move {
        revive(&api, job, to.as_ref()).await.map_err(|error| match error {
            ActError::Full { ref provider, capacity } => {
                let seconds = retry_after(&api, provider, 1, capacity, 1);
                Problem::from(error).retried_after(seconds)
            }
            error => error.into(),
        })
    })
    .await?;
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

/// How many dead letters are queued again.
#[derive(Clone, Copy, Debug, Default, JsonSchema, Serialize)]
pub(super) struct RetriedCount {
    /// Those that are.
    retried: usize,
    /// Those that found no place in their queue, and stay dead.
    refused: usize,
}

/// Queues all dead letters again, or those that the filter takes, oldest first. Once a
/// queue is full the rest of its dead letters are counted as refused.
pub(super) async fn retry_all(
    State(api): State<Arc<Api>>,
    uri: Uri,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<(StatusCode, Json<RetriedCount>), Problem> {
    Params::of(&uri, &[])?;
    let mut object = body.map_or_else(|| Ok(Object::empty()), |body| Object::parse(&body.bytes))?;
    let provider = object.checked("provider", provider_name);
    let reason = object.checked("reason", dead_reason);
    let recipient = object.checked("recipient", address_part);
    object.finish()?;
    let filter = DeadFilter { provider, reason, recipient };
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
        let mut failed = None;
        while let Some(revived) = reviving.join_next().await {
            match revived.map_err(|error| broken(&error))? {
                Ok(()) => done.retried += 1,
                Err(ActError::Full { provider, .. }) => {
                    done.refused += 1;
                    full.insert(provider);
                }
                // Somebody else took it meanwhile.
                Err(ActError::NotFound) => {}
                // The others run to their end all the same.
                Err(error @ ActError::Store(_)) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
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
