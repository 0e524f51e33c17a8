//! What the queue tells of a job while its state changes.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use breakglass_mailer::clock::Clock;
use breakglass_mailer::core::decide::Verdict;
use breakglass_mailer::core::job::{Attempt, AttemptOutcome, DeadReason};
use breakglass_mailer::core::outcome::Stage;
use breakglass_mailer::queue::{Ids, Queue};
use tokio::sync::oneshot;

use crate::support::api::{accept, name};
use crate::support::memory_store::MemoryStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_changes_while_it_is_read_is_told_with_all_attempts_that_count() {
    let store = MemoryStore::default();
    let clock = Clock::start();
    let age_max = Duration::from_secs(3600);
    let queue = Queue::open(Arc::new(store.clone()), clock, Ids::random(), age_max);
    let queue = queue.expect("readable");
    queue.accept(accept(1, [name("a")], 1)).await.expect("accepted");
    let claim = queue.claim(&name("a"), |_| true).expect("it is due");
    let id = claim.job().id;

    let (is_read, read) = oneshot::channel();
    let (go_on, goes_on) = mpsc::channel();
    store.once_a_job_is_read(move || {
        is_read.send(()).expect("the test waits");
        goes_on.recv().expect("the test goes on");
    });
    let reader = queue.clone();
    let asked = tokio::spawn(async move { reader.job(id).await });
    read.await.expect("it is asked for");
    let attempt = Attempt {
        number: 1,
        at: clock.now(),
        provider: name("a"),
        stage: Stage::Prepare,
        outcome: AttemptOutcome::Unreachable,
        reply: None,
        message: "there is no password".to_owned(),
        duration: Duration::ZERO,
    };
    let verdict = Verdict::Bury { reason: DeadReason::Unreachable, detail: String::new() };
    let after = verdict.apply(&claim.job().progress, true, clock.now());
    queue
        .settle(vec![claim.becomes(after.clone(), Some(attempt.clone()))])
        .await
        .expect("recorded");
    go_on.send(()).expect("the reader waits");

    let (job, attempts) = asked.await.expect("no panic").expect("readable").expect("it is there");
    assert_eq!((job.progress, attempts), (after, vec![attempt]));
}
