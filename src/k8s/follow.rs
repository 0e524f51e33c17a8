//! A copy in memory of the objects of one kind, kept up to date by a watch.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::reflector};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long the API server keeps a watch, in seconds. One that was dropped on the way is noticed
/// after this time, too.
pub(super) const WATCH_SECONDS: u32 = 50;

/// What is known of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The first list is not in.
    NotYet,
    /// There is no such kind, or we may not read it: as good as none of it.
    Refused,
    /// All of it, as it was a moment ago.
    Listed,
}

/// Objects of one kind. The watch ends when this is dropped.
pub(super) struct Followed<K>
where
    K: Resource + 'static,
    K::DynamicType: Hash + Eq,
{
    store: Store<K>,
    known: watch::Receiver<Known>,
    _task: AbortOnDropHandle<()>,
}

impl<K> Followed<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Clone + Debug + Eq + Hash + Send + Sync + Unpin,
{
    /// Starts to follow what `selector`, a field selector, leaves of `api`. `what` names it in
    /// the log. Wakes `changed` whenever an object or what is known changed.
    pub(super) fn start(
        api: Api<K>,
        kind: K::DynamicType,
        what: String,
        selector: &str,
        changed: Arc<Notify>,
    ) -> Self {
        let writer = reflector::store::Writer::new(kind);
        let store = writer.as_reader();
        let (sender, known) = watch::channel(Known::NotYet);
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if !selector.is_empty() {
            config = config.fields(selector);
        }
        let events = reflector(writer, watcher(api, config)).default_backoff();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            let mut last_error = None;
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init | Event::InitApply(_)) => continue,
                    Ok(Event::InitDone) => {
                        sender.send_replace(Known::Listed);
                    }
                    Ok(Event::Apply(_) | Event::Delete(_)) => {}
                    Err(error) => {
                        let code = code(&error);
                        // The server no longer knows where we were, so the list is read again.
                        if code == Some(EXPIRED) {
                            continue;
                        }
                        let is_refused = matches!(code, Some(FORBIDDEN | NOT_FOUND));
                        if is_refused && *sender.borrow() == Known::NotYet {
                            sender.send_replace(Known::Refused);
                        }
                        let text = match code {
                            Some(NOT_FOUND) => "there is no such kind yet".to_owned(),
                            _ => error.to_string(),
                        };
                        if last_error.as_ref() != Some(&text) {
                            tracing::warn!(what, error = text, "cannot watch; what is known stays");
                        }
                        last_error = Some(text);
                        changed.notify_one();
                        continue;
                    }
                }
                if last_error.take().is_some() {
                    tracing::info!(what, "watching again");
                }
                changed.notify_one();
            }
        });
        Self { store, known, _task: AbortOnDropHandle::new(task) }
    }

    /// The objects.
    pub(super) fn objects(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Whether they are all.
    pub(super) fn known(&self) -> Known {
        *self.known.borrow()
    }
}

const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const EXPIRED: u16 = 410;

/// The status that the API server answered with; `None` when it did not answer.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}
