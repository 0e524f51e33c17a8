//! Waiting for facts.

use std::time::{Duration, Instant};

/// Longer than any fact of these tests takes on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Looks until `fact` gives a value.
///
/// # Panics
/// When `LIMIT` passes first, naming `what` was expected.
pub async fn eventually<T>(what: &str, fact: impl AsyncFnMut() -> Option<T>) -> T {
    within(LIMIT, what, fact).await
}

/// `eventually` with a limit that is part of what is tested.
///
/// # Panics
/// When `limit` passes first, naming `what` was expected.
pub async fn within<T>(limit: Duration, what: &str, mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
