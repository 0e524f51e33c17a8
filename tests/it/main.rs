//! The one test binary.
//!
//! `crash`, `order`, `power`, `damage` and `full` start the real binary and hold the promise of a 202
//! against kills, system calls, power cuts, damaged files and a full volume; `mail_servers` holds
//! the mail against real servers. `choosing`, `delivery`, `outage` and `reload` tell what a user of `serve`
//! sees, `dev`, `client`, `migrate_config` and `store_tools` the same of these; `auth` who may call; `health`,
//! `credentials` and `metrics` what an operator sees of the mail servers; `canary` what nobody sees;
//! `kubernetes` and `webhook` what a real API server sees; `deploy` whether it takes `deploy/`.
//! `store`, `queue_model`, `http*`, `smtp` and `manifests` hold one component each; `arrows` holds the
//! sources against their architecture. A run that draws lots prints its seed.

mod arrows;
mod auth;
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
mod mail_servers;
mod manifests;
mod manual;
mod metrics;
mod migrate_config;
mod openapi;
mod order;
mod outage;
mod power;
mod queue_model;
mod reload;
mod simulation;
mod smtp;
mod store;
mod store_crash;
mod store_tools;
mod support;
mod traces;
mod webhook;
