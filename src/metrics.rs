//! Every metric, in one struct. The comment on a field is its help text.
//!
//! A provider is a label only while it is configured or has jobs: [`Metrics::render`] drops the
//! series of all others. No label holds what a client sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::core::outcome::Cause;
use crate::core::provider::ProviderName;

/// Declares the metrics: the doc comment of each is its help text, its name stands beside it.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal $labels:tt $(in $buckets:expr)?;)+) => {
        /// See the module.
        pub struct Metrics {
            registry: Registry,
            /// The providers that are a label of some series.
            providers: Mutex<BTreeSet<ProviderName>>,
            $($(#[doc = $help])+ $field: $kind,)+
        }

        impl Metrics {
            /// All metrics, at zero.
            ///
            /// # Errors
            /// When two metrics have one name.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),+).trim();
                    let $field = metrics!(@make $kind, $name, help, $labels $(, $buckets)?)?;
                    registry.register(Box::new($field.clone()))?;
                )+
                let metrics = Self { registry, providers: Mutex::default(), $($field),+ };
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                Ok(metrics)
            }

            /// Drops every series of a provider.
            pub fn forget(&self, provider: &ProviderName) {
                self.lock_providers().remove(provider);
                $(metrics!(@forget self.$field, provider, $labels);)+
            }
        }
    };
    (@make IntGauge, $name:expr, $help:expr, []) => { IntGauge::new($name, $help) };
    (@make Histogram, $name:expr, $help:expr, [], $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))
    };
    (@make HistogramVec, $name:expr, $help:expr, $labels:expr, $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &$labels)
    };
    (@make $kind:ident, $name:expr, $help:expr, $labels:expr) => {
        $kind::new(Opts::new($name, $help), &$labels)
    };
    (@forget $metric:expr, $provider:expr, []) => {};
    (@forget $metric:expr, $provider:expr, $labels:expr) => { forget_in(&$metric, $provider) };
}

metrics! {
    /// Providers that are configured, by whether they are enabled or disabled.
    configured: IntGaugeVec = "breakglass_mailprovider_configured" ["provider", "status"];
    /// Health checks, by whether they passed (success) or failed (failure).
    checks: IntCounterVec = "breakglass_mailprovider_health_check_total" ["provider", "result"];
    /// How long a health check took.
    check_seconds: HistogramVec =
        "breakglass_mailprovider_health_check_duration_seconds" ["provider"] in WIRE_SECONDS;
    /// What is known of a provider: 1 healthy, 0 unhealthy, -1 disabled; absent before the first check.
    status: IntGaugeVec = "breakglass_mailprovider_status" ["provider"];
    /// Messages that an SMTP server took.
    sent: IntCounterVec = "breakglass_mailprovider_emails_sent_total" ["provider"];
    /// Dead letters, by what ended them; a job that is parked again and again counts once.
    failed: IntCounterVec = "breakglass_mailprovider_emails_failed_total" ["provider", "reason"];
    /// Jobs that a provider accepted and that are not at their end, by where they stand.
    queue_depth: IntGaugeVec = "breakglass_mailprovider_queue_depth" ["provider", "state"];
    /// How many jobs a provider accepts at most (queueSize).
    queue_capacity: IntGaugeVec = "breakglass_mailprovider_queue_capacity" ["provider"];
    /// Notifications that were refused, by why.
    refused: IntCounterVec =
        "breakglass_mailprovider_queue_rejected_total" ["provider", "reason"];
    /// Dead letters now, parked ones included.
    dead_letters: IntGaugeVec = "breakglass_mailprovider_deadletters" ["provider"];
    /// Attempts that will be repeated on the same provider.
    retries: IntCounterVec = "breakglass_mailprovider_retries_total" ["provider"];
    /// Jobs that moved on to the next provider of their chain.
    failovers: IntCounterVec = "breakglass_mailprovider_failovers_total" ["from", "to"];
    /// Whether a provider is known to be unreachable, so that jobs do not dial it.
    circuit_open: IntGaugeVec = "breakglass_mailprovider_circuit_open" ["provider"];
    /// Whether a provider takes no mail for now: its server's quota or its own day's limit is used up.
    held: IntGaugeVec = "breakglass_mailprovider_held" ["provider"];
    /// Messages that a provider took within the last 24 hours; absent without messagesPerDay.
    day_messages: IntGaugeVec = "breakglass_mailprovider_day_messages" ["provider"];
    /// How long one attempt took, whatever came of it.
    send_seconds: HistogramVec =
        "breakglass_mailprovider_send_duration_seconds" ["provider"] in WIRE_SECONDS;
    /// From the acceptance of a message to the server that took it.
    delivery_seconds: HistogramVec =
        "breakglass_mailprovider_delivery_latency_seconds" ["provider"] in DELIVERY_SECONDS;
    /// The age of the oldest job that is not at its end; 0 when there is none.
    oldest_pending: IntGaugeVec = "breakglass_mailprovider_oldest_pending_seconds" ["provider"];
    /// How long it took to make one batch of changes durable.
    commit_seconds: Histogram =
        "breakglass_mailer_store_commit_duration_seconds" [] in COMMIT_SECONDS;
    /// Jobs that changed in one durable batch.
    commit_jobs: Histogram = "breakglass_mailer_store_commit_jobs" [] in COMMIT_JOBS;
    /// Records that could not be read and were set aside.
    damaged_records: IntGauge = "breakglass_mailer_store_damaged_records" [];
    /// 1 when the data folder was empty at this start: nothing is continued.
    store_new: IntGauge = "breakglass_mailer_store_new" [];
    /// 1 when this pod had another store before: what that one holds is not here.
    store_changed: IntGauge = "breakglass_mailer_store_changed" [];
    /// Requests, by method, path template and status.
    http_requests: IntCounterVec =
        "breakglass_mailer_http_requests_total" ["method", "path", "status"];
    /// Always 1; the version is the label.
    build_info: IntGaugeVec = "breakglass_mailer_build_info" ["version"];
}

