//! breakglass-mailer: a durable mail gateway for emergency-access notifications.
//!
//! `POST /notify` answers only when the notification is on stable storage. From then on each of its
//! jobs is delivered, or it is a dead letter that a person can see and send again, or an operator
//! cancelled it. Nothing else ever happens to a job.
//!
//! The modules in reading order; an arrow points at what a module may use:
//!
//! ```text
//! main → app → { http, manifests, k8s, smtp, delivery, store } → { queue, registry } → core
//! ```
//!
//! * [`core`]: the domain as values; decides, and does nothing.
//! * [`queue`]: a job's life over a [`Store`](queue::store::Store).
//! * [`store`]: that store on a disk: a journal, and sled as the index that follows it.
//! * [`registry`]: the live providers and what we believe of their health.
//! * [`delivery`]: due jobs become outcomes over a [`Transport`](delivery::transport::Transport).
//! * [`smtp`]: that transport over SMTP; [`oauth2`]: the access tokens that some of its servers want.
//! * [`k8s`]: providers as Kubernetes resources, and the controller; [`manifests`]: from files.
//! * [`http`]: the API.
//! * [`cli`]: the commands beside the server: its client, `crds`, `migrate-config`, `store`, and the
//!   mailbox of `dev`.
//! * [`config`], [`clock`], [`metrics`], [`telemetry`], [`tracer`], [`https`], [`file_watch`]: what the parts are
//!   given.
//! * [`app`]: puts the parts together, starts and stops them.
//! * `fuzz`, in tests only: what holds for any bytes from outside.
//!
//! No adapter names another; they meet in `app`. A test holds these arrows against the sources.

/// Also of what is tested and measured, so that it is what runs.
#[cfg(not(fuzzing))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod delivery;
pub mod file_watch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod https;
pub mod k8s;
pub mod manifests;
pub mod metrics;
#[path = "../migrations/mod.rs"]
mod migrations;
pub mod oauth2;
pub mod queue;
pub mod registry;
pub mod smtp;
pub mod store;
pub mod telemetry;
pub mod tracer;
