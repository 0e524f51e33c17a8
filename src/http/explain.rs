//! `POST /notify?dryRun=true`: what would become of a notification, and why. Nothing is taken in.

use axum::Json;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::notify::{capacity, no_route};
use super::openapi::strings;
use super::problem::{Problem, ProblemKind};
use super::request::NotifyRequest;
use super::view::{Stamp, names};
use crate::core::provider::ProviderName;
use crate::core::route::{Candidate, Decision, Route, consider};

/// What would become of a notification that was posted now.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    /// The status that it would be answered with: 202 or 503.
    status: u16,
    /// The `type` of the problem that it would be answered with; null when it would be taken in.
    r#type: Option<String>,
    /// The `detail` of that problem.
    detail: Option<String>,
    /// Whose queue would take it.
    #[schemars(with = "Option<strings::Name>")]
    provider: Option<String>,
    /// The level that this provider was chosen by.
    #[schemars(with = "Option<strings::Level>")]
    rule: Option<&'static str>,
    /// The providers that might carry it, in order.
    #[schemars(with = "Vec<strings::Name>")]
    chain: Vec<String>,
    /// Names in the request that lead nowhere.
    warnings: Vec<String>,
    /// To whom it would go, one job for each.
    #[schemars(with = "Vec<strings::Mailbox>")]
    recipients: Vec<String>,
    /// The queue that would take it.
    queue: Option<Place>,
    /// Every level, in order, and what became of it.
    candidates: Vec<CandidateView>,
}

/// How full a queue is.
#[derive(JsonSchema, Serialize)]
struct Place {
    /// How many jobs it has.
    depth: usize,
    /// How many it can have.
    capacity: usize,
    /// How many the notification would add.
    wanted: usize,
}

/// A level at which a provider can be named, and what became of it.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Candidate")]
struct CandidateView {
    /// Which one.
    #[schemars(with = "strings::Level")]
    level: &'static str,
    /// What the request names there.
    named: Option<String>,
    /// The provider that this leads to.
    provider: Option<String>,
    /// What became of it.
    #[schemars(with = "strings::Decision")]
    decision: &'static str,
    /// The same for people.
    reason: String,
    /// What the last check or delivery showed; null before the first. It does not count here.
    healthy: Option<bool>,
    /// Since when the provider's server is known to be unreachable; jobs pass it by until it is back.
    circuit_open_since: Option<Stamp>,
    /// Why the last check or delivery that failed did so.
    last_error: Option<String>,
    /// Until when the provider takes no mail, at least; jobs go on to the next, or wait.
    held_until: Option<Stamp>,
    /// Why.
    held_reason: Option<String>,
}

/// Explains what would become of the request.
///
/// # Errors
/// 422 where the notification itself would be refused with it.
pub(super) fn explain(api: &Api, request: &NotifyRequest) -> Result<Json<Explanation>, Problem> {
    let catalog = api.registry.catalog();
    let recipients = request.recipients(&catalog, api.clock.now())?;
    let considered = consider(request.wish(), &catalog);
    let (chain, queue, refusal) = match considered.route().map_err(no_route) {
        Ok(Route { chain, .. }) => {
            let (wanted, capacity) = (recipients.len(), capacity(&catalog, &chain[0]));
            let (depth, refusal) = api.queue.place(&chain[0], wanted, capacity);
            let queue = Place { depth, capacity, wanted };
            (chain, Some(queue), refusal.err().map(Problem::from))
        }
        Err(problem) if problem.kind() == ProblemKind::NoMailProvider => {
            (Vec::new(), None, Some(problem))
        }
        Err(problem) => return Err(problem),
    };
    let refusal = refusal.as_ref().map(Problem::body);
    let taken = considered.candidates.iter().find(|found| found.decision == Decision::Taken);
    Ok(Json(Explanation {
        status: refusal.as_ref().map_or(StatusCode::ACCEPTED.as_u16(), |problem| problem.status),
        r#type: refusal.as_ref().map(|problem| problem.r#type.clone()),
        detail: refusal.as_ref().map(|problem| problem.detail.to_owned()),
        provider: chain.first().map(ToString::to_string),
        rule: taken.map(|candidate| candidate.level.as_str()),
        chain: names(&chain),
        warnings: considered.warnings(),
        recipients: recipients.iter().map(ToString::to_string).collect(),
        queue,
        candidates: considered.candidates.iter().map(|found| view(api, found)).collect(),
    }))
}

fn view(api: &Api, candidate: &Candidate) -> CandidateView {
    let name = candidate.provider.as_deref().and_then(ProviderName::new);
    let held = name.as_ref().and_then(|name| api.registry.held(name));
    let health = name.map(|name| api.registry.health(&name));
    let health = health.as_ref();
    CandidateView {
        level: candidate.level.as_str(),
        named: candidate.named.clone(),
        provider: candidate.provider.clone(),
        decision: candidate.decision.as_str(),
        reason: candidate.reason(),
        healthy: health.and_then(|health| health.healthy),
        circuit_open_since: health.and_then(|health| health.open).map(|open| Stamp(open.since)),
        last_error: health.and_then(|health| health.last_error().map(str::to_owned)),
        held_until: held.as_ref().map(|held| Stamp(held.until)),
        held_reason: held.map(|held| held.why),
    }
}
