//! Puts the parts together: start order, and shutdown order.
//!
//! Start: store, queue, providers, delivery, API; ready when the socket is open. Shutdown: not
//! ready, posts refused, nothing more claimed, sends under way end within the grace time and are
//! recorded, the API closes, the store closes. Nothing is drained: the disk is the truth.

mod dev;
mod kubernetes;
mod webhook;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{AuthMode, Policy, Redrive, Serve, own_namespace};
use crate::core::health::HealthIntervals;
use crate::core::time::Time;
use crate::delivery::{Delivery, Gates, Retention};
use crate::http::server::{self, Limits};
use crate::http::tokens::{self, Tokens};
use crate::http::{Api, Auth, BodyBudget, history, router};
use crate::manifests::{self, Source};
use crate::metrics::Metrics;
use crate::queue::{Ids, Queue};
use crate::registry::Registry;
use crate::smtp::{SmtpTransport, Timeouts};
use crate::store::{DiskStore, Opened, Options};
use crate::tracer::Tracer;

pub use dev::dev;
use kubernetes::Kubernetes;

/// How long answers under way may take once everything else has ended.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the rest may take: it gives the Lease back.
const TASKS_TIME_MAX: Duration = Duration::from_secs(3);

/// Runs `serve` until it is told to stop.
///
/// # Errors
/// When it cannot start, or when the store stopped.
pub fn serve(serve: Box<Serve>) -> anyhow::Result<()> {
    serve.check_auth().map_err(anyhow::Error::msg)?;
    let tokens = match serve.token_file.as_ref().filter(|_| serve.auth == AuthMode::Token) {
        Some(file) => Some((Tokens::read(file)?, file.clone())),
        None => None,
    };
    let tracer = match serve.otlp_endpoint().map_err(anyhow::Error::msg)? {
        Some(endpoint) => Tracer::exporting(&endpoint)?,
        None => Tracer::default(),
    };
    let source = serve.providers.as_ref().map(|path| Source {
        path: path.clone(),
        namespace: own_namespace(serve.namespace.clone()),
        secret_namespaces: serve.secret_namespaces.clone(),
    });
    let loaded = source.as_ref().map(manifests::load).transpose()?;
    run_to_end(async {
        let listener = bind(serve.address(), "--listen").await?;
        let kubernetes = match &source {
            Some(_) => None,
            None => Some(Kubernetes::open(&serve).await?),
        };
        let app = App::open(&serve.data_dir, &serve.policy)?;
        let auth = match (tokens, &kubernetes) {
            (Some((read, file)), _) => {
                let (tokens, valid) = watch::channel(read);
                app.tasks.spawn(tokens::watch(file, tokens, app.stop.clone()));
                Auth::Tokens(valid)
            }
            (None, Some(kubernetes)) if serve.auth == AuthMode::Kubernetes => {
                Auth::Asked(kubernetes.authorizer(&serve))
            }
            (None, _) if serve.insecure_no_auth => Auth::Open,
            (None, _) => Auth::Local,
        };
        if let (Some(source), Some(loaded)) = (source, loaded) {
            app.registry.replace(loaded.catalog);
            app.tasks.spawn(manifests::watch(source, app.registry.clone(), app.stop.clone()));
        }
        let mode = match kubernetes {
            Some(kubernetes) => kubernetes.start(&app, &serve, auth),
            None => Mode::new(auth),
        };
        app.run(listener, Mode { tracer, ..mode }).await
    })
}

fn run_to_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("cannot start the runtime")?;
    let ended = runtime.block_on(work);
    // A name lookup cannot be cancelled, and may outlast the grace time by far.
    runtime.shutdown_background();
    ended
}

/// How many connections there may be at once, by the file descriptors that there are.
struct Connections {
    /// With callers.
    callers_max: usize,
    /// With the servers of all providers together.
    servers_max: usize,
}

impl Connections {
    /// Raises the limit on file descriptors as far as it goes, and shares them out.
    fn by_descriptors() -> Self {
        const CALLERS_MAX: u64 = 16_384;
        // What the process has open at rest, and the journal's segments while they are read.
        const OTHERS: u64 = 32;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        let files = match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        // No limit at all is `None`.
        let files = files.unwrap_or(u64::MAX).saturating_sub(OTHERS);
        let callers = (files / 2).max(files.saturating_sub(1024)).clamp(2, CALLERS_MAX);
        let servers = files.saturating_sub(callers).max(2);
        let count = |files| usize::try_from(files).unwrap_or(usize::MAX);
        // One more caller than there are places may wait for one.
        Self { callers_max: count(callers - 1), servers_max: count(servers) }
    }
}

/// Opens a socket to listen on: before the store, so that a second start on the same address
/// touches nothing.
async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another with {flag}"))
}

/// Everything but the API.
struct App {
    queue: Arc<Queue>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    store: Arc<DiskStore>,
    /// The name of the store.
    store_name: String,
    clock: Clock,
    policy: Policy,
    /// Ends everything but delivery and the API.
    stop: CancellationToken,
    /// Ends the API, and whatever else answers until the end.
    closing: CancellationToken,
    /// What these end.
    tasks: TaskTracker,
}

/// What differs between the ways to run.
struct Mode {
    auth: Auth,
    /// The folder of the mailbox of `dev`.
    mailbox: Option<PathBuf>,
    tracer: Tracer,
    /// Since when this process leads, where there are several.
    leads: watch::Receiver<Option<Time>>,
    /// Whether the providers are known; it does not become false again.
    listed: watch::Receiver<bool>,
}

