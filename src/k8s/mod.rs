//! MailProvider and its neighbours as manifests: their types, their rules, their meaning.
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
pub mod managed;
pub mod mounted;
pub mod schema;
pub mod seen;
pub mod status;
pub mod volume;
pub mod watch;
