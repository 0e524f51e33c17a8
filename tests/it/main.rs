//! The one test binary.
//!
//! `crash`, `order`, `power`, `damage` and `full` start the real binary and hold the promise of a 202
//! against kills, system calls, power cuts, damaged files and a full volume; `postfix` holds the mail
//! against a real server. `choosing`, `delivery`, `outage` and `reload` tell what a user of `serve`
//! sees, and `dev` and `migrate_config` the same of those.
//! `store`, `queue_model`, `http*`, `smtp` and `manifests` hold one component each; `arrows` holds the
//! sources against their architecture. A run that draws lots prints its seed.

mod arrows;
mod canary;
mod choosing;
mod crash;
mod damage;
mod delivery;
mod dev;
mod full;
mod http;
mod http_read;
mod http_server;
mod manifests;
mod migrate_config;
mod order;
mod outage;
mod postfix;
mod power;
mod queue_model;
mod reload;
mod smtp;
mod store;
mod store_crash;
mod support;
