//! The threads that mail goes out on. They give way to those that take it in: whoever posts waits for
//! an answer, while what was answered is safe.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// Above the rest of the process: enough that a burst of posts is answered first, and that delivery still gets a tenth of the
/// processors while it lasts.
const NICENESS: i32 = 10;

/// See the module. What is spawned within [`Background::enter`] runs there, and all that it spawns.
pub(super) struct Background(Option<Runtime>);

impl Background {
    /// # Errors
    /// When the threads cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name("delivery").on_thread_start(|| {
            // On Linux it is each thread's own. Without it everything works, only less in this order.
            let _ = rustix::process::nice(NICENESS);
        });
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.0.as_ref().expect("only drop takes it").enter()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // What runs there still was cut short on purpose, or hangs in a name lookup.
        self.0.take().expect("only drop takes it").shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn here() -> (Option<String>, i32) {
        let niceness = rustix::process::getpriority_process(None).expect("the kernel tells");
        (thread::current().name().map(str::to_owned), niceness)
    }

    #[tokio::test]
    async fn what_is_spawned_within_runs_on_its_threads_and_what_that_spawns() {
        let (_, usual) = here();
        let background = Background::start().expect("threads");
        let spawned = {
            let _there = background.enter();
            tokio::spawn(async { (here(), tokio::spawn(async { here() }).await) })
        };
        let (first, second) = spawned.await.expect("it ends");
        for (name, niceness) in [first, second.expect("it ends")] {
            assert_eq!(name.as_deref(), Some("delivery"));
            assert_eq!(niceness, 19.min(usual + NICENESS));
        }
        assert_eq!(here().1, usual);
    }
}
