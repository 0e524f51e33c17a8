//! The health checks: one task per enabled provider, so that a hanging server delays no other's
//! check. When to check next is what [`Health`](crate::core::provider::Health) says.

use std::collections::BTreeMap;
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
        let mut checks: BTreeMap<ProviderName, CancellationToken> = BTreeMap::new();
        loop {
            let catalog = catalogs.borrow_and_update().clone();
            checks.retain(|name, check| {
                let stays = catalog.enabled(name).is_some();
                if !stays {
                    check.cancel();
                }
                if !catalog.providers.contains_key(name) {
                    self.metrics.forget(name);
                }
                stays
            });
            for provider in catalog.providers.values().filter(|provider| !provider.disabled) {
                checks.entry(provider.name.clone()).or_insert_with_key(|name| {
                    let check = stop.child_token();
                    tasks.spawn(self.clone().check(name.clone(), check.clone()));
                    check
                });
            }
            tokio::select! {
                changed = catalogs.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Checks one provider whenever it is time, until `stop`.
    async fn check(self: Arc<Self>, name: ProviderName, stop: CancellationToken) {
        let mut catalogs = self.registry.watch();
        loop {
            let moved = self.registry.check_moved();
            let catalog = catalogs.borrow_and_update().clone();
            let Some(provider) = catalog.enabled(&name) else {
                // Either `stop` is on its way, or the provider is back before anyone noticed.
                tokio::select! {
                    changed = catalogs.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
                continue;
            };
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
