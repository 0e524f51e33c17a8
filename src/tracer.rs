//! Spans of what is done for a caller, their ids for the log, and their export over OTLP.
//!
//! A span holds ids, names of providers and hosts, numbers, and words of closed lists: never an
//! address of mail, a subject, a body, a secret, or a text that a server sent. Spans are kept in a
//! bounded queue and exported by a thread of their own; where nobody takes them they are dropped,
//! and nothing waits for them.

mod client;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::core::trace::TraceContext;
use client::Client;

const NAME: &str = "breakglass-mailer";
/// How long the export of the last spans may take.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// Begins spans. A clone shares its exporter.
#[derive(Clone, Debug)]
pub struct Tracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It answers.
    Server,
    /// It asks.
    Client,
}

impl Default for Tracer {
    /// One whose spans have ids, for the log and for those who follow them, and are not exported.
    fn default() -> Self {
        Self::of(SdkTracerProvider::builder().build())
    }
}

impl Tracer {
    /// One that exports to the collector at `endpoint`, over HTTP in protobuf: its `/v1/traces` gets
    /// them. What the environment says in `OTEL_*` of headers, resource and batches counts.
    ///
    /// # Errors
    /// When the endpoint or the environment is not as OTLP wants it.
    pub fn exporting(endpoint: &str) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(endpoint))
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .build()
            .with_context(|| format!("cannot export spans to {endpoint}"))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(NAME).with_attribute(version).build();
        let provider = SdkTracerProvider::builder();
        Ok(Self::of(provider.with_resource(resource).with_batch_exporter(exporter).build()))
    }

    fn of(provider: SdkTracerProvider) -> Self {
        Self { tracer: provider.tracer(NAME), provider }
    }

    /// Begins a span below `parent`; without one, a trace. It ends when it is dropped.
    #[must_use]
    pub fn begin(&self, name: String, side: Side, parent: Option<&TraceContext>) -> Span {
        let kind = match side {
            Side::Server => SpanKind::Server,
            Side::Client => SpanKind::Client,
        };
        let none = Context::new();
        let context = match parent {
            Some(parent) => none.with_remote_span_context(remote(parent)),
            None => none,
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Span(self.tracer.build_with_context(builder, &context))
    }

    /// Exports what there is still. Blocks for 2 s at most.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIME_MAX) {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

fn remote(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        TraceFlags::new(context.flags()),
        true,
        context.state().parse().unwrap_or_default(),
    )
}

/// Something that is being done for a caller. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(opentelemetry_sdk::trace::Span);

impl Span {
    /// Where it stands, for those who follow it; `None` once the tracer was shut down.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.span_context();
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        let state = context.trace_state().header();
        TraceContext::new(trace_id, span_id, context.trace_flags().to_u8(), &state)
    }

    /// Notes what is known of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// Notes that it failed, in a word of a closed list.
    pub fn fail(&mut self, why: &'static str) {
        self.0.set_status(Status::error(why));
    }

    /// What gives log lines its ids.
    #[must_use]
    pub fn in_log(&self) -> tracing::Span {
        let context = self.0.span_context();
        // Of the highest level, so that no filter takes the ids from a line that it leaves.
        tracing::error_span!("span", trace_id = %context.trace_id(), span_id = %context.span_id())
    }
}
