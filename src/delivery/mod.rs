//! Turning due jobs into outcomes.
//!
//! Each provider has a lane of its own: its workers, its connections, its circuit. A slow or dead
//! provider delays no other's mail. Beside the lanes run the health checks and what time does to
//! jobs by itself.
//!
//! Nothing in here is left to chance, not even which of two ready branches is taken (`biased`), so
//! that a simulated run can be repeated.

mod attempt;
mod gate;
mod health;
mod lane;
mod sweep;
pub mod transport;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::core::job::Job;
use crate::core::provider::ProviderName;
use crate::core::route::Catalog;
use crate::core::time::Time;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::registry::{Registry, Transition};
use crate::tracer::Tracer;
use transport::Transport;

pub use gate::Gates;
pub use sweep::Retention;

use gate::Gate;
use lane::sleep_until;

/// Between two looks for what earlier runs sent, while there is no answer.
const COUNT_AGAIN: Duration = Duration::from_secs(1);

/// What delivery works with.
pub struct Delivery {
    /// The jobs.
    pub queue: Arc<Queue>,
    /// The providers.
    pub registry: Arc<Registry>,
    /// The wire.
    pub transport: Arc<dyn Transport>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Follows attempts.
    pub tracer: Tracer,
    /// The time.
    pub clock: Clock,
    /// How many connections a provider is given at once that has no `maxConnections`. Never zero.
    pub connections_max: usize,
    /// What bounds them, whatever a provider has.
    pub gates: Gates,
    /// Whether parked jobs go out by themselves when their provider recovers.
    pub redrive: bool,
    /// Since when this process leads: then it checks providers that are healthy, too. The others are
    /// checked by each for itself, so that its own mail goes out again.
    pub leads: watch::Receiver<Option<Time>>,
    /// How long what is past is remembered.
    pub retention: Retention,
}

