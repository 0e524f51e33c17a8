//! A server that says over HTTP what a test wrote down, and remembers what it was asked.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Answers one request on each connection and closes it. Ends when it is dropped.
pub struct Peer {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Peer {
    /// Gives these answers in turn, byte for byte, and then the last one again; an empty one closes
    /// the connection.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(answers: Vec<String>) -> Self {
        Self::listen(answers, None).await
    }

    /// The same over TLS, for `localhost`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn over_tls(answers: Vec<String>, acceptor: TlsAcceptor) -> Self {
        Self::listen(answers, Some(acceptor)).await
    }

    async fn listen(answers: Vec<String>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let scheme = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // What a client breaks off is not remembered.
                let _ = match &tls {
                    None => converse(stream, &answers, &seen).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => converse(stream, &answers, &seen).await,
                        Err(error) => Err(error),
                    },
                };
            }
        });
        Self { url: format!("{scheme}:{port}"), requests, serving }
    }

    /// The requests until now, each as it came over the wire.
    ///
    /// # Panics
    /// When the peer did.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the peer did not panic").clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &[String],
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let request = read(&mut stream).await?;
    let answer = {
        let mut seen = seen.lock().expect("no test panics while it holds the requests");
        seen.push(request);
        answers.get(seen.len() - 1).or(answers.last()).cloned().unwrap_or_default()
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads a request, head and body.
///
/// # Errors
/// When the client ends the connection first.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").and_then(|value| value.parse().ok());
            if length.unwrap_or(0) <= body.len() {
                return Ok(text);
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The value of a header of a request.
pub fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let pairs = request.lines().take_while(|line| !line.is_empty());
    let mut pairs = pairs.filter_map(|line| line.split_once(": "));
    pairs.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// An answer of JSON.
pub fn json(status: u16, body: &Value) -> String {
    answer(status, "Content-Type: application/json\r\n", &body.to_string())
}

/// A problem, with or without `Retry-After`.
pub fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<u64>) -> String {
    let body = serde_json::json!({
        "type": format!("/problems/{kind}"), "title": "t", "status": status, "detail": detail,
    });
    let retry = retry_after.map(|after| format!("Retry-After: {after}\r\n")).unwrap_or_default();
    let head = format!("Content-Type: application/problem+json\r\n{retry}");
    answer(status, &head, &body.to_string())
}

/// Any answer; `head` is whole lines.
pub fn answer(status: u16, head: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n{body}"
    )
}