impl Mode {
    /// One process, whose providers are known from the start.
    fn new(auth: Auth) -> Self {
        Self {
            auth,
            mailbox: None,
            tracer: Tracer::default(),
            leads: watch::channel(Some(Time::default())).1,
            listed: watch::channel(true).1,
        }
    }
}

impl App {
    fn open(folder: &Path, policy: &Policy) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new().context("cannot register the metrics")?);
        let mut options = Options::new(folder);
        let counted = metrics.clone();
        options.on_commit = Box::new(move |took, jobs_count| counted.committed(took, jobs_count));
        let (store, opened) = DiskStore::open(options)?;
        report(folder, &opened);
        metrics.damaged(opened.damage.len());
        metrics.store_new(opened.created);
        let queue = Queue::open(store.clone(), clock, Ids::random(), policy.max_age)?;
        let intervals = HealthIntervals {
            healthy: policy.health_interval,
            unhealthy: policy.unhealthy_interval,
        };
        let registry = Arc::new(Registry::new(intervals, clock));
        let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self {
            queue,
            registry,
            metrics,
            store,
            store_name: opened.store.to_string(),
            clock,
            policy: policy.clone(),
            stop,
            closing,
            tasks: TaskTracker::new(),
        })
    }

    /// Delivers and answers until a signal comes or the store stops.
    async fn run(self, listener: TcpListener, mode: Mode) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        let connections = Connections::by_descriptors();
        let timeouts = Timeouts { probe: self.policy.health_timeout, ..Timeouts::default() };
        let delivery = Delivery {
            queue: self.queue.clone(),
            registry: self.registry.clone(),
            transport: Arc::new(SmtpTransport::bounded(timeouts, connections.servers_max)),
            metrics: self.metrics.clone(),
            tracer: mode.tracer.clone(),
            clock: self.clock,
            connections_max: usize::from(self.policy.max_connections),
            gates: Gates::sharing(connections.servers_max),
            redrive: self.policy.redrive == Redrive::Auto,
            leads: mode.leads,
            retention: Retention {
                history: self.policy.history_retention,
                dead_letters: self.policy.deadletter_retention,
                keys: self.policy.idempotency_retention,
            },
        };
        let (is_ready, readiness) = watch::channel(*mode.listed.borrow());
        let api = Api {
            queue: self.queue.clone(),
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            tracer: mode.tracer.clone(),
            clock: self.clock,
            ready: readiness,
            auth: mode.auth,
            bodies: BodyBudget::default(),
            redrives: self.policy.redrive == Redrive::Auto,
            history: Arc::default(),
            mailbox: mode.mailbox,
        };
        let mut store_stopped = self.store.stopped();
        let mut signals = StopSignals::watch()?;
        let delivering = delivery.start();
        let limits = Limits { connections_count_max: connections.callers_max, ..Limits::default() };
        let serving = server::serve(listener, router(api.clone()), limits, self.closing.clone());
        let answering = tokio::spawn(serving);
        tracing::info!(%address, "listening");

        let mut listed = mode.listed;
        let known = async {
            if listed.wait_for(|listed| *listed).await.is_ok() {
                is_ready.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            signal = signals.next() => tracing::info!("stopping after {signal}"),
            () = known => {}
            () = history::keep(&api) => {}
            why = stop_of(&mut store_stopped) => return Err(why),
        }
        is_ready.send_replace(false);
        self.queue.stop_accepting();
        self.stop.cancel();
        let wind_down = async {
            let in_time = tokio::select! {
                in_time = delivering.finish(self.policy.shutdown_grace) => in_time,
                _ = signals.next() => false,
            };
            if !in_time {
                tracing::warn!("sends under way were cut short; their jobs stay queued");
            }
            self.closing.cancel();
            // An answer that hangs is the client's doing; what it asked for is on disk or refused.
            let _ = timeout(ANSWERS_TIME_MAX, answering).await;
            anyhow::Ok(())
        };
        tokio::select! {
            done = wind_down => done?,
            why = stop_of(&mut store_stopped) => return Err(why),
        }
        let (store, tracer) = (self.store.clone(), mode.tracer);
        let exporting = tokio::task::spawn_blocking(move || tracer.shutdown());
        tokio::task::spawn_blocking(move || store.close())
            .await
            .map_err(|_| anyhow!("closing the store failed"))??;
        self.tasks.close();
        let _ = timeout(TASKS_TIME_MAX, self.tasks.wait()).await;
        let _ = exporting.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Returns when the store has stopped for good: then what is not answered must stay so, because
/// nobody knows whether it is on the disk.
async fn stop_of(stopped: &mut watch::Receiver<Option<String>>) -> anyhow::Error {
    let why = stopped.wait_for(Option::is_some).await;
    let why = why.ok().and_then(|why| why.clone()).unwrap_or_default();
    anyhow!("the store has stopped, restart to read the truth from disk: {why}")
}

/// Tells what was found in the data folder, so that nobody takes a new one for the old one.
fn report(folder: &Path, opened: &Opened) {
    let (folder, store) = (folder.display(), opened.store);
    match (opened.created, opened.rebuilt) {
        (true, _) => {
            tracing::info!(%folder, %store, "the data folder was empty: a new store begins")
        }
        (false, None) => tracing::info!(%folder, %store, "the store is open"),
        (false, Some(reason)) => {
            tracing::info!(%folder, %store, reason, "the store is open; its index was made again");
        }
    }
    for damage in &opened.damage {
        tracing::error!(file = %damage.file.display(), offset = damage.offset, error = damage.what,
            "damage in the store; what could be read is kept");
    }
}

/// What asks the process to stop; from when this is made it does not simply end by it.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn watch() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
