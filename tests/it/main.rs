//! The one test binary.
//!
//! These start the real binary and hold the promise of a 202: `crash` and `kill_points` against kills,
//! `order` in the order of system calls, `power` against power cuts, `damage` against damaged files,
//! `full`, `disk_faults` and `other_volume` against what disks do, `clock` against what time does, `hostile`
//! against mail servers, `bad_requests` and `callers` against callers, `chaos` against all at once.
//! `simulation` does the same to queue, delivery and registry, thousands of times.
//!
//! `mail_servers` holds the mail against real servers, `openapi` the API against its own description; `page`
//! leads a real browser through the operator's page. `choosing`, `delivery`, `outage` and `reload` tell what
//! a user of `serve` sees, `dev`, `client`, `explain`, `manual`, `migrate_config` and `store_tools` the same of
//! these; `limits` what it sees of a provider that takes only so much; `auth` who may call; `health`,
//! `credentials`, `oauth2`, `metrics` and `traces` what an operator sees of the mail servers; `canary` what
//! nobody sees; `kubernetes` and `webhook` what a real API server sees;
//! `deploy` whether it takes `deploy/`. `store`, `queue_*`, `http*`, `smtp` and `manifests` hold one component
//! each; `arrows` holds the sources against their architecture. A run that draws lots prints its seed.

mod arrows;
mod auth;
mod bad_requests;
mod callers;
mod canary;
mod chaos;
mod choosing;
mod client;
mod clock;
mod crash;
mod credentials;
mod damage;
mod delivery;
mod deploy;
mod dev;
mod disk_faults;
mod explain;
mod full;
mod health;
mod hostile;
mod http;
mod http_read;
mod http_server;
mod kill_points;
mod kubernetes;
mod kubernetes_auth;
mod limits;
mod mail_servers;
mod manifests;
mod manual;
mod metrics;
mod migrate_config;
mod oauth2;
mod openapi;
mod order;
mod other_volume;
mod outage;
mod page;
mod power;
mod queue_model;
mod queue_open;
mod queue_read;
mod reload;
mod simulation;
mod smtp;
mod store;
mod store_crash;
mod store_tools;
mod support;
mod traces;
mod webhook;