const WIRE_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0];
const DELIVERY_SECONDS: [f64; 11] =
    [0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0];
const COMMIT_SECONDS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
const COMMIT_JOBS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// What a provider's gauges show at one moment.
#[derive(Clone, Debug)]
pub struct ProviderReading {
    /// Which.
    pub name: ProviderName,
    /// Whether it is enabled; `None` when it was removed and still has jobs.
    pub configured: Option<bool>,
    /// What is known of its health.
    pub status: Option<ProviderStatus>,
    /// Whether jobs do not dial it.
    pub is_circuit_open: bool,
    /// Whether it takes no mail for now, by a quota or its day's limit.
    pub is_held: bool,
    /// Messages within the last 24 hours, where these are limited.
    pub day_messages_count: Option<u64>,
    /// Its `queueSize`.
    pub capacity: usize,
    /// Its jobs by where they stand.
    pub states: [(&'static str, usize); 4],
    /// Its dead letters.
    pub dead_letters_count: usize,
    /// The age of its oldest job that is not at its end.
    pub oldest_pending: Duration,
}

/// The values of `breakglass_mailprovider_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderStatus {
    /// The last check or delivery got through.
    Healthy = 1,
    /// It did not.
    Unhealthy = 0,
    /// Neither checked nor used.
    Disabled = -1,
}

impl Metrics {
    /// A message was delivered, `latency` after it was accepted.
    pub fn sent(&self, provider: &ProviderName, latency: Duration) {
        let label = [self.label(provider)];
        self.sent.with_label_values(&label).inc();
        self.delivery_seconds.with_label_values(&label).observe(latency.as_secs_f64());
    }

    /// An attempt ended.
    pub fn attempt(&self, provider: &ProviderName, duration: Duration) {
        let label = [self.label(provider)];
        self.send_seconds.with_label_values(&label).observe(duration.as_secs_f64());
    }

    /// A job will be tried again on the same provider.
    pub fn retried(&self, provider: &ProviderName) {
        self.retries.with_label_values(&[self.label(provider)]).inc();
    }

    /// A job moved on to the next provider of its chain.
    pub fn failed_over(&self, from: &ProviderName, to: &ProviderName) {
        self.failovers.with_label_values(&[self.label(from), self.label(to)]).inc();
    }

    /// A job became a dead letter.
    pub fn buried(&self, provider: &ProviderName, cause: Cause) {
        self.failed.with_label_values(&[self.label(provider), cause.as_str()]).inc();
    }

    /// A health check ended.
    pub fn checked(&self, provider: &ProviderName, passed: bool, duration: Duration) {
        let label = self.label(provider);
        let result = if passed { "success" } else { "failure" };
        self.checks.with_label_values(&[label, result]).inc();
        self.check_seconds.with_label_values(&[label]).observe(duration.as_secs_f64());
    }

