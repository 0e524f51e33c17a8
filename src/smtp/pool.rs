//! Connections that are kept for the next message.
//!
//! A connection belongs to one description of one server: it is not used again once the provider's
//! settings differ. One that nobody used for a while is closed with QUIT.
//!
//! All connections together, kept or not, are bounded: each is a file descriptor. Where the last is
//! taken none is kept, and who needs one waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::session::Session;
use crate::core::provider::{Provider, ProviderName};
use crate::registry::same_server;

/// See the module.
pub(super) struct Pool {
    shelf: Arc<Mutex<Shelf>>,
    idle: Duration,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Shelf {
    /// By provider, the longest idle first.
    idle: HashMap<ProviderName, Vec<Idle>>,
    is_swept: bool,
}

struct Idle {
    session: Session,
    since: Instant,
}

impl Pool {
    /// An empty pool that closes what was idle for `idle`, for so many connections at a time.
    pub(super) fn new(idle: Duration, connections_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { shelf: Arc::default(), idle, places }
    }

    /// A place for a new connection. Where all are taken, the connection that was idle the longest
    /// gives its own up.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        drop(lock(&self.shelf).take_oldest());
        let place = self.places.clone().acquire_owned().await;
        place.unwrap_or_else(|_| unreachable!("nobody closes the semaphore"))
    }

    /// The connection to `provider` that was used last, if there is one.
    pub(super) fn take(&self, provider: &Arc<Provider>) -> Option<Session> {
        let mut shelf = lock(&self.shelf);
        let idle = shelf.idle.get_mut(&provider.name)?;
        // A connection under older settings closes here, when it is dropped.
        idle.retain(|kept| same_server(kept.session.provider(), provider));
        idle.pop().map(|kept| kept.session.reused())
    }

    /// Keeps a connection for the next message, or says goodbye to one that has served its time.
    pub(super) fn put(&self, session: Session) {
        if !session.is_in_step() {
            return;
        }
        if session.is_worn() || self.places.available_permits() == 0 {
            tokio::spawn(session.quit());
            return;
        }
        let mut shelf = lock(&self.shelf);
        let name = session.provider().name.clone();
        shelf.idle.entry(name).or_default().push(Idle { session, since: Instant::now() });
        if !std::mem::replace(&mut shelf.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.shelf), self.idle));
        }
    }
}

/// Closes idle connections when their time is up; ends when none is left.
async fn sweep(shelf: Weak<Mutex<Shelf>>, idle: Duration) {
    loop {
        let next = {
            let Some(shelf) = shelf.upgrade() else { return };
            let mut shelf = lock(&shelf);
            let Some(next) = shelf.close_idle(Instant::now(), idle) else {
                shelf.is_swept = false;
                return;
            };
            next
        };
        tokio::time::sleep_until(next).await;
    }
}

impl Shelf {
    fn take_oldest(&mut self) -> Option<Idle> {
        let all = self.idle.values_mut().filter(|kept| !kept.is_empty());
        Some(all.min_by_key(|kept| kept[0].since)?.remove(0))
    }

    /// Closes what was idle for `limit` at `now`; returns when the next one will have been.
    fn close_idle(&mut self, now: Instant, limit: Duration) -> Option<Instant> {
        for kept in self.idle.values_mut() {
            for expired in kept.extract_if(.., |kept| kept.since + limit <= now) {
                tokio::spawn(expired.session.quit());
            }
        }
        self.idle.retain(|_, kept| !kept.is_empty());
        self.idle.values().flatten().map(|kept| kept.since + limit).min()
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // A shelf without one of its connections is still a shelf.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}
