//! What stands between a server and its API server, and does as the test says.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::kube_api::Upstream;
use super::port::Port;
use super::smtp::{Certificate, PKI};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method, the path and the query.
    pub line: String,
    pub at: Instant,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.line.contains("watch=true")
    }
}

/// What the proxy does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Passes it on, and the answer back.
    Pass,
    /// The same after a while.
    PassAfter(Duration),
    /// Never answers.
    Hang,
    /// This status, these lines of a header, this body, and then the end.
    Say(u16, &'static [(&'static str, &'static str)], String, Then),
}

/// How a body that was made up goes on.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    End,
    /// Not at all, and the connection stays.
    Stay,
    /// The connection breaks.
    Break,
    /// The same again, without end.
    Repeat,
}

type Manner = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Frames = Pin<Box<dyn Stream<Item = std::io::Result<Frame<Bytes>>> + Send>>;

struct State {
    upstream: Upstream,
    manner: Mutex<Manner>,
    certificate: Mutex<Certificate>,
    asked: Mutex<Vec<Asked>>,
    /// Counts up whenever what is under way falls silent for ever.
    silences: watch::Sender<u64>,
    connections: Mutex<JoinSet<()>>,
}

/// See the module. Ends with all its connections when it is dropped.
pub struct KubeProxy {
    port: Port,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl KubeProxy {
    /// Passes everything on, over TLS.
    pub async fn start(upstream: Upstream) -> Self {
        let state = Arc::new(State {
            upstream,
            manner: Mutex::new(Arc::new(|_| Act::Pass)),
            certificate: Mutex::new(Certificate::Good),
            asked: Mutex::default(),
            silences: watch::Sender::new(0),
            connections: Mutex::default(),
        });
        let port = Port::take((Ipv4Addr::LOCALHOST, 0));
        let mut proxy = Self { port, state, accepting: None };
        proxy.listen();
        proxy
    }

    /// Writes a kubeconfig that leads through the proxy, which is the administrator there.
    ///
    /// # Panics
    /// When the disk is at fault.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let cluster = json!({
            "server": format!("https://localhost:{}", self.port.address.port()),
            "certificate-authority-data": STANDARD.encode(&PKI.ca_pem),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        let path = folder.join("kubeconfig-of-the-proxy");
        std::fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// Does so from the next request on. What is under way goes on as it was.
    pub fn follow(&self, manner: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *lock(&self.state.manner) = Arc::new(manner);
    }

    /// Shows this certificate from the next connection on.
    pub fn show(&self, certificate: Certificate) {
        *lock(&self.state.certificate) = certificate;
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        lock(&self.state.connections).abort_all();
    }

    /// Lets all that is under way fall silent for ever, with its connection open.
    pub fn silence(&self) {
        self.state.silences.send_modify(|count| *count += 1);
    }

    /// Closes the port and all connections.
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
        self.cut();
    }

    /// Opens the port again, the same one.
    ///
    /// # Panics
    /// When it is open.
    pub fn listen(&mut self) {
        assert!(self.accepting.is_none(), "it is open");
        let listener = self.port.listen();
        let state = self.state.clone();
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = serve(tcp, state.clone());
                lock(&state.connections).spawn(connection);
            }
        }));
    }

    /// What was asked until now.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.cut();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds it")
}

async fn serve(tcp: TcpStream, state: Arc<State>) {
    let certificate = *lock(&state.certificate);
    let Some(config) = PKI.server_config(certificate) else { return std::future::pending().await };
    let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await else { return };
    let answer = service_fn(|request| answer(request, state.clone()));
    // What the server breaks off, or a script, is as it should be.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), answer).await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, Infallible> {
    let asked =
        Asked { line: format!("{} {}", request.method(), request.uri()), at: Instant::now() };
    lock(&state.asked).push(asked.clone());
    let silences = state.silences.subscribe();
    let manner = lock(&state.manner).clone();
    Ok(match manner(&asked) {
        Act::Pass => pass(request, &state.upstream, silences).await,
        Act::PassAfter(wait) => {
            tokio::time::sleep(wait).await;
            pass(request, &state.upstream, silences).await
        }
        Act::Hang => std::future::pending().await,
        Act::Say(status, headers, body, then) => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            answer.body(made_up(body, then)).expect("a valid answer")
        }
    })
}

fn made_up(body: String, then: Then) -> Body {
    let chunk = Bytes::from(body);
    let once = stream::once(std::future::ready(Ok(Frame::data(chunk.clone()))));
    let frames: Frames = match then {
        Then::End => return Full::new(chunk).map_err(|never| match never {}).boxed_unsync(),
        Then::Stay => once.chain(stream::pending()).boxed(),
        Then::Break => {
            let broken = std::io::ErrorKind::ConnectionAborted.into();
            once.chain(stream::once(std::future::ready(Err(broken)))).boxed()
        }
        Then::Repeat => stream::repeat_with(move || Ok(Frame::data(chunk.clone()))).boxed(),
    };
    StreamBody::new(frames).boxed_unsync()
}

async fn pass(
    request: Request<Incoming>,
    upstream: &Upstream,
    mut silences: watch::Receiver<u64>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return bad_gateway() };
    let headers = head.headers;
    let mut passed = Request::new(Full::new(body.to_bytes()));
    *passed.method_mut() = head.method;
    *passed.uri_mut() = head.uri;
    *passed.headers_mut() = end_to_end(headers);
    let answer = tokio::select! {
        answer = upstream.send(passed) => answer,
        _ = silences.changed() => std::future::pending().await,
    };
    let Ok(answer) = answer else { return bad_gateway() };
    let (mut head, body) = answer.into_parts();
    head.headers = end_to_end(head.headers);
    let frames = stream::unfold((body, silences), async |(mut body, mut silences)| {
        let frame = tokio::select! {
            frame = body.frame() => frame?,
            _ = silences.changed() => std::future::pending().await,
        };
        Some((frame.map_err(std::io::Error::other), (body, silences)))
    });
    Response::from_parts(head, StreamBody::new(frames.boxed()).boxed_unsync())
}

fn bad_gateway() -> Response<Body> {
    let body = made_up("no API server".to_owned(), Then::End);
    Response::builder().status(502).body(body).expect("a valid answer")
}

/// The headers that are not about one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in ["connection", "keep-alive", "transfer-encoding", "content-length"] {
        headers.remove(name);
    }
    headers
}
