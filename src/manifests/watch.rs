//! Taking changes of the files over without a restart.
//!
//! A change is read once the files have been quiet for a moment. A set of files that is broken is
//! named in the log, and the last good one stays.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Source;
use super::build::build;
use super::files::{self, File};
use crate::file_watch::FileWatch;
use crate::registry::Registry;

/// Keeps `registry` up to date with the manifests of `source` until `stop`.
///
/// The first reading is at once, so a change since the caller's own [`load`](super::load) is not
/// missed. Whenever the files differ from the last reading, a good set replaces the catalog.
pub async fn watch(source: Source, registry: Arc<Registry>, stop: CancellationToken) {
    let watched = FileWatch::start(&source.path);
    let mut last_read = None;
    loop {
        let path = source.path.clone();
        // A reading that panics is one that found nothing new; the next poll tries again.
        if let Ok(files) = spawn_blocking(move || files::read(&path)).await {
            take_over(&source, &files, &registry, &mut last_read);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = watched.changed() => {}
        }
    }
}

fn take_over(
    source: &Source,
    files: &[File],
    registry: &Registry,
    last_read: &mut Option<[u8; 32]>,
) {
    let digest = Some(files::digest(files));
    if *last_read == digest {
        return;
    }
    *last_read = digest;
    match build(source, files) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                tracing::warn!(manifests.warning = %warning, "a manifest is taken with a warning");
            }
            tracing::info!(
                manifests.path = %source.path.display(),
                manifests.providers_count = loaded.catalog.providers.len(),
                manifests.escalations_count = loaded.catalog.escalations.len(),
                manifests.clusters_count = loaded.catalog.clusters.len(),
                "the manifests are taken over"
            );
            registry.replace(loaded.catalog);
        }
        Err(error) => tracing::error!(
            manifests.path = %source.path.display(),
            manifests.problems = %error,
            "the manifests are broken; the last good ones stay in use"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::core::health::HealthIntervals;

    fn source() -> Source {
        Source { path: "a.yaml".into(), namespace: "default".into(), secret_namespaces: vec![] }
    }

    fn files(text: &str) -> [File; 1] {
        [File { path: "a.yaml".into(), text: Ok(text.to_owned()) }]
    }

    fn relay(name: &str) -> String {
        format!(
            "apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: MailProvider\n\
             metadata: {{name: {name}}}\n\
             spec: {{smtp: {{host: h, port: 25}}, sender: {{address: a@example.com}}}}\n"
        )
    }

    #[test]
    fn a_broken_set_leaves_the_last_good_one_in_use() {
        let registry = Registry::new(HealthIntervals::default(), Clock::start());
        let mut last_read = None;
        let mut names_after = |files: &[File]| {
            take_over(&source(), files, &registry, &mut last_read);
            registry.catalog().providers.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names_after(&files(&relay("one"))), ["one"]);
        assert_eq!(names_after(&files("kind: Nothing")), ["one"]);
        assert_eq!(names_after(&files(&relay("two"))), ["two"]);
    }

    #[test]
    fn the_same_files_again_do_not_replace_the_catalog() {
        let registry = Registry::new(HealthIntervals::default(), Clock::start());
        let mut last_read = None;
        take_over(&source(), &files(&relay("one")), &registry, &mut last_read);
        let before = registry.catalog();
        take_over(&source(), &files(&relay("one")), &registry, &mut last_read);
        assert!(Arc::ptr_eq(&before, &registry.catalog()));
    }
}
