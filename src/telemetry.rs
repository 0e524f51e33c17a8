//! Logging set-up.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat};

/// Sends log lines to standard error, and panics with them. No level shows a secret or a content.
///
/// # Errors
/// When the level is no filter.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.log_level)
        .with_context(|| format!("--log-level {} is no filter", log.log_level))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let filter = filter.and_then(filter_fn(|of| !tells_too_much(of)));
    let registry = tracing_subscriber::registry().with(filter);
    match log.log_format {
        // A line has the ids of the span that it belongs to; people would only stumble over them.
        LogFormat::Json => registry.with(lines.json().with_span_list(false)).init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            registry.with(lines.with_filter(filter_fn(|of| of.is_event()))).init();
        }
    }
    // A panic's message may quote what was being worked on, so only its place is told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic: this is a bug");
    }));
    Ok(())
}

/// kube writes out whole answers that it cannot read, which may be Secrets, and each failed call,
/// which our code tells once. At trace sled writes out keys and values, which are mail; and
/// notify tells each event of a folder that it watches, without end where the log is a file in
/// that folder; and ureq writes out the headers that it sends, a collector's token among them.
fn tells_too_much(of: &Metadata<'_>) -> bool {
    let is_of = |name: &str| {
        of.target().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    is_of("kube_client")
        || is_of("kube_runtime")
        || *of.level() == Level::TRACE
            && ["sled", "notify", "ureq", "ureq_proto"].into_iter().any(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing_subscriber::layer::Context;

    struct Count(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn libraries_that_write_out_what_they_cannot_read_are_silent() {
        let count = Arc::new(AtomicUsize::new(0));
        let silence = filter_fn(|of| !tells_too_much(of));
        let subscriber =
            tracing_subscriber::registry().with(Count(count.clone()).with_filter(silence));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "kube_client::client", "{{\"password\": \"aHVudGVy\"}}");
            tracing::debug!(target: "kube_runtime::watcher", "invalid type: \"aHVudGVy\"");
            tracing::trace!(target: "sled", "key and value");
            assert_eq!(count.load(Ordering::Relaxed), 0);
            tracing::warn!(target: "kube_clients", "another crate");
            tracing::warn!(target: "sled", "a disk that fails");
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
