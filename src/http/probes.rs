//! `/livez`, `/readyz` and `/metrics`: for machines, without authentication.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::problem::{Problem, ProblemKind};
use super::read::depths;
use crate::core::health::Health;
use crate::core::provider::{Provider, ProviderName};
use crate::metrics::{ProviderReading, ProviderStatus};
use crate::queue::{DeadFilter, Depth};

/// The answer of a probe.
#[derive(JsonSchema, Serialize)]
pub(super) struct Probe {
    /// `alive`, `ready` or `notReady`.
    status: &'static str,
}

/// The process answers. Says nothing of providers or the disk: a restart mends neither.
pub(super) async fn livez() -> Json<Probe> {
    Json(Probe { status: "alive" })
}

/// Whether notifications are taken in.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, Json<Probe>) {
    if *api.ready.borrow() {
        (StatusCode::OK, Json(Probe { status: "ready" }))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Probe { status: "notReady" }))
    }
}

/// All metrics, in the text format of Prometheus.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, Problem> {
    let readings = readings(&api);
    let text = api.metrics.render(&readings).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::new(ProblemKind::Internal, "The metrics cannot be written.")
    })?;
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media_type)], text))
}

/// What every provider's gauges show now.
fn readings(api: &Api) -> Vec<ProviderReading> {
    let catalog = api.registry.catalog();
    let depths = depths(api).into_iter();
    depths
        .map(|(name, depth)| {
            let health = api.registry.health(&name);
            reading(api, name.clone(), catalog.providers.get(&name), &health, &depth)
        })
        .collect()
}

fn reading(
    api: &Api,
    name: ProviderName,
    provider: Option<&Arc<Provider>>,
    health: &Health,
    depth: &Depth,
) -> ProviderReading {
    let filter = DeadFilter { provider: Some(name.clone()), ..DeadFilter::default() };
    let oldest = depth.oldest_accepted_at;
    ProviderReading {
        configured: provider.map(|provider| !provider.disabled),
        status: match (provider, health.healthy) {
            (Some(provider), _) if provider.disabled => Some(ProviderStatus::Disabled),
            (Some(_), Some(true)) => Some(ProviderStatus::Healthy),
            (Some(_), Some(false)) => Some(ProviderStatus::Unhealthy),
            (Some(_), None) | (None, _) => None,
        },
        is_circuit_open: !health.is_closed(),
        is_held: api.registry.held(&name).is_some(),
        day_messages_count: api.registry.day_count(&name),
        capacity: provider.map_or(0, |provider| provider.retry.queue_size),
        states: [
            ("ready", depth.ready),
            ("scheduled", depth.scheduled),
            ("inFlight", depth.in_flight),
            ("parked", depth.parked),
        ],
        dead_letters_count: api.queue.dead_letters(&filter, None, 0).total,
        oldest_pending: oldest.map(|accepted| api.clock.now().since(accepted)).unwrap_or_default(),
        name,
    }
}
