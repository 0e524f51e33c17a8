//! Tells when a file or a folder may have changed, so that its readers need no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

/// Editors and `kubectl` write several files, and one file several times.
const QUIET: Duration = Duration::from_millis(100);
/// A neighbour that is written all the time does not put a reading off for longer.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How often a change is supposed without being told of one: not every file system tells, and a
/// watch ends with the folder that it watches.
const POLL: Duration = Duration::from_secs(10);

/// Watches one path until it is dropped.
#[derive(Debug)]
pub struct FileWatch {
    changed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Starts to watch. Where that is impossible, it says so in the log and polls.
    #[must_use]
    pub fn start(path: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = start_watcher(path, changed.clone()).map_err(|error| {
            let file = path.display();
            tracing::warn!(%file, %error, "cannot watch for changes; reading every 10 seconds");
        });
        Self { changed, _watcher: watcher.ok() }
    }

    /// Returns once a change came to rest, or when it is time to look without one. A change since
    /// the last return is not missed.
    pub async fn changed(&self) {
        tokio::select! {
            () = sleep(POLL) => {}
            () = self.changed.notified() => self.settle().await,
        }
    }

    /// Returns when nothing has changed for [`QUIET`].
    async fn settle(&self) {
        let end = Instant::now() + SETTLE_MAX;
        loop {
            let now = Instant::now();
            let is_quiet = timeout_at(now + QUIET, self.changed.notified()).await.is_err();
            if is_quiet || now >= end {
                return;
            }
        }
    }
}

/// Watches the folder of a file, or the folder itself: an editor replaces a file, and a mounted
/// ConfigMap or Secret swaps a link, and a watch on the file alone would see neither.
fn start_watcher(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too; one that led to reading again would never end.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    watcher.watch(&watched_folder(path), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn watched_folder(path: &Path) -> PathBuf {
    match path.parent() {
        _ if path.is_dir() => path.to_owned(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_watched_through_its_folder() {
        assert_eq!(watched_folder(Path::new("/nowhere/a.yaml")), Path::new("/nowhere"));
        assert_eq!(watched_folder(Path::new("a.yaml")), Path::new("."));
        assert_eq!(watched_folder(Path::new("/")), Path::new("/"));
    }
}
