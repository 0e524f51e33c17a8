//! The one test binary.
//!
//! `crash`, `order`, `power` and `damage` start the real binary and hold the promise of a 202 against
//! kills, system calls, power cuts and damaged files; `postfix` holds the mail against a real server.
//! `store`, `queue_model`, `http*`, `smtp` and `manifests` hold one component each; `arrows` holds the
//! sources against their architecture. A run that draws lots prints its seed.

mod arrows;
mod crash;
mod damage;
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
mod support;
