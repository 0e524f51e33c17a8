//! Serving a router on a socket: HTTP/1.1, with or without TLS, with a bound on everything.
//!
//! axum's own server has no time limit for headers, so a client that sends them a byte at a time
//! would hold its connection for ever. Here headers have a deadline, which also ends an idle
//! connection, and connections beyond the limit wait in the kernel's backlog. While some wait,
//! those that are there end after the answer under way, or at once when they are idle, so that a
//! few callers with kept connections do not shut out the rest.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, Version, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::express::{Express, Seat};
use super::problem::{Problem, ProblemKind};
use super::stream::PatientStream;

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The headers of a request have to be here by then, counted from the connection or from the
    /// answer before.
    pub header_time_max: Duration,
    /// Connections at a time; one more waits for a place, the others unaccepted.
    pub connections_count_max: usize,
    /// All headers of a request together; more is answered with 431. A connection reads ahead as
    /// much of a body.
    pub header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_time_max: Duration::from_secs(30),
            connections_count_max: 4096,
            header_bytes_max: 16 << 10,
        }
    }
}

/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that says nothing may keep its place for so long when others want it.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(1);

/// A TLS handshake has to be done by then.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves until `stop` is cancelled, then accepts no more, ends idle connections, and returns once
/// every request under way is answered. Whoever calls it bounds that wait.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    run(listener, None, router, limits, stop).await;
}

/// Like [`serve`], over TLS.
pub async fn serve_tls(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    run(listener, Some(tls), router, limits, stop).await;
}

async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let places = Places {
        left: Arc::new(Semaphore::new(limits.connections_count_max)),
        wanted: Arc::new(Notify::new()),
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time_max)
        // A client may close its side behind the request and still wait for the answer.
        .half_close(true)
        .max_buf_size(limits.header_bytes_max);
    let express = Arc::new(Express::start());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { break };
        let mut conversation = Conversation {
            builder: builder.clone(),
            router: router.clone(),
            wanted: Box::pin(places.wanted.clone().notified_owned()),
            stop: stop.clone(),
        };
        let (tls, express) = (tls.clone(), express.clone());
        tokio::spawn(async move {
            // The rest of it comes into being only where there is a request: a connection without one
            // is small.
            match tls {
                None => {
                    if conversation.begins(&stream, limits.header_time_max).await {
                        express.spawn(|seat| conversation.hold(stream, seat, place));
                    }
                }
                Some(tls) => {
                    match Box::pin(timeout(HANDSHAKE_TIME_MAX, tls.accept(stream))).await {
                        Ok(Ok(stream)) => {
                            express.spawn(|seat| conversation.hold(stream, seat, place));
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                }
            }
        });
    }
    drop(listener);
    // Every connection gives its place back when it ends.
    let all = u32::try_from(limits.connections_count_max).unwrap_or(u32::MAX);
    let _ = places.left.acquire_many(all).await;
}

/// All requests of one connection.
struct Conversation {
    builder: http1::Builder,
    router: Router,
    /// Told when others wait for a place.
    wanted: Pin<Box<OwnedNotified>>,
    stop: CancellationToken,
}

impl Conversation {
    /// Waits for the first byte: until then a connection needs no buffers. Answers whether it came.
    async fn begins(&mut self, stream: &TcpStream, limit: Duration) -> bool {
        let given_up = async {
            self.wanted.as_mut().await;
            tokio::time::sleep(SILENCE_TIME_MAX).await;
        };
        let mut first = [0];
        tokio::select! {
            begun = timeout(limit, stream.peek(&mut first)) => matches!(begun, Ok(Ok(1))),
            () = given_up => false,
            () = self.stop.cancelled() => false,
        }
    }

    /// Answers requests until the connection ends, which gives its place back.
    async fn hold<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
        seat: Seat,
        _place: OwnedSemaphorePermit,
    ) {
        let Self { builder, router, mut wanted, stop } = self;
        let (is_wanted, has_answered) = (AtomicBool::new(false), AtomicBool::new(false));
        let service = service_fn(|request| {
            let (router, is_wanted, has_answered) = (router.clone(), &is_wanted, &has_answered);
            let seat = &seat;
            Box::pin(async move {
                let _served = seat.serve().await;
                let mut response = answer(router, request).await?;
                has_answered.store(true, Ordering::Relaxed);
                if is_wanted.load(Ordering::Relaxed) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            })
        });
        let stream = TokioIo::new(PatientStream::new(stream));
        let mut connection = builder.serve_connection(stream, service);
        let mut stopped = pin!(stop.cancelled());
        let mut is_stopping = false;
        let ended = poll_fn(|cx| {
            if !is_wanted.load(Ordering::Relaxed) && wanted.as_mut().poll(cx).is_ready() {
                is_wanted.store(true, Ordering::Relaxed);
                // hyper would close a connection whose first request is not here yet.
                if has_answered.load(Ordering::Relaxed) {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Pin::new(&mut connection).poll(cx)
        });
        let Err(error) = ended.await else { return };
        // What a client does to its own connection is its business.
        tracing::debug!(%error, "a connection ended early");
        let http1::Parts { io, read_buf, .. } = connection.into_parts();
        if let Some(problem) = unanswered(&error, !read_buf.is_empty()) {
            let _ = say(&mut io.into_inner(), problem).await;
        }
    }
}

/// What hyper leaves without an answer although somebody waits for one.
fn unanswered(error: &hyper::Error, has_begun: bool) -> Option<Problem> {
    if error.is_timeout() && has_begun {
        let detail = "The headers of the request did not arrive in time.";
        return Some(Problem::new(ProblemKind::RequestTimeout, detail));
    }
    error.is_parse_version_h2().then(|| Problem::bad_request("This server speaks HTTP/1.1."))
}

/// Writes the last answer of a connection, which hyper has given up.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut PatientStream<S>,
    problem: Problem,
) -> io::Result<()> {
    let (mut head, body) = problem.into_response().into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend([b"\r\n", &body[..]].concat());
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// How many connections there may be.
struct Places {
    left: Arc<Semaphore>,
    wanted: Arc<Notify>,
}

/// The next connection, once there is a place for it; `None` when there can be no more.
async fn accept(
    listener: &TcpListener,
    places: &Places,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let stream = loop {
        match listener.accept().await {
            Ok((stream, _)) => break stream,
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: the connections that end free some.
                tracing::warn!(%error, "no connection can be accepted for the moment");
                places.wanted.notify_waiters();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    // Only delays small answers; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    if let Ok(place) = places.left.clone().try_acquire_owned() {
        return Some((stream, place));
    }
    places.wanted.notify_waiters();
    let place = places.left.clone().acquire_owned().await.ok()?;
    Some((stream, place))
}

/// Whether a failed accept says something of the peer only, so that the next one may succeed.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused)
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    // RFC 9112 3.2: hyper leaves this to us.
    let hosts_count = request.headers().get_all(header::HOST).iter().count();
    let hosts_are_right = match request.version() {
        Version::HTTP_11 => hosts_count == 1,
        _ => hosts_count <= 1,
    };
    if !hosts_are_right {
        let problem = Problem::bad_request("A request needs one Host header.");
        return Ok(problem.into_response());
    }
    router.oneshot(request).await
}
