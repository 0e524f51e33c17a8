//! The health checks: one task per enabled provider, so that a hanging server delays no other's
//! check. When to check next is what [`Health`](crate::core::health::Health) says.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Delivery;
use super::lane::sleep_until;
use crate::core::health::{Health, HealthEvent};
use crate::core::outcome::Reply;
use crate::core::provider::{Provider, ProviderName};
use crate::core::time::Time;
use crate::registry::same_server;

impl Delivery {
    /// Keeps one task for each enabled provider, and a new one for one that has another server.
    pub(super) async fn watch_health(self: Arc<Self>, tasks: TaskTracker, stop: CancellationToken) {
        let mut catalogs = self.registry.watch();
        let mut checks: BTreeMap<ProviderName, (Arc<Provider>, CancellationToken)> =
            BTreeMap::new();
        loop {
            let catalog = catalogs.borrow_and_update().clone();
            checks.retain(|name, (checked, stop)| {
                let same = catalog.enabled(name).is_some_and(|now| same_server(now, checked));
                if !same {
                    stop.cancel();
                }
                same
            });
            for provider in catalog.providers.values().filter(|provider| !provider.disabled) {
                checks.entry(provider.name.clone()).or_insert_with(|| {
                    let stop = stop.child_token();
                    tasks.spawn(self.clone().check(provider.clone(), stop.clone()));
                    (provider.clone(), stop)
                });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = catalogs.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Checks one provider whenever it is time, until `stop`.
    async fn check(self: Arc<Self>, provider: Arc<Provider>, stop: CancellationToken) {
        let name = &provider.name;
        let mut leads = self.leads.clone();
        let mut changes = self.registry.changes();
        loop {
            changes.borrow_and_update();
            let leading_since = *leads.borrow_and_update();
            let known = self.registry.health_of(&provider).and_then(|health| health.healthy);
            if known == Some(true) && leading_since.is_none() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = changes.changed() => {}
                    () = changed(&mut leads) => {}
                }
                continue;
            }
            let moved = self.registry.check_moved();
            let health = self.registry.health_of(&provider);
            let due = health.as_ref().map(|health| self.clock.instant(health.next_check));
            // What a new leader believes may be old: it looks before it tells.
            let is_old = |health: &Health| {
                let is_older = leading_since.is_some_and(|since| health.learned_at < since);
                health.healthy == Some(true) && is_older
            };
            let is_due = |health: &Health| is_old(health) || health.next_check <= self.clock.now();
            let Some(health) = health.filter(is_due) else {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = sleep_until(due) => {}
                    () = moved => {}
                    () = changed(&mut leads) => {}
                }
                continue;
            };
            // Where the server takes so many connections, the check's is one of them.
            let is_bounded = provider.limits.max_connections.is_some();
            let _permit = match is_bounded.then(|| self.gate(name)) {
                Some(gate) => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    permit = gate.enter() => Some(permit),
                },
                None => None,
            };
            self.registry.check_begins(name);
            let begin = Instant::now();
            let checked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                checked = self.transport.probe(&provider) => checked,
            };
            self.metrics.checked(name, checked.is_ok(), begin.elapsed());
            let event = match checked {
                Ok(()) => HealthEvent::CheckPassed,
                Err(failure) => match failure.reply.as_ref().and_then(Reply::quota) {
                    Some(quota) => HealthEvent::Held(quota, failure.detail),
                    None => HealthEvent::CheckFailed(failure.cause, failure.detail),
                },
            };
            if let HealthEvent::CheckFailed(_, error) = &event
                && health.last_failure.as_ref().is_none_or(|(_, last)| last != error)
            {
                tracing::warn!(mailprovider = %name, error, "the health check failed");
            }
            if event == HealthEvent::CheckPassed && health.healthy != Some(true) {
                tracing::info!(mailprovider = %name, "the health check passed");
            }
            let transition = self.registry.observe(&provider, &event);
            self.follow(name, transition).await;
        }
    }
}

/// Returns when the leader may have changed; never, when nobody says so any more.
async fn changed(leads: &mut watch::Receiver<Option<Time>>) {
    if leads.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