/// Delivery under way.
pub struct Running {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Delivery {
    /// Starts a lane for each provider that has or gets jobs, the health checks and the sweep.
    #[must_use]
    pub fn start(self) -> Running {
        let running = Running { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let delivery = Arc::new(self);
        let (tasks, stop) = (running.tasks.clone(), running.stop.clone());
        running.tasks.spawn(delivery.clone().open_lanes(tasks.clone(), stop.clone()));
        running.tasks.spawn(delivery.clone().watch_health(tasks, stop.clone()));
        running.tasks.spawn(delivery.clone().count_where_limited(stop.clone()));
        running.tasks.spawn(delivery.clone().expire(stop.clone()));
        running.tasks.spawn(delivery.forget(stop));
        running
    }

    /// One worker per lane, from the first job that the lane gets.
    async fn open_lanes(self: Arc<Self>, tasks: TaskTracker, stop: CancellationToken) {
        let mut lanes = self.queue.lanes();
        let mut open = BTreeSet::new();
        loop {
            let named = lanes.borrow_and_update().clone();
            for provider in named.difference(&open) {
                let lane = self.clone().lane(provider.clone(), tasks.clone(), stop.clone());
                tasks.spawn(lane);
            }
            open = named;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = lanes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What follows when an event changed what we believe of a provider.
    async fn follow(self: &Arc<Self>, provider: &ProviderName, transition: Transition) {
        if transition.opened {
            tracing::warn!(mailprovider = %provider, "the circuit opened: jobs do not dial it");
        }
        if transition.closed {
            tracing::info!(mailprovider = %provider, "the circuit closed");
        }
        if transition.held
            && let Some(held) = self.registry.held(provider)
        {
            tracing::warn!(
                mailprovider = %provider, error = held.why,
                "the provider takes no more mail for now: its mail waits or goes on"
            );
        }
        if transition.held || transition.closed {
            // The lane waits for the end of a hold, and sends out then what is parked.
            self.queue.arrival(provider).notify_one();
        }
        if transition.released {
            tracing::info!(mailprovider = %provider, "the provider takes mail again");
        }
        if transition.reached && self.registry.held(provider).is_none() {
            self.redrive(provider).await;
        }
    }

    /// What bounds the connections to a provider, as it is configured now.
    fn gate(&self, provider: &ProviderName) -> Arc<Gate> {
        let catalog = self.registry.catalog();
        let own = catalog.providers.get(provider).and_then(|found| found.limits.max_connections);
        self.gates.of(provider, own.map_or(self.connections_max, usize::from))
    }

    /// Counts in what earlier runs sent as soon as a provider has a limit: what is shown of it should not
    /// wait for its next mail.
    async fn count_where_limited(self: Arc<Self>, stop: CancellationToken) {
        let mut catalogs = self.registry.watch();
        loop {
            let is_limited = catalogs.borrow_and_update().is_any_limited();
            if is_limited && self.count_earlier().await {
                return;
            }
            let again = is_limited.then(|| tokio::time::Instant::now() + COUNT_AGAIN);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = catalogs.changed() => if changed.is_err() { return },
                () = sleep_until(again) => {}
            }
        }
    }

    /// What earlier runs sent counts, too; answers whether it does. Where that cannot be looked up just
    /// now mail goes out all the same: emergency mail is worth more than a limit, and the server's own no
    /// is understood.
    async fn count_earlier(&self) -> bool {
        let find = async |since| self.queue.delivered_since(since).await;
        let counted = self.registry.count_earlier(find).await;
        if let Err(error) = &counted {
            tracing::debug!(%error, "what was sent before this start does not count yet");
        }
        counted.is_ok()
    }

    /// The providers that take mail now, as far as is known.
    fn usable(&self) -> BTreeSet<ProviderName> {
        let catalog = self.registry.catalog();
        let enabled = catalog.providers.values().filter(|provider| !provider.disabled);
        let takes = |name: &&ProviderName| {
            self.registry.health(name).is_closed() && self.registry.held(name).is_none()
        };
        enabled.map(|provider| &provider.name).filter(takes).cloned().collect()
    }

    /// The next provider of the chain that exists, is enabled and may be used.
    fn next(
        &self,
        job: &Job,
        catalog: &Catalog,
        may: impl Fn(&ProviderName) -> bool,
    ) -> Option<u16> {
        let after = usize::from(job.progress.position) + 1;
        let names = job.progress.chain.iter().enumerate().skip(after);
        let mut fit = names.filter(|(_, name)| catalog.enabled(name).is_some() && may(name));
        fit.next().and_then(|(position, _)| u16::try_from(position).ok())
    }

    /// The next provider, one that takes mail if there is one, else one that will.
    fn next_at_all(&self, job: &Job, catalog: &Catalog) -> Option<u16> {
        let takes = |name: &ProviderName| self.registry.held(name).is_none();
        self.next(job, catalog, takes).or_else(|| self.next(job, catalog, |_| true))
    }

    /// The next provider of a job that could not reach this one. It is not left waiting for one that
    /// takes no mail: parked, it goes out as soon as any of them does.
    fn next_after_failure(&self, job: &Job, catalog: &Catalog) -> Option<u16> {
        if !self.redrive {
            return self.next_at_all(job, catalog);
        }
        self.next(job, catalog, |name| self.registry.held(name).is_none())
    }

    /// Sends out what was parked just now although a provider of its chain is healthy by now: what
    /// showed that came before, and the next check may be minutes away.
    async fn redrive_behind(&self, chain: impl IntoIterator<Item = &ProviderName>) {
        for provider in chain {
            let health = self.registry.health(provider);
            let takes = health.is_closed() && self.registry.held(provider).is_none();
            if takes && health.healthy == Some(true) {
                self.redrive(provider).await;
            }
        }
    }

    async fn redrive(&self, provider: &ProviderName) {
        if !self.redrive || !self.queue.has_parked(provider) {
            return;
        }
        match self.queue.redrive(provider).await {
            Ok(jobs_count) => {
                tracing::info!(mailprovider = %provider, jobs_count, "parked jobs go out again");
            }
            Err(error) => tracing::error!(mailprovider = %provider, %error, "cannot redrive"),
        }
    }
}

impl Running {
    /// Claims nothing more and waits up to `grace` for the sends that are under way; their
    /// outcomes are recorded. Answers whether all of them ended.
    pub async fn finish(self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}
