//! Reading the queue, and cancelling: `/queue`, `/jobs`, `/notifications`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use schemars::JsonSchema;
use serde::Serialize;

use super::openapi::strings;
use super::params::{Params, id};
use super::problem::Problem;
use super::view::{JobView, JobWithAttempts, Stamp, names};
use super::{Api, run_to_end};
use crate::core::job::{Job, JobId, JobState};
use crate::core::notification::{Notification, NotificationId};
use crate::core::provider::ProviderName;
use crate::queue::{Depth, Phase};

/// All jobs that are not at their end, parked ones included, by provider.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Queue")]
pub(super) struct QueueView {
    /// How many there are.
    depth: usize,
    /// How many there can be: the `queueSize` of all providers.
    capacity: usize,
    /// When the oldest was taken in.
    oldest_accepted_at: Option<Stamp>,
    /// Every provider that is configured or has jobs, by name.
    providers: Vec<ProviderQueue>,
}

/// The jobs of one provider.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderQueue {
    /// Of the provider.
    #[schemars(with = "strings::Name")]
    name: String,
    /// How many jobs it has.
    depth: usize,
    /// Its `queueSize`; 0 when it was removed.
    capacity: usize,
    /// Those that are due now.
    ready: usize,
    /// Those that wait for their backoff.
    scheduled: usize,
    /// Those whose attempt is under way.
    in_flight: usize,
    /// Dead letters that keep their place until the provider recovers.
    parked: usize,
    /// What the last check or delivery showed; null before the first.
    healthy: Option<bool>,
    /// When the first of those that wait is due, and its provider takes it.
    next_attempt_at: Option<Stamp>,
    /// Until when the provider takes no mail, at least: its server's quota or its own day's limit is
    /// used up. Meanwhile jobs go on to another of their chain, or wait.
    held_until: Option<Stamp>,
    /// Why.
    held_reason: Option<String>,
}

/// The depth of each queue: every provider of the catalog, and those removed that still have jobs.
pub(super) async fn queue(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<QueueView>, Problem> {
    let wanted = Params::of(&uri, &["provider"])?.provider()?;
    let depths = depths(&api);
    let shown = depths.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|w| w == *name));
    let catalog = api.registry.catalog();
    let mut view =
        QueueView { depth: 0, capacity: 0, oldest_accepted_at: None, providers: Vec::new() };
    let mut oldest = None;
    for (name, depth) in shown {
        let provider = catalog.providers.get(name);
        let capacity = provider.map_or(0, |provider| provider.retry.queue_size);
        view.depth += depth.depth;
        view.capacity += capacity;
        oldest = [oldest, depth.oldest_accepted_at].into_iter().flatten().min();
        let held = api.registry.held(name);
        view.providers.push(ProviderQueue {
            name: name.to_string(),
            depth: depth.depth,
            capacity,
            ready: depth.ready,
            scheduled: depth.scheduled,
            in_flight: depth.in_flight,
            parked: depth.parked,
            healthy: api.registry.health(name).healthy,
            next_attempt_at: depth.next_attempt_at.map(Stamp),
            held_until: held.as_ref().map(|held| Stamp(held.until)),
            held_reason: held.map(|held| held.why),
        });
    }
    view.oldest_accepted_at = oldest.map(Stamp);
    Ok(Json(view))
}

/// The depth of every provider that is configured or has jobs, by name.
pub(super) fn depths(api: &Api) -> BTreeMap<ProviderName, Depth> {
    let configured: BTreeSet<ProviderName> =
        api.registry.catalog().providers.keys().cloned().collect();
    let takes_from = |name: &ProviderName| Some((name.clone(), api.registry.takes_from(name, 1)?));
    let starts: BTreeMap<_, _> = configured.iter().filter_map(takes_from).collect();
    let mut depths: BTreeMap<ProviderName, Depth> = api.queue.depths(&starts).into_iter().collect();
    depths.retain(|name, depth| 0 < depth.depth || configured.contains(name));
    for name in configured {
        depths.entry(name).or_default();
    }
    depths
}

/// A page of jobs.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Jobs")]
pub(super) struct JobsView {
    /// Newest first.
    items: Vec<JobView>,
    /// The `cursor` of the next page; null on the last.
    #[schemars(with = "Option<strings::JobCursor>")]
    next: Option<String>,
}

