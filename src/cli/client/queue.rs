//! `queue`: how many jobs each provider holds.

use jiff::Timestamp;
use serde::Deserialize;

use super::failure::Failure;
use super::server::Server;
use super::{age, screen};
use crate::config::client::Queue;

#[derive(Deserialize)]
struct Depths {
    providers: Vec<Depth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Depth {
    name: String,
    depth: u64,
    capacity: u64,
    ready: u64,
    scheduled: u64,
    in_flight: u64,
    parked: u64,
    healthy: Option<bool>,
    next_attempt_at: Option<String>,
}

/// Shows them.
///
/// # Errors
/// See [`Failure`]; also when the server knows no provider of the name that was asked for.
pub(super) fn run(queue: &Queue) -> Result<(), Failure> {
    let filter = [("provider", queue.provider.as_deref())];
    let found = Server::new(&queue.reach)?.get::<Depths>("/queue", &filter)?;
    if let Some(name) = queue.provider.as_ref().filter(|_| found.view.providers.is_empty()) {
        return Err(Failure::Failed {
            sentence: format!("the server has no provider {name}"),
            hint: Some("`breakglass-mailer providers` shows what there is".to_owned()),
        });
    }
    let now = Timestamp::now();
    found.show(queue.reach.output, |depths| {
        let row = |depth: &Depth| {
            [
                depth.name.clone(),
                format!("{}/{}", depth.depth, depth.capacity),
                depth.ready.to_string(),
                depth.scheduled.to_string(),
                depth.in_flight.to_string(),
                depth.parked.to_string(),
                depth.healthy.map_or("-", |healthy| if healthy { "yes" } else { "no" }).to_owned(),
                depth.next_attempt_at.as_deref().map_or("-".into(), |at| age::until(at, now)),
            ]
        };
        let header =
            ["PROVIDER", "JOBS", "READY", "SCHEDULED", "INFLIGHT", "PARKED", "HEALTHY", "NEXT"];
        screen::table(header, depths.providers.iter().map(row).collect(), "no providers")
    })
}