    /// The store made one batch durable.
    pub fn committed(&self, duration: Duration, jobs: usize) {
        self.commit_seconds.observe(duration.as_secs_f64());
        self.commit_jobs.observe(u32::try_from(jobs).map_or(f64::MAX, f64::from));
    }

    /// A notification was refused; `reason` is one of a closed set.
    pub fn refused(&self, provider: &ProviderName, reason: &'static str) {
        self.refused.with_label_values(&[self.label(provider), reason]).inc();
    }

    /// The store is not the one that this pod had before.
    pub fn store_changed(&self) {
        self.store_changed.set(1);
    }

    /// Whether this start began a new store.
    pub fn store_new(&self, created: bool) {
        self.store_new.set(i64::from(created));
    }

    /// How many records the store has set aside because they cannot be read.
    pub fn damaged(&self, records_count: usize) {
        self.damaged_records.set(number(records_count));
    }

    /// A request was answered; `path` is a template, never what the client sent.
    pub fn answered(&self, method: &'static str, path: &str, status: u16) {
        self.http_requests.with_label_values(&[method, path, &status.to_string()]).inc();
    }

    /// All series in the text format of Prometheus, after the gauges took these readings. A
    /// provider that is not among them was removed and has no jobs left: its series go away.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a fault in here.
    pub fn render(&self, providers: &[ProviderReading]) -> prometheus::Result<String> {
        let gone: Vec<ProviderName> = {
            let known = self.lock_providers();
            let is_gone = |name: &&ProviderName| providers.iter().all(|p| p.name != **name);
            known.iter().filter(is_gone).cloned().collect()
        };
        gone.iter().for_each(|name| self.forget(name));
        providers.iter().for_each(|reading| self.set(reading));

        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn set(&self, reading: &ProviderReading) {
        let name = self.label(&reading.name);
        // A counter that is there from the start shows its first increment as a rate.
        self.sent.with_label_values(&[name]);
        self.retries.with_label_values(&[name]);
        for cause in Cause::REASONS {
            self.failed.with_label_values(&[name, cause.as_str()]);
        }
        for result in ["success", "failure"] {
            self.checks.with_label_values(&[name, result]);
        }
        for (status, enabled) in [("enabled", true), ("disabled", false)] {
            if reading.configured == Some(enabled) {
                self.configured.with_label_values(&[name, status]).set(1);
            } else {
                // It may not be there, and that is what is wanted.
                let _ = self.configured.remove_label_values(&[name, status]);
            }
        }
        match reading.status {
            Some(status) => self.status.with_label_values(&[name]).set(status as i64),
            None => drop(self.status.remove_label_values(&[name])),
        }
        match reading.day_messages_count {
            Some(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.day_messages.with_label_values(&[name]).set(count);
            }
            None => drop(self.day_messages.remove_label_values(&[name])),
        }
        for (state, count) in reading.states {
            self.queue_depth.with_label_values(&[name, state]).set(number(count));
        }
        let oldest_seconds = i64::try_from(reading.oldest_pending.as_secs()).unwrap_or(i64::MAX);
        let gauges = [
            (&self.queue_capacity, number(reading.capacity)),
            (&self.circuit_open, i64::from(reading.is_circuit_open)),
            (&self.held, i64::from(reading.is_held)),
            (&self.dead_letters, number(reading.dead_letters_count)),
            (&self.oldest_pending, oldest_seconds),
        ];
        for (gauge, value) in gauges {
            gauge.with_label_values(&[name]).set(value);
        }
    }

    /// The label of a provider, which is remembered so that its series can go away.
    fn label<'a>(&self, provider: &'a ProviderName) -> &'a str {
        let mut known = self.lock_providers();
        if !known.contains(provider) {
            known.insert(provider.clone());
        }
        provider.as_str()
    }

    fn lock_providers(&self) -> std::sync::MutexGuard<'_, BTreeSet<ProviderName>> {
        // A set of names is never left half changed.
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Drops the series of `vec` that name the provider in any of its labels that hold one.
fn forget_in<T: MetricVecBuilder>(vec: &MetricVec<T>, provider: &ProviderName)
where
    MetricVec<T>: Collector,
{
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            let is_named = ["provider", "from", "to"]
                .iter()
                .any(|label| labels.get(label) == Some(&provider.as_str()));
            if is_named {
                // Somebody else may have removed it just now.
                let _ = vec.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests;
