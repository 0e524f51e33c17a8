//! How much memory the bodies of all requests under way may take together.
//!
//! A small body is free, so it waits for nobody, whatever others do. A larger one asks for its whole
//! length before more of it is read. When nothing is left callers wait in line, and what they send
//! waits in the kernel, which lets them send no more. A share ends when what was asked for is done.
//!
//! Nobody keeps others waiting by sending slowly: a share is not asked for before a few bytes are
//! here, and its holder gives way to those in line once it falls behind a modest pace.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// All bodies together, beyond the free bytes of each. While one is taken in, it is in memory up
/// to three times over: as it came, as it is understood, and as it goes to the disk.
const BODIES_BYTES_MAX: u32 = 8 << 20;

/// A body that is no longer is free.
pub(super) const FREE_BYTES: usize = 16 << 10;

/// One that says it is longer asks for its share when so many bytes are here.
pub(super) const PROOF_BYTES: usize = 4 << 10;

/// The pace: so many bytes a second, after a moment of grace. Low enough for an honest caller of a
/// busy machine.
const BYTES_PER_SECOND_MIN: u32 = 8 << 10;
const GRACE: Duration = Duration::from_secs(2);

/// See the module. A clone is the same budget.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    left: Arc<Semaphore>,
    /// How many requests wait for a share.
    waiting_count: Arc<watch::Sender<usize>>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        let left = Arc::new(Semaphore::new(BODIES_BYTES_MAX as usize));
        Self { left, waiting_count: Arc::new(watch::Sender::new(0)) }
    }
}

/// What one request takes of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _bytes: OwnedSemaphorePermit,
    budget: BodyBudget,
    since: Instant,
}

impl BodyBudget {
    /// A share of so many bytes, first come, first served.
    pub(super) async fn share(&self, bytes_count: usize) -> Share {
        let bytes_count = u32::try_from(bytes_count).unwrap_or(u32::MAX).min(BODIES_BYTES_MAX);
        let bytes = match self.left.clone().try_acquire_many_owned(bytes_count) {
            Ok(bytes) => bytes,
            Err(_) => {
                let _waiting = Waiting::begin(&self.waiting_count);
                let acquired = self.left.clone().acquire_many_owned(bytes_count).await;
                acquired.unwrap_or_else(|_| unreachable!("nobody closes the semaphore"))
            }
        };
        Share { _bytes: bytes, budget: self.clone(), since: Instant::now() }
    }
}

impl Share {
    /// Returns once the holder, of whom so many bytes came since, has to give way to others.
    pub(super) async fn outstayed(&self, bytes_count: usize) {
        let bytes_count = u32::try_from(bytes_count).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes_count / BYTES_PER_SECOND_MIN;
        tokio::time::sleep_until(self.since + GRACE + earned).await;
        let mut waiting_count = self.budget.waiting_count.subscribe();
        // The budget, and with it the sender, is still there.
        let _ = waiting_count.wait_for(|count| 0 < *count).await;
    }
}

/// A request in line.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const HALF: usize = BODIES_BYTES_MAX as usize / 2;

    #[tokio::test(start_paused = true)]
    async fn those_who_find_nothing_left_wait_in_line_until_a_share_ends() {
        let budget = BodyBudget::default();
        let first = budget.share(HALF).await;
        let second = budget.share(HALF).await;
        let mut large = Box::pin(budget.share(HALF));
        assert!((&mut large).now_or_never().is_none());
        let mut small = Box::pin(budget.share(1));
        assert!((&mut small).now_or_never().is_none(), "it came later than the large one");
        drop(first);
        let large = large.now_or_never().expect("half of it is left");
        assert!((&mut small).now_or_never().is_none());
        drop((second, large));
        assert!(small.now_or_never().is_some());
        assert_eq!(*budget.waiting_count.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_gives_way_only_to_those_in_line() {
        let budget = BodyBudget::default();
        let slow = budget.share(2 * HALF).await;
        let day = Duration::from_secs(86_400);
        tokio::time::timeout(day, slow.outstayed(0)).await.expect_err("nobody waits");
        let next = budget.share(1);
        let begun = Instant::now();
        tokio::select! {
            () = slow.outstayed(0) => {}
            _ = next => panic!("nothing is left"),
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_does_not_give_way() {
        let budget = BodyBudget::default();
        let brisk = budget.share(2 * HALF).await;
        let begun = Instant::now();
        tokio::select! {
            () = brisk.outstayed(1 << 20) => {}
            _ = budget.share(1) => panic!("nothing is left"),
        }
        assert_eq!(begun.elapsed(), GRACE + Duration::from_secs(128));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_holds_up_nobody() {
        let budget = BodyBudget::default();
        let all = budget.share(2 * HALF).await;
        assert!(budget.share(HALF).now_or_never().is_none());
        assert_eq!(*budget.waiting_count.borrow(), 0);
        drop(all);
        assert!(budget.share(2 * HALF).now_or_never().is_some());
    }
}
