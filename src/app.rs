//! Puts the parts together: start order, and shutdown order.
//!
//! Start: store, queue, providers, delivery, API; ready when the socket is open. Shutdown: not
//! ready, posts refused, nothing more claimed, sends under way end within the grace time and are
//! recorded, the API closes, the store closes. Nothing is drained: the disk is the truth.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::catch_all;
use crate::clock::Clock;
use crate::config::{AuthMode, Dev, Policy, Redrive, Serve, check_loopback, own_namespace};
use crate::core::health::HealthIntervals;
use crate::core::notification::Address;
use crate::core::provider::{Provider, ProviderName, Security, Sender, Smtp};
use crate::core::route::Catalog;
use crate::delivery::{Delivery, Retention};
use crate::http::server::{self, Limits};
use crate::http::tokens::{self, Tokens};
use crate::http::{Api, Auth, router};
use crate::manifests::{self, Source};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::registry::Registry;
use crate::smtp::{SmtpTransport, Timeouts};
use crate::store::{DiskStore, Opened, Options};

/// How long answers under way may take once everything else has ended.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(2);

/// Runs `serve` until it is told to stop.
///
/// # Errors
/// When it cannot start, or when the store stopped.
pub fn serve(serve: Box<Serve>) -> anyhow::Result<()> {
    serve.check_auth().map_err(anyhow::Error::msg)?;
    let tokens = match serve.token_file.filter(|_| serve.auth == AuthMode::Token) {
        Some(file) => Some((Tokens::read(&file)?, file)),
        None => None,
    };
    let source = Source {
        path: serve.providers,
        namespace: own_namespace(serve.namespace),
        secret_namespaces: serve.secret_namespaces,
    };
    let loaded = manifests::load(&source)?;
    run_to_end(async {
        let listener = bind(serve.listen).await?;
        let app = App::open(&serve.data_dir, &serve.policy)?;
        app.registry.replace(loaded.catalog);
        tokio::spawn(manifests::watch(source, app.registry.clone(), app.stop.clone()));
        let auth = match tokens {
            Some((read, file)) => {
                let (tokens, valid) = watch::channel(read);
                tokio::spawn(tokens::watch(file, tokens, app.stop.clone()));
                Auth::Tokens(valid)
            }
            None if serve.insecure_no_auth => Auth::Open,
            None => Auth::Local,
        };
        app.run(listener, auth, None).await
    })
}

