//! MailProvider and its neighbours: their types, their rules, their meaning, wherever they come
//! from; and the controller that takes them from the Kubernetes API.
//!
//! `crd`, `schema`, `convert` are the first part. `watch` and `seen` take over what the API server
//! tells, `status` and `events` tell it what became of it, `lease` says which replica does, and
//! `volume` notices another volume. `admission`, with `managed` or `mounted` certificates, judges
//! what is to be stored; `authorize` asks who may call; `limits` bounds what any of these calls may
//! cost.
//!
//! The same types and rules hold wherever a manifest comes from, and every refusal is worded as
//! the Kubernetes API server words it, so that a manifest refused here is refused there.

pub mod admission;
pub mod authorize;
mod certificate;
pub mod client;
pub mod convert;
pub mod crd;
mod events;
pub mod field;
mod follow;
mod host;
pub mod lease;
mod limits;
mod login;
pub mod managed;
pub mod mounted;
pub mod schema;
pub mod seen;
pub mod status;
pub mod volume;
pub mod watch;
