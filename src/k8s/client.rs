//! The connection to the API server.

use std::time::Duration;

pub use kube::Client;
use kube::client::ClientBuilder;
use kube::config::InferConfigError;

use super::follow::WATCH_SECONDS;
use super::limits::Limits;

/// How long a connection may take, and with it the notice that the API server is away.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How much of what went wrong is told: a proxy on the way may answer with a page.
const ERROR_CHARS_MAX: usize = 300;

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
    // It would wait for over a minute by itself, and for as long as a `Retry-After` says: everyone
    // who calls tries again, and knows how soon.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Limits).build())
}

/// What went wrong with a call, in a few words. An answer that cannot be read is not quoted: it may
/// be a Secret.
pub(super) fn told(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::SerdeError(error) => {
            let (line, column) = (error.line(), error.column());
            format!("the answer cannot be read at line {line}, column {column}")
        }
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        error => error.to_string(),
    };
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::Status;

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let answer = r#"{"metadata": {}, "data": "aHVudGVyMg=="}"#;
        let error = serde_json::from_str::<Secret>(answer).expect_err("it is none");
        assert!(error.to_string().contains("aHVudGVyMg"), "the reason for all this");
        let said = told(&kube::Error::SerdeError(error));
        assert_eq!(said, "the answer cannot be read at line 1, column 39");
    }

    #[test]
    fn a_page_instead_of_an_answer_is_told_in_short() {
        let page = Status::failure(&"ä".repeat(100_000), "").with_code(502);
        assert_eq!(told(&kube::Error::Api(page.boxed())).chars().count(), ERROR_CHARS_MAX + 1);
        let short = Status::failure("no such kind", "NotFound").with_code(404);
        assert_eq!(told(&kube::Error::Api(short.boxed())), "no such kind (404)");
    }
}
