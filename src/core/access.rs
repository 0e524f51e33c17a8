//! Who may do what with the API, as values.

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Post a notification.
    Notify,
    /// Look at queue, jobs, notifications and providers.
    Read,
    /// Cancel what waits.
    Cancel,
    /// Look at dead letters, which may show their contents.
    ReadDeadLetters,
    /// Send dead letters again.
    Retry,
    /// Take a dead letter out.
    Discard,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody vouches for the token.
    Unauthenticated,
    /// The caller is known and may not; a sentence says what is missing.
    Forbidden(String),
    /// Whoever knows cannot be asked just now.
    Unavailable,
}
