//! The connection to the API server.

use std::time::Duration;

pub use kube::Client;
use kube::config::InferConfigError;

use super::follow::WATCH_SECONDS;

/// How long a connection may take, and with it the notice that the API server is away.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a service account nor a kubeconfig.
    #[error(transparent)]
    Config(#[from] InferConfigError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// A client for the API server of this pod, or of the current kubeconfig. Nothing is asked yet.
///
/// # Errors
/// When neither is there or usable.
pub async fn client() -> Result<Client, ClientError> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(CONNECT_TIME_MAX);
    // A watch that hears nothing for longer than the server keeps it is broken.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 10));
    Ok(Client::try_from(config)?)
}