/// Runs `dev` until it is told to stop.
///
/// # Errors
/// When it cannot start, or when the store stopped.
pub fn dev(dev: Dev) -> anyhow::Result<()> {
    check_loopback(dev.listen).map_err(anyhow::Error::msg)?;
    let folder = dev.data_dir.join("mailbox");
    run_to_end(async {
        let listener = bind(dev.listen).await?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let app = App::open(&dev.data_dir.join("store"), &Policy::default())?;
        let mailbox = TcpListener::bind("127.0.0.1:0").await.context("cannot open the mailbox")?;
        app.registry.replace(dev_catalog(mailbox.local_addr()?)?);
        tokio::spawn(catch_all::run(mailbox, folder.clone()));
        println!("{}", welcome(listener.local_addr()?, &dev.data_dir));
        app.run(listener, Auth::Local, Some(folder)).await
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

/// How many callers may be connected at once: as many as there are file descriptors, less those
/// that the store and the connections to providers need.
fn callers_max() -> usize {
    const CALLERS_MAX: u64 = 16_384;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let files = match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is `None`.
    let files = files.unwrap_or(u64::MAX);
    let callers = (files / 2).max(files.saturating_sub(1024)).clamp(1, CALLERS_MAX);
    usize::try_from(callers).unwrap_or(usize::MAX)
}

/// Opens the socket of the API: before the store, so that a second start on the same address
/// touches nothing.
async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another with --listen"))
}

/// Everything but the API.
struct App {
    queue: Arc<Queue>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    store: Arc<DiskStore>,
    clock: Clock,
    policy: Policy,
    stop: CancellationToken,
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
        let queue = Queue::open(store.clone(), clock, policy.max_age)?;
        let intervals = HealthIntervals {
            healthy: policy.health_interval,
            unhealthy: policy.unhealthy_interval,
        };
        let registry = Arc::new(Registry::new(intervals, clock));
        let (policy, stop) = (policy.clone(), CancellationToken::new());
        Ok(Self { queue, registry, metrics, store, clock, policy, stop })
    }

    /// Delivers and answers until a signal comes or the store stops.
    async fn run(
        self,
        listener: TcpListener,
        auth: Auth,
        mailbox: Option<PathBuf>,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        let timeouts = Timeouts { probe: self.policy.health_timeout, ..Timeouts::default() };
        let delivery = Delivery {
            queue: self.queue.clone(),
            registry: self.registry.clone(),
            transport: Arc::new(SmtpTransport::new(timeouts)),
            metrics: self.metrics.clone(),
            clock: self.clock,
            connections_max: usize::from(self.policy.max_connections),
            redrive: self.policy.redrive == Redrive::Auto,
            retention: Retention {
                history: self.policy.history_retention,
                dead_letters: self.policy.deadletter_retention,
                keys: self.policy.idempotency_retention,
            },
        };
        let (is_ready, readiness) = watch::channel(true);
        let api = Api {
            queue: self.queue.clone(),
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock,
            ready: readiness,
            auth,
            redrives: self.policy.redrive == Redrive::Auto,
            mailbox,
        };
        let mut store_stopped = self.store.stopped();
        let delivering = delivery.start();
        let closing = CancellationToken::new();
        let limits = Limits { connections_count_max: callers_max(), ..Limits::default() };
        let serving = server::serve(listener, router(api), limits, closing.clone());
        let answering = tokio::spawn(serving);
        tracing::info!(%address, "listening");

        tokio::select! {
            signal = stop_signal() => tracing::info!("stopping after {}", signal?),
            stopped = store_stopped.wait_for(Option::is_some) => {
                let why = stopped.ok().and_then(|why| why.clone()).unwrap_or_default();
                bail!("the store has stopped, restart to read the truth from disk: {why}");
            }
        }
        is_ready.send_replace(false);
        self.queue.stop_accepting();
        self.stop.cancel();
        let in_time = tokio::select! {
            in_time = delivering.finish(self.policy.shutdown_grace) => in_time,
            signal = stop_signal() => { signal?; false }
        };
        if !in_time {
            tracing::warn!("sends under way were cut short; their jobs stay queued");
        }
        closing.cancel();
        // An answer that hangs is the client's doing; what it asked for is on disk or refused.
        let _ = timeout(ANSWERS_TIME_MAX, answering).await;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.close())
            .await
            .map_err(|_| anyhow!("closing the store failed"))??;
        tracing::info!("stopped");
        Ok(())
    }
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

async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// The one provider of `dev`.
fn dev_catalog(mailbox: SocketAddr) -> anyhow::Result<Catalog> {
    let name = ProviderName::new("mailbox").context("the name of the provider is valid")?;
    let address = Address::parse("breakglass@dev.example").map_err(anyhow::Error::msg)?;
    let smtp = Smtp::new(&mailbox.ip().to_string(), mailbox.port(), Security::Plaintext);
    let sender = Sender { address, name: Some("Breakglass Dev".to_owned()) };
    let provider = Provider {
        display_name: Some("Catch-all mailbox".to_owned()),
        default: true,
        ..Provider::new(name.clone(), smtp, sender)
    };
    let providers = [(name, Arc::new(provider))].into();
    Ok(Catalog { namespace: own_namespace(None), providers, ..Catalog::default() })
}

fn welcome(address: SocketAddr, folder: &Path) -> String {
    format!(
        "
breakglass-mailer is ready at http://{address}, its data is in {folder}.

Send a notification:

  curl -i http://{address}/notify -H 'Content-Type: application/json' -d '{{
    \"recipients\": [\"oncall@example.com\"],
    \"subject\": \"Breakglass request on prod-1\",
    \"text\": \"Alice asks for cluster-admin on prod-1.\"
  }}'

Read the mailbox:      http://{address}/mailbox
Look at the queue:     http://{address}/queue
Stop:                  Ctrl-C; a second start goes on from here
",
        folder = folder.display()
    )
}
