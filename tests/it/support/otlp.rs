//! A collector that spans are exported to, over HTTP in protobuf.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::wait::eventually;

/// Listens until it is dropped.
pub struct Collector {
    url: String,
    seen: Arc<Mutex<Vec<Bytes>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let take = move |body: Bytes| {
            kept.lock().expect("not poisoned").push(body);
            async {}
        };
        let router = Router::new().route("/v1/traces", post(take));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self { url, seen, serving }
    }

    /// What `--otlp-endpoint` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All that it got, as it came.
    ///
    /// # Panics
    /// When another thread did.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().expect("not poisoned").concat()
    }

    /// The spans that it got.
    ///
    /// # Panics
    /// When it got something else.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.seen.lock().expect("not poisoned").clone();
        let requests = requests.into_iter().map(|bytes| {
            ExportTraceServiceRequest::decode(bytes).expect("a request for the export of spans")
        });
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|all| all.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits for so many spans of this name in this trace; they come in the order of their begin.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn has(&self, trace: &str, name: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans {name} of the trace {trace}"), async || {
            let mut found = self.spans();
            found.retain(|span| hex(&span.trace_id) == trace && span.name == name);
            found.sort_by_key(|span| span.start_time_unix_nano);
            (found.len() == count).then_some(found)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// An id as everybody writes it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a span says under this name; nothing when it says nothing.
pub fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}
