//! A thread of its own for callers that ask now and then.
//!
//! What is ready to run waits for all that was ready before. So beside a burst everybody would wait as
//! long as the callers of the burst do for each other, however seldom they ask. Here a connection that
//! has paused is served on the express thread, which the kernel runs as soon as there is something to
//! do on it; one that asks again at once moves to the threads where everything else runs, and back
//! when it has paused. Only a few are served there at a time, so that it stays quick.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::yield_now;

const THREAD_NAME: &str = "express";
/// Who asks nothing for so long after an answer has paused.
const PAUSE: Duration = Duration::from_millis(20);
/// So many requests are served on the thread at a time.
const SERVED_MAX: usize = 16;

/// See the module. The thread ends when it is dropped, and with it what still runs there.
pub(super) struct Express {
    threads: Arc<Threads>,
    /// None where there is no thread to be had: then all are served alike.
    runtime: Option<Runtime>,
}

struct Threads {
    express: Handle,
    rest: Handle,
    /// How many requests are served on the express thread.
    served_count: AtomicUsize,
}

impl Threads {
    /// Counts one more request on the express thread, unless there are enough.
    fn takes_one_more(&self) -> bool {
        let one_more = |count: usize| (count < SERVED_MAX).then_some(count + 1);
        self.served_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

impl Express {
    /// Starts the thread; everything else runs where this is called.
    pub(super) fn start() -> Self {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name(THREAD_NAME).enable_all().build();
        let runtime =
            runtime.inspect_err(|error| tracing::warn!(%error, "there is no express thread")).ok();
        let rest = Handle::current();
        let express = runtime.as_ref().map_or_else(|| rest.clone(), |it| it.handle().clone());
        let threads = Arc::new(Threads { express, rest, served_count: AtomicUsize::new(0) });
        Self { threads, runtime }
    }

    /// Runs a connection, which begins each request with [`Seat::serve`].
    pub(super) fn spawn<F>(&self, connection: impl FnOnce(Seat) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Place { last_answer: None, is_express: true, has_to_move: false };
        let seat = Seat { threads: self.threads.clone(), place: Arc::new(Mutex::new(place)) };
        let connection = Box::pin(connection(seat.clone()));
        self.threads.express.spawn(Riding { connection: Some(connection), seat });
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where one connection is served.
#[derive(Clone)]
pub(super) struct Seat {
    threads: Arc<Threads>,
    place: Arc<Mutex<Place>>,
}

struct Place {
    last_answer: Option<Instant>,
    is_express: bool,
    /// Before it is polled again.
    has_to_move: bool,
}

impl Seat {
    /// Goes where the request that has just begun is to be served, which lasts until the answer is
    /// dropped.
    pub(super) async fn serve(&self) -> Served<'_> {
        let moves = {
            let mut place = self.place();
            let has_paused = place.last_answer.is_none_or(|last| PAUSE <= last.elapsed());
            let is_express = has_paused && self.threads.takes_one_more();
            place.has_to_move = place.is_express != is_express;
            place.is_express = is_express;
            place.has_to_move
        };
        let served = Served(self);
        if moves {
            // Its next poll is over there.
            yield_now().await;
        }
        served
    }

    /// Once, where it has to go before it is polled again.
    fn has_to_move_to(&self) -> Option<Handle> {
        let mut place = self.place();
        let Threads { express, rest, .. } = &*self.threads;
        let to = if place.is_express { express } else { rest };
        mem::take(&mut place.has_to_move).then(|| to.clone())
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Changed by single steps that cannot panic half way.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
pub(super) struct Served<'a>(&'a Seat);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut place = self.0.place();
        if place.is_express {
            self.0.threads.served_count.fetch_sub(1, Ordering::Relaxed);
        }
        place.last_answer = Some(Instant::now());
    }
}

/// A connection on one of the threads.
struct Riding<F> {
    /// None once it has ended here.
    connection: Option<Pin<Box<F>>>,
    seat: Seat,
}

impl<F: Future<Output = ()> + Send + 'static> Future for Riding<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(threads) = self.seat.has_to_move_to() else { return Poll::Pending };
        let (connection, seat) = (self.connection.take(), self.seat.clone());
        threads.spawn(Riding { connection, seat });
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn is_express() -> bool {
        thread::current().name() == Some(THREAD_NAME)
    }

    #[tokio::test]
    async fn who_asks_again_at_once_moves_to_the_rest_and_who_paused_back() {
        let express = Express::start();
        let (told, mut places) = mpsc::unbounded_channel();
        express.spawn(|seat| async move {
            for is_wanted in [true, false, true, false] {
                let mut pause = PAUSE;
                loop {
                    let served = seat.serve().await;
                    if is_express() == is_wanted {
                        break;
                    }
                    drop(served);
                    if is_wanted {
                        tokio::time::sleep(pause).await;
                        pause *= 2;
                    }
                }
                let _ = told.send(is_wanted);
            }
        });
        let mut seen = Vec::new();
        while let Some(place) = places.recv().await {
            seen.push(place);
        }
        assert_eq!(seen, [true, false, true, false]);
    }

    #[tokio::test]
    async fn only_a_few_are_served_there_at_a_time() {
        let express = Express::start();
        let mut ends = Vec::new();
        let mut begin = async |count: usize| {
            let (told, mut places) = mpsc::unbounded_channel();
            for _ in 0..count {
                let told = told.clone();
                let (end, ended) = oneshot::channel::<()>();
                ends.push(end);
                express.spawn(|seat| async move {
                    let _served = seat.serve().await;
                    let _ = told.send(is_express());
                    let _ = ended.await;
                });
            }
            let mut express_count = 0;
            for _ in 0..count {
                express_count += usize::from(places.recv().await.expect("each tells"));
            }
            express_count
        };
        assert_eq!(begin(SERVED_MAX + 3).await, SERVED_MAX);
        assert_eq!(begin(3).await, 0);
    }
}
