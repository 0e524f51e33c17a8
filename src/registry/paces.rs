//! What each provider was given of late, by its name: an edit of its limits or its server, or a
//! removal, forgets nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::Registry;
use crate::core::outcome::Outcome;
use crate::core::pace::{Pace, Spent, Tally};
use crate::core::provider::{Provider, ProviderName};
use crate::core::time::Time;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Paces {
    by_name: Mutex<BTreeMap<ProviderName, Pace>>,
    /// There once what earlier runs sent is counted in.
    earlier: OnceCell<()>,
}

impl Paces {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProviderName, Pace>> {
        // Counts are changed by single steps.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a provider takes no mail for now though nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Until then at least.
    pub until: Time,
    /// One sentence. Never a content or a credential.
    pub why: String,
}

/// An attempt under way, which counts. It spent nothing unless told otherwise.
#[derive(Debug)]
#[must_use]
pub struct Sending {
    registry: Arc<Registry>,
    provider: ProviderName,
    spent: Spent,
}

impl Sending {
    /// It ended so.
    pub fn ended(mut self, outcome: &Outcome) {
        self.spent = Spent::of(outcome);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let now = self.registry.clock.now();
        let mut paces = self.registry.paces.lock();
        paces.entry(self.provider.clone()).or_default().end(self.spent, now);
    }
}

impl Registry {
    /// An attempt on this provider begins.
    pub fn begin(self: &Arc<Self>, provider: &ProviderName) -> Sending {
        self.paces.lock().entry(provider.clone()).or_default().begin();
        Sending { registry: self.clone(), provider: provider.clone(), spent: Spent::Nothing }
    }

    /// Why and until when this provider takes no mail: its server said that a quota is used up, or
    /// its `messagesPerDay` are.
    #[must_use]
    pub fn held(&self, name: &ProviderName) -> Option<Held> {
        let now = self.clock.now();
        let health = self.health(name);
        let by_server = health.held(now).map(|hold| Held {
            until: hold.until,
            why: format!("the server's quota is used up: {}", hold.message),
        });
        let catalog = self.catalog();
        let by_limit = catalog.providers.get(name).and_then(|provider| {
            let limits = &provider.limits;
            let mut paces = self.paces.lock();
            let pace = paces.get_mut(name)?;
            pace.is_day_used_up(limits, now).then(|| Held {
                until: pace.day_free_at(limits, 1, now),
                why: format!("{} messages were sent within 24 hours", pace.day_count(now)),
            })
        });
        let until = |held: &Held| held.until;
        [by_server, by_limit].into_iter().flatten().max_by_key(until)
    }

    /// When this provider may be given `wanted` more messages, by its limits alone.
    #[must_use]
    pub fn paced(&self, provider: &Provider, wanted: u64) -> Time {
        let now = self.clock.now();
        let mut paces = self.paces.lock();
        let mut none = Pace::default();
        let pace = paces.get_mut(&provider.name).unwrap_or(&mut none);
        let day = pace.day_free_at(&provider.limits, wanted, now);
        pace.minute_free_at(&provider.limits, wanted, now).max(day)
    }

    /// When this provider may be given its next messages, `wanted` of them, where that is not now: by
    /// its limits and its holds.
    #[must_use]
    pub fn takes_from(&self, name: &ProviderName, wanted: u64) -> Option<Time> {
        let provider = self.catalog().providers.get(name).cloned();
        let paced = provider.map(|provider| self.paced(&provider, wanted));
        let held = self.held(name).map(|held| held.until);
        paced.max(held).filter(|time| self.clock.now() < *time)
    }

    /// How many messages went out by this provider within the last 24 hours; `None` where it has no
    /// `messagesPerDay`, and until what earlier runs sent is counted in.
    #[must_use]
    pub fn day_count(&self, name: &ProviderName) -> Option<u64> {
        self.catalog().providers.get(name)?.limits.messages_per_day?;
        if !self.paces.earlier.initialized() {
            return None;
        }
        let mut paces = self.paces.lock();
        Some(paces.get_mut(name).map_or(0, |pace| pace.day_count(self.clock.now())))
    }

    /// Counts in what earlier runs delivered, once: `find` looks for it, from a time on.
    ///
    /// # Errors
    /// What `find` says; then it is asked again at the next call.
    pub async fn count_earlier<E>(
        &self,
        find: impl AsyncFnOnce(Time) -> Result<Tally, E>,
    ) -> Result<(), E> {
        let count = async || {
            let now = self.clock.now();
            let day = u64::try_from(Pace::DAY.as_millis()).unwrap_or(u64::MAX);
            let found = find(Time(now.0.saturating_sub(day))).await?;
            let mut paces = self.paces.lock();
            for (name, times) in found {
                // What this run sent is counted already.
                let sent_already = paces.contains_key(&name);
                let pace = paces.entry(name).or_default();
                for (at, count) in
                    times.into_iter().filter(|(at, _)| !sent_already || *at < self.started)
                {
                    pace.earlier(at, count, now);
                }
            }
            Ok(())
        };
        self.paces.earlier.get_or_try_init(count).await.copied()
    }
}
