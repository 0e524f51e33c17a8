//! Turning due jobs into outcomes.
//!
//! Each provider has a lane of its own: its workers, its connections, its circuit. A slow or dead
//! provider delays no other's mail. Beside the lanes run the health checks and what time does to
//! jobs by itself.
//!
//! Nothing in here is left to chance, not even which of two ready branches is taken (`biased`), so
//! that a simulated run can be repeated.

mod attempt;
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

pub use sweep::Retention;

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
    /// How many connections a provider is given at once. Never zero.
    pub connections_max: usize,
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
        if transition.reached {
            self.redrive(provider).await;
        }
    }

    /// Sends out what was parked just now although a provider of its chain is healthy by now: what
    /// showed that came before, and the next check may be minutes away.
    async fn redrive_behind(&self, chain: impl IntoIterator<Item = &ProviderName>) {
        for provider in chain {
            let health = self.registry.health(provider);
            if health.is_closed() && health.healthy == Some(true) {
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

/// The next provider of the chain that exists and is enabled.
fn next_position(job: &Job, catalog: &Catalog) -> Option<u16> {
    let after = job.progress.position + 1;
    let names = job.progress.chain.iter().enumerate().skip(usize::from(after));
    let (position, _) = names.into_iter().find(|(_, name)| catalog.enabled(name).is_some())?;
    u16::try_from(position).ok()
}
