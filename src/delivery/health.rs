//! The health checks: one task per enabled provider, so that a hanging server delays no other's
//! check. When to check next is what [`Health`](crate::core::provider::Health) says.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Delivery;
use crate::core::provider::{HealthEvent, ProviderName};

impl Delivery {
    /// Keeps one task for each enabled provider.
    pub(super) async fn watch_health(self: Arc<Self>, tasks: TaskTracker, stop: CancellationToken) {
        let mut catalogs = self.registry.watch();
        let mut watched: BTreeSet<ProviderName> = BTreeSet::new();
        loop {
            let catalog = catalogs.borrow_and_update().clone();
            let enabled = catalog.providers.values().filter(|provider| !provider.disabled);
            let enabled: BTreeSet<_> = enabled.map(|provider| provider.name.clone()).collect();
            for name in enabled.difference(&watched) {
                tasks.spawn(self.clone().check(name.clone(), stop.clone()));
            }
            for name in watched.iter().filter(|name| !catalog.providers.contains_key(*name)) {
                self.metrics.forget(name);
            }
            watched = enabled;
            tokio::select! {
                changed = catalogs.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Checks one provider whenever it is time, until it is gone or disabled.
    async fn check(self: Arc<Self>, name: ProviderName, stop: CancellationToken) {
        let mut catalogs = self.registry.watch();
        loop {
            let moved = self.registry.check_moved();
            let catalog = catalogs.borrow_and_update().clone();
            let Some(provider) = catalog.enabled(&name) else { return };
            let health = self.registry.health(&name);
            if self.clock.now() < health.next_check {
                tokio::select! {
                    () = tokio::time::sleep_until(self.clock.instant(health.next_check)) => {}
                    () = moved => {}
                    changed = catalogs.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
                continue;
            }
            let begin = Instant::now();
            let checked = tokio::select! {
                checked = self.transport.probe(provider) => checked,
                () = stop.cancelled() => return,
            };
            self.metrics.checked(&name, checked.is_ok(), begin.elapsed());
            let event = match checked {
                Ok(()) => HealthEvent::CheckPassed,
                Err(failure) => HealthEvent::CheckFailed(failure.cause, failure.detail),
            };
            if let HealthEvent::CheckFailed(_, error) = &event
                && health.last_error.as_ref() != Some(error)
            {
                tracing::warn!(mailprovider = %name, error, "the health check failed");
            }
            if event == HealthEvent::CheckPassed && health.healthy != Some(true) {
                tracing::info!(mailprovider = %name, "the health check passed");
            }
            let transition = self.registry.observe(&name, &event);
            self.follow(&name, transition).await;
        }
    }
}
