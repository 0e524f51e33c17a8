//! What delivery needs of a wire.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::core::job::Job;
use crate::core::notification::Content;
use crate::core::outcome::{Failure, Outcome};
use crate::core::provider::Provider;

/// A way to hand messages to providers.
pub trait Transport: Send + Sync + 'static {
    /// Sends one job's message. Never fails: every end is an [`Outcome`]. Safe to drop at any
    /// await: a connection that was in use then is closed, not kept.
    fn send<'a>(
        &'a self,
        provider: &'a Arc<Provider>,
        job: &'a Job,
        content: &'a Content,
    ) -> BoxFuture<'a, Outcome>;

    /// Connects, encrypts and logs in as a send would, says NOOP and QUIT, and sends nothing.
    fn probe<'a>(&'a self, provider: &'a Arc<Provider>) -> BoxFuture<'a, Result<(), Failure>>;
}
