//! `providers`: the providers as the server sees them.

use jiff::Timestamp;
use serde::Deserialize;

use super::failure::Failure;
use super::server::Server;
use super::{age, screen};
use crate::config::client::Reach;

#[derive(Deserialize)]
struct Providers {
    items: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    default: bool,
    host: String,
    port: u16,
    security: String,
    last_error: Option<String>,
    last_health_check: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

impl Provider {
    /// What is wrong with it: its last error, else what keeps it from being ready.
    fn trouble(&self) -> &str {
        let unready = self.ready().filter(|ready| ready.status != "True");
        let message = unready.map(|ready| &*ready.message);
        self.last_error.as_deref().or(message).unwrap_or("-")
    }

    fn ready(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == "Ready")
    }
}

/// Shows them.
///
/// # Errors
/// See [`Failure`].
pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let found = Server::new(reach)?.get::<Providers>("/providers", &[])?;
    let now = Timestamp::now();
    found.show(reach.output, |providers| {
        let row = |provider: &Provider| {
            let ready = provider.ready();
            [
                provider.name.clone(),
                if provider.default { "yes" } else { "-" }.to_owned(),
                format!("{}:{}", provider.host, provider.port),
                provider.security.clone(),
                ready.map_or("-", |ready| &ready.status).to_owned(),
                ready.map_or("-", |ready| &ready.reason).to_owned(),
                provider.last_health_check.as_deref().map_or("-".into(), |at| age::since(at, now)),
                provider.trouble().to_owned(),
            ]
        };
        let header =
            ["NAME", "DEFAULT", "SERVER", "SECURITY", "READY", "REASON", "PASSED", "ERROR"];
        screen::table(header, providers.items.iter().map(row).collect(), "no providers")
    })
}
