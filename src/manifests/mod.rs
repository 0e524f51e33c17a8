//! Providers, Secrets, escalations and clusters from files, as Kubernetes manifests.
//!
//! A set of files is taken whole or not at all, and a refusal names everything that is wrong with
//! it, each with file, line and rule. No error, warning or log line ever shows a password.

mod build;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod object;
mod secret;
mod watch;
pub(crate) mod yaml;

use std::io::{self, Read};
use std::path::PathBuf;

use crate::core::route::Catalog;

pub use watch::watch;

/// Where manifests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A file, or a folder of `*.yaml`, `*.yml` and `*.json` files.
    pub path: PathBuf,
    /// `--namespace`: where an object without a namespace is.
    pub namespace: String,
    /// `--secret-namespaces`: where else a `passwordRef` may lead.
    pub secret_namespaces: Vec<String>,
}

/// What was read, and what its author should know of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All that can be chosen from.
    pub catalog: Catalog,
    /// One line each, with file and line.
    pub warnings: Vec<String>,
}

/// Why nothing was taken: every problem of every file. Displayed one per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct LoadError {
    /// One line each: `providers.yaml:12: MailProvider default-smtp: spec.smtp.port: …`.
    pub problems: Vec<String>,
}

/// Reads all manifests of `source`.
///
/// # Errors
/// When anything is wrong anywhere; then all of it is named.
pub fn load(source: &Source) -> Result<Loaded, LoadError> {
    build::build(source, &files::read(&source.path))
}

/// Reads manifests that are at hand as text, which `source` names.
///
/// # Errors
/// As [`load`].
pub fn load_text(source: &Source, text: String) -> Result<Loaded, LoadError> {
    build::build(source, &[files::File { path: source.path.clone(), text: Ok(text) }])
}

/// Reads a text that is no larger than a file of manifests may be.
///
/// # Errors
/// When it is larger, is not UTF-8, or cannot be read.
pub fn read_bounded(from: impl Read) -> io::Result<String> {
    files::read_bounded(from)
}
