//! The span of a request, below that of its caller (W3C Trace Context).

use axum::http::{HeaderMap, HeaderName};

use super::Api;
use super::auth::is_open;
use crate::core::trace::TraceContext;
use crate::tracer::{Side, Span};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span that a request is answered in; none for what only machines look at.
#[derive(Clone, Debug)]
pub(super) struct AnsweredIn(pub(super) Option<TraceContext>);

/// Begins the span of a request to `path`, which is a template.
pub(super) fn begin(
    api: &Api,
    method: &'static str,
    path: &str,
    headers: &HeaderMap,
) -> Option<Span> {
    // The files of the page have one template.
    if is_open(path) || path.starts_with("/ui/") {
        return None;
    }
    let parent = caller(headers);
    let mut span = api.tracer.begin(format!("{method} {path}"), Side::Server, parent.as_ref());
    span.set("http.request.method", method);
    span.set("http.route", path.to_owned());
    Some(span)
}

/// Ends the span of a request.
pub(super) fn end(mut span: Span, status: u16) {
    span.set("http.response.status_code", i64::from(status));
    if 500 <= status {
        span.fail("the server's fault");
    }
}

/// Where the caller stands in a trace, when it says so as the standard wants.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states = headers.get_all(TRACESTATE).iter();
    let states: Vec<&str> = states.map(|value| value.to_str().unwrap_or_default()).collect();
    TraceContext::parse(parent, &states.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_caller_stands_where_its_one_traceparent_says_and_its_states_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(caller(&headers), None);
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        assert_eq!(caller(&headers), None, "a state alone says nothing");
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(caller(&headers), TraceContext::parse(PARENT, "a=1,b=2"));
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(caller(&headers), None, "two are none");
    }
}
