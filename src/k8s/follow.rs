//! A copy in memory of the objects of one kind, kept up to date by a watch.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hash, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::client::told;
use super::limits::PAGE_OBJECTS_COUNT_MAX;

/// How long the API server keeps a watch, in seconds. One that was dropped on the way is noticed
/// after this time, too.
pub(super) const WATCH_SECONDS: u32 = 40;

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
        let mut config =
            watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE_OBJECTS_COUNT_MAX);
        if !selector.is_empty() {
            config = config.fields(selector);
        }
        let task = tokio::spawn(async move {
            let mut patience = Patience::default();
            let mut last_error = None;
            loop {
                let mut events = pin!(watcher(api.clone(), config.clone()));
                let end = Instant::now() + LIST_INTERVAL;
                while let Ok(Some(event)) = timeout_at(end, events.next()).await {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            if is_absent(&error) && *sender.borrow() == Known::NotYet {
                                sender.send_replace(Known::Refused);
                            }
                            let text = text(&error);
                            if code(&error) != Some(EXPIRED) && last_error.as_ref() != Some(&text) {
                                let error = &text;
                                tracing::warn!(what, error, "cannot watch; what is known stays");
                                last_error = Some(text);
                            }
                            changed.notify_one();
                            sleep(patience.wait(Instant::now())).await;
                            if goes_on_after(&error) {
                                continue;
                            }
                            break;
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

const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const EXPIRED: u16 = 410;

/// The status that the API server answered with; `None` when it did not answer.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::WatchError(status) => Some(status.code),
        error => match of_call(error)? {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
    }
}

fn of_call(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn text(error: &watcher::Error) -> String {
    match (code(error), of_call(error)) {
        (Some(NOT_FOUND), _) => "there is no such kind yet".to_owned(),
        (_, Some(error)) => told(error),
        (_, None) => error.to_string(),
    }
}

/// Whether it is an answer, and not a fault that passes: there is no such kind, or we may not read
/// it.
fn is_absent(error: &watcher::Error) -> bool {
    matches!(code(error), Some(FORBIDDEN | NOT_FOUND))
}

/// Whether nothing was missed: the watch goes on where it ended. After anything else, and when the
/// server no longer knows where we were, the list is read again.
fn goes_on_after(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && code(error) != Some(EXPIRED)
}

/// How long to wait after each failure: ever longer, until one comes alone.
#[derive(Default)]
struct Patience {
    failures_count: u32,
    last: Option<Instant>,
    /// Differs from one follower to the next, so that not all of them come back at once.
    random: RandomState,
}

impl Patience {
    const WAIT_MIN: Duration = Duration::from_secs(1);
    /// Half as much again is drawn by lot. With the time that an answer may take it is under a
    /// minute until all is known again.
    const WAIT_MAX: Duration = Duration::from_secs(15);
    const CALM: Duration = Duration::from_secs(60);

    fn wait(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| Self::CALM < now.duration_since(last)) {
            self.failures_count = 0;
        }
        self.last = Some(now);
        let wait = Self::WAIT_MIN.saturating_mul(1 << self.failures_count.min(16));
        self.failures_count = self.failures_count.saturating_add(1);
        let percent = self.random.hash_one(self.failures_count) % 50;
        let percent = u32::try_from(percent).unwrap_or_default();
        wait.min(Self::WAIT_MAX) * (100 + percent) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn answered(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("", "").with_code(code).boxed())
    }

    #[test]
    fn a_watch_goes_on_where_it_ended_unless_something_may_have_been_missed() {
        use watcher::Error::{InitialListFailed, NoResourceVersion, WatchFailed, WatchStartFailed};
        assert!(goes_on_after(&WatchStartFailed(answered(503))));
        let expired = watcher::Error::WatchError(Status::default().with_code(EXPIRED).boxed());
        for error in [
            WatchStartFailed(answered(EXPIRED)),
            InitialListFailed(answered(500)),
            WatchFailed(kube::Error::LinesCodecMaxLineLengthExceeded),
            NoResourceVersion,
            expired,
        ] {
            assert!(!goes_on_after(&error), "{error}");
        }
    }

    #[test]
    fn only_an_answer_of_the_server_says_that_there_is_no_such_kind() {
        for (status, says) in [(403, true), (404, true), (429, false), (500, false), (503, false)] {
            let error = watcher::Error::InitialListFailed(answered(status));
            assert_eq!(is_absent(&error), says, "{status}");
        }
    }

    #[test]
    fn failures_in_a_row_are_waited_for_ever_longer_but_never_long() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 15, 15, 15] {
            let least = Duration::from_secs(seconds);
            let wait = patience.wait(now);
            assert!(least <= wait && wait <= least * 3 / 2, "{wait:?}");
            now += wait;
        }
        now += Patience::CALM + Duration::from_secs(1);
        assert!(patience.wait(now) < Duration::from_secs(2), "it was calm since");
    }
}
