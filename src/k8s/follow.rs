//! A copy in memory of the objects of one kind, kept up to date by a watch.

use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// How long the API server keeps a watch, in seconds. One that was dropped on the way is noticed
/// after this time, too.
pub(super) const WATCH_SECONDS: u32 = 50;

/// How often the list is read anew. A watch from a point that the server does not know yet, after
/// its data was restored from a backup, neither fails nor tells.
const LIST_INTERVAL: Duration = Duration::from_secs(300);

/// What is known of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The first list is not in.
    NotYet,
    /// The API server answered, and with no list: there is no such kind, or we may not read it.
    Refused,
    /// All of it, as it was when the API server last told.
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
        let mut writer = Writer::new(kind);
        let store = writer.as_reader();
        let (sender, known) = watch::channel(Known::NotYet);
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if !selector.is_empty() {
            config = config.fields(selector);
        }
        let task = tokio::spawn(async move {
            let mut last_error = None;
            loop {
                let mut events = pin!(watcher(api.clone(), config.clone()).default_backoff());
                let end = Instant::now() + LIST_INTERVAL;
                while let Ok(Some(event)) = timeout_at(end, events.next()).await {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            let code = code(&error);
                            // The server no longer knows where we were: the list is read again.
                            if code == Some(EXPIRED) {
                                continue;
                            }
                            if code.is_some() && *sender.borrow() == Known::NotYet {
                                sender.send_replace(Known::Refused);
                            }
                            let text = match code {
                                Some(NOT_FOUND) => "there is no such kind yet".to_owned(),
                                _ => error.to_string(),
                            };
                            if last_error.as_ref() != Some(&text) {
                                let error = &text;
                                tracing::warn!(what, error, "cannot watch; what is known stays");
                            }
                            last_error = Some(text);
                            changed.notify_one();
                            continue;
                        }
                    };
                    writer.apply_watcher_event(&event);
                    match event {
                        Event::Init | Event::InitApply(_) => continue,
                        Event::InitDone => drop(sender.send_replace(Known::Listed)),
                        Event::Apply(_) | Event::Delete(_) => {}
                    }
                    if last_error.take().is_some() {
                        tracing::info!(what, "watching again");
                    }
                    changed.notify_one();
                }
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
