//! `explain`: what would become of a notification, and why. Nothing is handed in.

use serde::Deserialize;

use super::failure::Failure;
use super::notify::body;
use super::screen;
use super::server::Server;
use crate::config::client::Explain;

#[derive(Deserialize)]
struct Explanation {
    status: u16,
    detail: Option<String>,
    provider: Option<String>,
    rule: Option<String>,
    chain: Vec<String>,
    recipients: Vec<String>,
    queue: Option<Place>,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Place {
    depth: u64,
    capacity: u64,
    wanted: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    level: String,
    provider: Option<String>,
    decision: String,
    reason: String,
    healthy: Option<bool>,
    last_error: Option<String>,
}

/// Shows it.
///
/// # Errors
/// See [`Failure`]; a notification that would be refused for want of a place is explained, too.
pub(super) fn run(explain: Explain) -> Result<(), Failure> {
    let server = Server::new(&explain.reach)?;
    let draft = body(explain.draft)?;
    let found = server.post::<Explanation>("/notify?dryRun=true", &draft, None)?;
    found.show(explain.reach.output, Explanation::print)
}

impl Explanation {
    fn print(&self) -> Result<(), Failure> {
        let answer = self.detail.as_ref().map_or_else(
            || format!("{}: it would be taken in", self.status),
            |detail| format!("{}: {detail}", self.status),
        );
        let provider = self.provider.as_ref().zip(self.rule.as_ref());
        let queue = self
            .queue
            .as_ref()
            .map(|queue| format!("{}/{}, and {} more", queue.depth, queue.capacity, queue.wanted));
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
        screen::fields(&[
            ("answer", Some(answer)),
            ("provider", provider.map(|(name, rule)| format!("{name}, by {rule}"))),
            ("chain", list(&self.chain)),
            ("queue", queue),
            ("recipients", list(&self.recipients)),
        ])?;
        screen::line("")?;
        let row = |candidate: &Candidate| {
            let healthy =
                candidate.healthy.map_or("-", |healthy| if healthy { "yes" } else { "no" });
            [
                candidate.level.clone(),
                candidate.provider.clone().unwrap_or_else(|| "-".to_owned()),
                candidate.decision.clone(),
                healthy.to_owned(),
                candidate.reason.clone(),
                candidate.last_error.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        };
        let header = ["LEVEL", "PROVIDER", "DECISION", "HEALTHY", "REASON", "ERROR"];
        screen::table(header, self.candidates.iter().map(row).collect(), "no levels")
    }
}
