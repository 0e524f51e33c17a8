//! MailProvider and its neighbours as manifests: their types, their rules, their meaning.
//!
//! The same types and rules hold wherever a manifest comes from, and every refusal is worded as
//! the Kubernetes API server words it, so that a manifest refused here is refused there.

pub mod convert;
pub mod crd;
pub mod field;
mod host;
pub mod schema;
