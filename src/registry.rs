//! The live providers and what we believe of their health.
//!
//! One place that everything asks: routing, lanes, the health checks and the API. A new catalog
//! replaces the old one whole; whoever needs to know watches it.

mod paces;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::core::health::{Health, HealthEvent, HealthIntervals};
use crate::core::provider::{Provider, ProviderName};
use crate::core::route::Catalog;
use crate::core::time::Time;
use paces::Paces;

pub use paces::{Held, Sending};

/// See the module.
#[derive(Debug)]
pub struct Registry {
    catalog: watch::Sender<Arc<Catalog>>,
    health: Mutex<BTreeMap<ProviderName, Health>>,
    sends: Mutex<BTreeMap<ProviderName, LastSend>>,
    /// Counts the changes of health and sends, for those who tell of them.
    changes: watch::Sender<u64>,
    /// Wakes the health checks when one of them is due earlier than it was.
    check_moved: Arc<Notify>,
    paces: Paces,
    intervals: HealthIntervals,
    clock: Clock,
    started: Time,
}

/// The last attempts to send through a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastSend {
    /// When the last attempt began: `lastSendAttempt`.
    pub at: Time,
    /// What the last one that failed said: `lastSendError`.
    pub error: Option<String>,
}

/// How one event changed what we believe of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// It got through: parked mail may go out.
    pub reached: bool,
    /// Its circuit opened just now.
    pub opened: bool,
    /// Its circuit closed just now.
    pub closed: bool,
    /// Its server said just now that a quota is used up.
    pub held: bool,
    /// Its server takes mail again after it had said so.
    pub released: bool,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(intervals: HealthIntervals, clock: Clock) -> Self {
        let (catalog, _) = watch::channel(Arc::default());
        let (changes, _) = watch::channel(0);
        Self {
            catalog,
            health: Mutex::default(),
            sends: Mutex::default(),
            changes,
            check_moved: Arc::default(),
            paces: Paces::default(),
            intervals,
            clock,
            started: clock.now(),
        }
    }

    /// Replaces the catalog. A provider that is new or whose SMTP settings changed starts with a
    /// closed circuit and is checked at once; the others keep their health.
    pub fn replace(&self, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        let before = self.catalog();
        {
            // Held until the catalog is in place, so that nothing of the old server is observed.
            let mut health = self.lock_health();
            health.retain(|name, _| catalog.providers.contains_key(name));
            self.lock_sends().retain(|name, _| catalog.providers.contains_key(name));
            for (name, provider) in &catalog.providers {
                let same = before.providers.get(name).is_some_and(|old| {
                    old.disabled == provider.disabled && same_server(old, provider)
                });
                if !same {
                    let checked_at = health.get(name).map(|old| old.checked_at).unwrap_or_default();
                    let earliest = checked_at.plus(Health::CHECK_INTERVAL_MIN);
                    let next_check = earliest.max(self.clock.now());
                    let fresh = Health { checked_at, next_check, ..Health::default() };
                    health.insert(name.clone(), fresh);
                }
            }
            self.catalog.send_replace(catalog);
        }
        self.check_moved.notify_waiters();
        self.changes.send_modify(|count| *count += 1);
    }

    /// The catalog as it is now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.borrow().clone()
    }

    /// Wakes at each new catalog.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// What we believe of a provider now.
    #[must_use]
    pub fn health(&self, name: &ProviderName) -> Health {
        self.lock_health().get(name).cloned().unwrap_or_default()
    }

    /// The same, while the provider is enabled and still has the server of `checked`.
    #[must_use]
    pub fn health_of(&self, checked: &Provider) -> Option<Health> {
        let all = self.lock_health();
        self.current(checked)?;
        Some(all.get(&checked.name).cloned().unwrap_or_default())
    }

    /// Folds what happened with `used` into the health of the provider. It is ignored when the
    /// provider was removed or disabled meanwhile, or has another server now: it tells nothing of
    /// that one.
    pub fn observe(&self, used: &Provider, event: &HealthEvent) -> Transition {
        let mut all = self.lock_health();
        let Some(provider) = self.current(used) else { return Transition::default() };
        let health = all.entry(used.name.clone()).or_default();
        let now = self.clock.now();
        let after = health.after(event, provider.retry.count, self.intervals, now);
        let transition = Transition {
            reached: matches!(event, HealthEvent::Reached | HealthEvent::CheckPassed),
            opened: health.is_closed() && !after.is_closed(),
            closed: !health.is_closed() && after.is_closed(),
            held: health.held(now).is_none() && after.held(now).is_some(),
            released: health.held.is_some() && after.held.is_none(),
        };
        if after.next_check < health.next_check {
            self.check_moved.notify_waiters();
        }
        *health = after;
        self.changes.send_modify(|count| *count += 1);
        transition
    }

    /// A check of a provider begins.
    pub fn check_begins(&self, name: &ProviderName) {
        if let Some(health) = self.lock_health().get_mut(name) {
            health.checked_at = self.clock.now();
        }
    }

    /// What time it is for the health that is told.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// An attempt to send through a provider ended; `error` is what it failed with.
    pub fn sent(&self, name: &ProviderName, at: Time, error: Option<String>) {
        {
            let mut sends = self.lock_sends();
            let last = sends.entry(name.clone()).or_default();
            last.at = last.at.max(at);
            last.error = error.or(last.error.take());
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// The last attempts to send through a provider; `None` before the first of this process.
    #[must_use]
    pub fn last_send(&self, name: &ProviderName) -> Option<LastSend> {
        self.lock_sends().get(name).cloned()
    }

    /// Wakes when health or sends of a provider may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock_sends(&self) -> std::sync::MutexGuard<'_, BTreeMap<ProviderName, LastSend>> {
        // An entry is changed field by field, and each of them is true by itself.
        self.sends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when a check is due earlier than it was at this call.
    pub fn check_moved(&self) -> OwnedNotified {
        self.check_moved.clone().notified_owned()
    }

    /// The provider as it is now, while it is enabled and has the server of `used`.
    fn current(&self, used: &Provider) -> Option<Arc<Provider>> {
        let catalog = self.catalog();
        catalog.enabled(&used.name).filter(|now| same_server(now, used)).cloned()
    }

    fn lock_health(&self) -> std::sync::MutexGuard<'_, BTreeMap<ProviderName, Health>> {
        // A health entry is replaced whole, so a panic elsewhere cannot leave half of one.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both describe the same server reached in the same way: what a connection depends on.
#[must_use]
pub fn same_server(a: &Provider, b: &Provider) -> bool {
    a.smtp.host == b.smtp.host
        && a.smtp.port == b.smtp.port
        && a.smtp.security == b.smtp.security
        && a.smtp.insecure_skip_verify == b.smtp.insecure_skip_verify
        && a.smtp.certificate_authority == b.smtp.certificate_authority
        && a.smtp.credentials == b.smtp.credentials
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notification::Address;
    use crate::core::outcome::Cause;
    use crate::core::provider::{RetryPolicy, Security, Sender, Smtp};

    fn provider(port: u16, count: u16) -> Provider {
        let sender = Sender { address: Address::parse("s@example.com").expect("ok"), name: None };
        let smtp = Smtp::new("localhost", port, Security::Opportunistic);
        let retry = RetryPolicy { count, ..RetryPolicy::default() };
        Provider { default: true, retry, ..Provider::new(name(), smtp, sender) }
    }

    fn name() -> ProviderName {
        ProviderName::new("a").expect("a valid name")
    }

    fn catalog(providers: impl IntoIterator<Item = Provider>) -> Catalog {
        let providers = providers.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect();
        Catalog { providers, ..Catalog::default() }
    }

    fn refused() -> HealthEvent {
        HealthEvent::Unreachable(Cause::ConnectionRefused, "connection refused".into())
    }

    #[tokio::test]
    async fn a_circuit_survives_an_edit_of_the_retry_policy_but_not_of_the_server() {
        let registry = Registry::new(HealthIntervals::default(), Clock::start());
        registry.replace(catalog([provider(25, 0)]));
        assert!(registry.observe(&provider(25, 0), &refused()).opened);
        registry.replace(catalog([provider(25, 5)]));
        assert!(!registry.health(&name()).is_closed(), "the server is the same");
        registry.replace(catalog([provider(26, 5)]));
        assert!(registry.health(&name()).is_closed(), "this may be another server");
        assert_eq!(registry.health(&name()).healthy, None);
        registry.observe(&provider(25, 0), &HealthEvent::CheckPassed);
        assert_eq!(registry.health(&name()).healthy, None, "the old server passed, not this one");
        assert_eq!(registry.health_of(&provider(25, 0)), None, "it is not to be checked any more");
        assert!(registry.health_of(&provider(26, 0)).is_some());
    }

    #[tokio::test]
    async fn a_removed_provider_leaves_nothing_behind_and_hears_nothing() {
        let registry = Registry::new(HealthIntervals::default(), Clock::start());
        registry.replace(catalog([provider(25, 0)]));
        registry.observe(&provider(25, 0), &refused());
        registry.replace(catalog([]));
        let reached = registry.observe(&provider(25, 0), &HealthEvent::Reached);
        assert_eq!(reached, Transition::default());
        assert_eq!(registry.health(&name()), Health::default());
    }

    #[tokio::test]
    async fn a_check_that_is_due_earlier_wakes_whoever_waits_for_the_old_time() {
        let registry = Registry::new(HealthIntervals::default(), Clock::start());
        registry.replace(catalog([provider(25, 0)]));
        registry.observe(&provider(25, 0), &HealthEvent::CheckPassed);
        let moved = registry.check_moved();
        registry.observe(&provider(25, 0), &refused());
        moved.await;
    }
}
