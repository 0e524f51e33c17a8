//! Connections that are kept for the next message.
//!
//! A connection belongs to one description of one server: it is not used again once the provider's
//! settings differ. One that nobody used for a while is closed with QUIT.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::session::Session;
use crate::core::provider::{Provider, ProviderName};
use crate::registry::same_server;

/// See the module.
pub(super) struct Pool {
    shelf: Arc<Mutex<Shelf>>,
    idle: Duration,
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
    /// An empty pool that closes what was idle for `idle`.
    pub(super) fn new(idle: Duration) -> Self {
        Self { shelf: Arc::default(), idle }
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
        if session.is_worn() {
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
