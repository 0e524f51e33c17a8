//! Serving a router on a socket: HTTP/1.1, with or without TLS, with a bound on everything.
//!
//! axum's own server has no time limit for headers, so a client that sends them a byte at a time
//! would hold its connection for ever. Here headers have a deadline, which also ends an idle
//! connection, and connections beyond the limit wait in the kernel's backlog.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::problem::Problem;
use super::stream::PatientStream;

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The headers of a request have to be here by then, counted from the connection or from the
    /// answer before.
    pub header_time_max: Duration,
    /// Connections at a time; more wait unaccepted.
    pub connections_count_max: usize,
    /// All headers of a request together; more is answered with 431.
    pub header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_time_max: Duration::from_secs(30),
            connections_count_max: 4096,
            header_bytes_max: 64 << 10,
        }
    }
}

/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let places = Arc::new(Semaphore::new(limits.connections_count_max));
    let connections = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time_max)
        // A client may close its side behind the request and still wait for the answer.
        .half_close(true)
        .max_buf_size(limits.header_bytes_max);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { break };
        let conversation = Conversation {
            builder: builder.clone(),
            router: router.clone(),
            watcher: connections.watcher(),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => conversation.hold(stream).await,
                Some(tls) => match timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
                    Ok(Ok(stream)) => conversation.hold(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// All requests of one connection.
struct Conversation {
    builder: http1::Builder,
    router: Router,
    watcher: Watcher,
}

impl Conversation {
    async fn hold<S: AsyncRead + AsyncWrite + Unpin + 'static>(self, stream: S) {
        let router = self.router;
        let service = service_fn(move |request| answer(router.clone(), request));
        let stream = TokioIo::new(PatientStream::new(stream));
        let connection = self.builder.serve_connection(stream, service);
        if let Err(error) = self.watcher.watch(connection).await {
            // What a client does to its own connection is its business.
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is a place for it; `None` when there can be no more.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only delays small answers; a socket that refuses it still works.
                let _ = stream.set_nodelay(true);
                return Some((stream, place));
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: the connections that end free some.
                tracing::warn!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
