//! The order as it is made again at a start.

use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::decide::Verdict;
use breakglass_mailer::core::time::Time;
use breakglass_mailer::queue::{Ids, Queue};

use crate::support::api::{accept, name};
use crate::support::memory_store::MemoryStore;

#[tokio::test(start_paused = true)]
async fn a_run_under_a_clock_that_is_years_behind_ends_no_job_when_the_clock_is_right_again() {
    const DAY: Duration = Duration::from_secs(86_400);
    const RIGHT: Time = Time(1_800_000_000_000);
    let years_ago = Time(RIGHT.0 - 3_650 * 86_400_000);
    let store = MemoryStore::default();
    let open =
        |clock| Queue::open(Arc::new(store.clone()), clock, Ids::random(), DAY).expect("readable");
    let accept = accept(1, [name("a")], 1);
    open(Clock::at(RIGHT)).accept(accept).await.expect("accepted");

    let behind = Clock::at(years_ago);
    let queue = open(behind);
    tokio::time::advance(Duration::from_secs(60)).await;
    let claim = queue.claim(&name("a"), |_| true).expect("it is due");
    let later = Verdict::Retry { due: behind.now() };
    let after = later.apply(&claim.job().progress, true, behind.now());
    queue.settle(vec![claim.becomes(after, None)]).await.expect("recorded");

    let queue = open(Clock::at(RIGHT.plus(Duration::from_secs(3600))));
    let expired = tokio::time::timeout(Duration::ZERO, queue.expired()).await;
    assert!(expired.is_err(), "it is an hour old");
    assert!(queue.claim(&name("a"), |_| true).is_some());
}
