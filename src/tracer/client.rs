//! The HTTP client that spans are exported with: it may block, since its thread does nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;

use crate::https::agent_for;

const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    /// Whether the last export failed: that is told once.
    is_failing: AtomicBool,
}

impl Client {
    /// For `endpoint`, which has no secret in it.
    pub(super) fn new(endpoint: &str) -> Self {
        let agent = agent_for(endpoint).timeout_global(Some(EXCHANGE_TIME_MAX)).build().into();
        Self { agent, endpoint: endpoint.to_owned(), is_failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        let bytes = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, bytes.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let error = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match error {
            Some(error) if !was_failing => {
                tracing::warn!(%endpoint, error, "spans cannot be exported, and are lost");
            }
            None if was_failing => tracing::info!(%endpoint, "spans are exported again"),
            _ => {}
        }
        Ok(answer?)
    }
}
