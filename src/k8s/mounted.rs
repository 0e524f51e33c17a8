//! A certificate that others keep, cert-manager say: mounted as files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::certificate::certified_key;
use crate::file_watch::FileWatch;

/// Reads `tls.crt` and `tls.key` of a folder.
///
/// # Errors
/// One sentence that names the folder.
pub fn read(folder: &Path) -> Result<CertifiedKey, String> {
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    certified_key(&read("tls.crt")?, &read("tls.key")?)
        .map_err(|problem| format!("{}: {problem}", folder.display()))
}

/// Keeps `serving` up to date with the folder until `stop`. Broken files are named in the log, and
/// the last good certificate stays.
pub async fn follow(
    folder: PathBuf,
    serving: watch::Sender<Option<Arc<CertifiedKey>>>,
    stop: CancellationToken,
) {
    let watched = FileWatch::start(&folder);
    let mut last_problem = None;
    loop {
        let path = folder.clone();
        // A reading that panics is one that found nothing new; the next one tries again.
        match spawn_blocking(move || read(&path)).await {
            Ok(Ok(key)) => {
                last_problem = None;
                take_over(key, &serving);
            }
            Ok(Err(error)) => {
                if last_problem.as_ref() != Some(&error) {
                    tracing::error!(error, "the last good certificate of the webhook stays");
                }
                last_problem = Some(error);
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = watched.changed() => {}
        }
    }
}

/// Serves with `key` if it differs.
pub(super) fn take_over(key: CertifiedKey, serving: &watch::Sender<Option<Arc<CertifiedKey>>>) {
    let key = Arc::new(key);
    let is_new = serving.send_if_modified(|known| {
        let is_new = known.as_ref().is_none_or(|known| known.cert != key.cert);
        if is_new {
            *known = Some(key);
        }
        is_new
    });
    if is_new {
        tracing::info!("the certificate of the webhook is taken over");
    }
}
