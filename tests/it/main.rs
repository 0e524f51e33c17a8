//! The one test binary.
//!
//! `crash`, `order`, `power`, `damage` and `full` start the real binary and hold the promise of a 202
//! against kills, system calls, power cuts, damaged files and a full volume; `postfix` holds the mail against a real server.
//! `store`, `queue_model`, `http*`, `smtp` and `manifests` hold one component each; `arrows` holds the
//! sources against their architecture. A run that draws lots prints its seed.

mod arrows;
mod crash;
mod damage;
mod full;
mod http;
mod http_read;
mod http_server;
mod manifests;
mod order;
mod postfix;
mod power;
mod queue_model;
mod smtp;
mod store;
mod store_crash;
mod support;
