//! `jobs`: the jobs of the server, and all of one notification.

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::attempts::{self, Attempt};
use super::failure::Failure;
use super::server::Server;
use super::{age, pages, screen};
use crate::config::client::{Jobs, Reach};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    notification: String,
    recipient: String,
    #[serde(flatten)]
    state: State,
    provider: String,
    attempts: u32,
    accepted_at: String,
    next_attempt_at: Option<String>,
}

/// A notification with its jobs and their attempts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notification {
    id: String,
    subject: String,
    chain: Vec<String>,
    accepted_at: String,
    expires_at: Option<String>,
    warnings: Vec<String>,
    pub jobs: Vec<NotificationJob>,
}

/// One of its jobs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotificationJob {
    id: String,
    recipient: String,
    #[serde(flatten)]
    pub state: State,
    provider: String,
    next_attempt_at: Option<String>,
    attempts: Vec<Attempt>,
}

/// Where a job stands.
#[derive(Deserialize)]
pub(super) struct State {
    state: String,
    redrive: Option<String>,
}

impl State {
    /// For a person. A dead letter that goes out again by itself is `parked`.
    fn shown(&self) -> &str {
        if self.is_parked() { "parked" } else { &self.state }
    }

    /// Whether an SMTP server took it.
    pub(super) fn is_delivered(&self) -> bool {
        self.state == "delivered"
    }

    /// Whether nothing happens to it any more without somebody's hand.
    pub(super) fn is_at_end(&self) -> bool {
        ["delivered", "dead", "cancelled"].contains(&&*self.state) && !self.is_parked()
    }

    fn is_parked(&self) -> bool {
        self.state == "dead" && self.redrive.as_deref() == Some("automatic")
    }
}

/// Lists jobs, newest first.
///
/// # Errors
/// See [`Failure`].
pub(super) fn list(jobs: &Jobs) -> Result<(), Failure> {
    let filter = [("state", jobs.state.as_deref()), ("provider", jobs.provider.as_deref())];
    let server = Server::new(&jobs.reach)?;
    let found = pages::fetch::<Job>(&jobs.pages, &server, "/jobs", &filter)?;
    let now = Timestamp::now();
    found.show(jobs.reach.output, |page| {
        let row = |job: &Job| {
            [
                job.notification.clone(),
                job.state.shown().to_owned(),
                age::since(&job.accepted_at, now),
                next(job.next_attempt_at.as_deref(), now),
                job.attempts.to_string(),
                job.provider.clone(),
                job.recipient.clone(),
            ]
        };
        let header = ["NOTIFICATION", "STATE", "AGE", "NEXT", "ATTEMPTS", "PROVIDER", "RECIPIENT"];
        screen::table(header, page.items.iter().map(row).collect(), "no jobs")
    })
}

/// Shows one notification.
///
/// # Errors
/// See [`Failure`].
pub(super) fn show(notification: Uuid, reach: &Reach) -> Result<(), Failure> {
    let path = format!("/notifications/{notification}");
    let found = Server::new(reach)?.get::<Notification>(&path, &[])?;
    found.show(reach.output, Notification::table)
}

impl Notification {
    /// Shows it to a person.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn table(&self) -> Result<(), Failure> {
        let now = Timestamp::now();
        let warnings = (!self.warnings.is_empty()).then(|| self.warnings.join("; "));
        screen::fields(&[
            ("NOTIFICATION", Some(self.id.clone())),
            ("SUBJECT", Some(self.subject.clone())),
            ("CHAIN", Some(self.chain.join(", "))),
            ("ACCEPTED", Some(age::at(&self.accepted_at, now))),
            ("EXPIRES", self.expires_at.clone()),
            ("WARNINGS", warnings),
        ])?;
        for job in &self.jobs {
            screen::line("")?;
            screen::fields(&[
                ("JOB", Some(job.id.clone())),
                ("RECIPIENT", Some(job.recipient.clone())),
                ("STATE", Some(job.state.shown().to_owned())),
                ("PROVIDER", Some(job.provider.clone())),
                ("NEXT", job.next_attempt_at.as_deref().map(|at| age::until(at, now))),
            ])?;
            attempts::table(&job.attempts, now)?;
        }
        Ok(())
    }
}

fn next(at: Option<&str>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| age::until(at, now))
}