/// Jobs, newest first. Those that are not at their end come from memory.
pub(super) async fn jobs(State(api): State<Arc<Api>>, uri: Uri) -> Result<Json<JobsView>, Problem> {
    let params = Params::of(&uri, &["state", "provider", "recipient", "limit", "cursor"])?;
    let state = params.take("state", phase)?;
    let (provider, recipient) = (params.provider()?, params.recipient()?);
    let (before, limit) = (params.job_cursor()?, params.limit()?);
    let keep = move |job: &Job| {
        provider.as_ref().is_none_or(|name| name == job.progress.provider())
            && recipient.as_ref().is_none_or(|part| part.is_in(&job.recipient))
    };
    match state {
        Some(phase @ (Phase::Ready | Phase::InFlight | Phase::Scheduled | Phase::Dead)) => {
            // One more than asked for tells whether there is a next page.
            let mut found = api.queue.in_phase(phase, keep, before, limit + 1);
            let has_more = limit < found.len();
            found.truncate(limit);
            let next = found.last().filter(|_| has_more).map(|job| job.id.to_string());
            let items = found.iter().map(|job| JobView::of(job, phase, &api)).collect();
            Ok(Json(JobsView { items, next }))
        }
        ended @ (None | Some(Phase::Delivered | Phase::Cancelled)) => {
            let page = api
                .queue
                .jobs(before, limit, move |job| {
                    keep(job) && ended.is_none_or(|ended| ended_phase(job) == Some(ended))
                })
                .await?;
            let view = |job: &_| JobView::of(job, api.queue.phase(job), &api);
            let items = page.items.iter().map(view).collect();
            Ok(Json(JobsView { items, next: page.next.map(|id| id.to_string()) }))
        }
    }
}

/// How a job ended, if it has.
fn ended_phase(job: &Job) -> Option<Phase> {
    match job.progress.state {
        JobState::Delivered { .. } => Some(Phase::Delivered),
        JobState::Cancelled { .. } => Some(Phase::Cancelled),
        JobState::Queued { .. } | JobState::Dead { .. } => None,
    }
}

fn phase(text: &str) -> Result<Phase, String> {
    let found = Phase::ALL.into_iter().find(|phase| phase.as_str() == text);
    found.ok_or_else(|| format!("must be one of {}", Phase::ALL.map(Phase::as_str).join(", ")))
}

/// A notification, without its bodies.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Notification")]
pub(super) struct NotificationView {
    /// Of the notification.
    #[schemars(with = "strings::Id")]
    id: String,
    /// As it was posted.
    subject: String,
    /// The providers that were chosen when it was taken in, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// When it was on stable storage.
    accepted_at: Stamp,
    /// From when on it is not delivered, when its caller said so.
    expires_at: Option<Stamp>,
    /// Names in the request that led nowhere.
    warnings: Vec<String>,
    /// The span that it was taken in by, as a W3C `traceparent`; its attempts are below it.
    traceparent: Option<String>,
    /// One for each recipient, but those that left the history.
    jobs: Vec<JobWithAttempts>,
}

/// A notification with its jobs and every attempt; never its bodies.
pub(super) async fn notification(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<NotificationView>, Problem> {
    Params::of(&uri, &[])?;
    let found = find(&api, id(path)?).await?;
    let mut jobs = Vec::with_capacity(found.jobs.len());
    for (id, _) in &found.jobs {
        // A job that left the history before the others is not shown.
        if let Some((job, attempts)) = api.queue.job(*id).await? {
            jobs.push(JobWithAttempts::of(&job, &attempts, &api));
        }
    }
    Ok(Json(NotificationView {
        id: found.id.to_string(),
        chain: names(&found.chain),
        accepted_at: Stamp(found.accepted_at),
        expires_at: found.expires_at.map(Stamp),
        subject: found.subject,
        warnings: found.warnings,
        traceparent: found.trace.map(|trace| trace.traceparent()),
        jobs,
    }))
}

/// What became of the jobs of a notification that was to be cancelled.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Cancelled")]
pub(super) struct CancelledView {
    /// The jobs that were taken out.
    #[schemars(with = "Vec<strings::Id>")]
    cancelled: Vec<String>,
    /// The jobs that were not.
    kept: Vec<KeptJob>,
}

/// A job in flight or at its end.
#[derive(JsonSchema, Serialize)]
struct KeptJob {
    /// Of the job.
    #[schemars(with = "strings::Id")]
    id: String,
    /// Where it stands.
    #[schemars(with = "strings::JobState")]
    state: &'static str,
}

/// Cancels the jobs of a notification that are not in flight and not at their end.
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<CancelledView>, Problem> {
    Params::of(&uri, &[])?;
    let found = find(&api, id(path)?).await?;
    let done = run_to_end(async move { Ok(api.queue.cancel(&found).await?) }).await?;
    let kept = |(id, phase): &(JobId, Phase)| KeptJob { id: id.to_string(), state: phase.as_str() };
    Ok(Json(CancelledView {
        cancelled: done.cancelled.iter().map(ToString::to_string).collect(),
        kept: done.kept.iter().map(kept).collect(),
    }))
}

async fn find(api: &Api, id: NotificationId) -> Result<Notification, Problem> {
    let found = api.queue.notification(id).await?;
    found.ok_or_else(|| Problem::not_found("There is no such notification, or no longer."))
}
