//! How many connections a provider is given at once: a bound that an edit may change while they are
//! in use. First come, first served, so that a busy lane keeps no health check waiting for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::provider::ProviderName;

/// One for each provider.
#[derive(Debug)]
pub struct Gates {
    by_name: Mutex<BTreeMap<ProviderName, Arc<Gate>>>,
    share_max: usize,
}

impl Gates {
    /// For a process that has so many connections, to all servers together.
    #[must_use]
    pub fn sharing(connections_max: usize) -> Self {
        Self { by_name: Mutex::default(), share_max: (connections_max / 4).max(1) }
    }

    /// The gate of a provider, as wide as `connections_max` where that is no more than its share.
    pub(super) fn of(&self, provider: &ProviderName, connections_max: usize) -> Arc<Gate> {
        let mut gates = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(provider.clone()).or_default().clone();
        gate.widen_to(connections_max.min(self.share_max));
        gate
    }
}

impl Default for Gates {
    /// Where nothing bounds the connections of the process.
    fn default() -> Self {
        Self::sharing(usize::MAX)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Arc<Semaphore>,
    width: Mutex<Width>,
}

#[derive(Debug, Default)]
struct Width {
    wanted: usize,
    /// How many permits there are, those that are taken included: more than are wanted until they
    /// come back.
    given: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), width: Mutex::default() }
    }
}

impl Gate {
    fn widen_to(&self, connections_max: usize) {
        let mut width = self.width();
        width.wanted = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        if width.given < width.wanted {
            self.permits.add_permits(width.wanted - width.given);
            width.given = width.wanted;
        } else {
            width.given -= self.permits.forget_permits(width.given - width.wanted);
        }
    }

    /// A permit for one connection, when it is one's turn.
    pub(super) async fn enter(&self) -> OwnedSemaphorePermit {
        loop {
            let permit = self.permits.clone().acquire_owned().await;
            let permit = permit.unwrap_or_else(|_| unreachable!("nobody closes the semaphore"));
            let mut width = self.width();
            if width.given <= width.wanted {
                return permit;
            }
            width.given -= 1;
            permit.forget();
        }
    }

    fn width(&self) -> MutexGuard<'_, Width> {
        // Two numbers; a panic elsewhere leaves them as they were.
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn enters(gate: &Gate) -> Option<OwnedSemaphorePermit> {
        gate.enter().now_or_never()
    }

    #[test]
    fn no_gate_is_wider_than_a_quarter_of_all_connections_and_each_lets_one_in() {
        for (connections_max, wanted, width) in
            [(40, 1000, 10), (40, 10, 10), (40, 4, 4), (16, 4, 4), (2, 4, 1), (usize::MAX, 50, 50)]
        {
            let name = ProviderName::new("a").expect("a name");
            let gate = Gates::sharing(connections_max).of(&name, wanted);
            let inside: Vec<_> = std::iter::from_fn(|| enters(&gate)).collect();
            assert_eq!(inside.len(), width, "{wanted} of {connections_max}");
        }
    }

    #[test]
    fn a_gate_that_becomes_narrower_lets_nobody_in_until_enough_have_left() {
        let (gates, name) = (Gates::default(), ProviderName::new("a").expect("a name"));
        let gate = gates.of(&name, 3);
        let [first, second, third] = [(); 3].map(|()| enters(&gate).expect("there is room"));
        assert!(enters(&gate).is_none());
        let gate = gates.of(&name, 1);
        drop(first);
        assert!(enters(&gate).is_none());
        drop(second);
        assert!(enters(&gate).is_none(), "one is in still");
        drop(third);
        let one = enters(&gate).expect("it is the only one");
        assert!(enters(&gate).is_none());
        let gate = gates.of(&name, 2);
        let other = enters(&gate).expect("it is wider again");
        assert!(enters(&gate).is_none());
        drop((one, other));
        let gate = gates.of(&name, 1);
        let _one = enters(&gate).expect("one");
        assert!(enters(&gate).is_none(), "what is free goes at once");
    }
}
