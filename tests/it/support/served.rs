//! The API in this process on a real socket, and raw bytes to it.

use std::net::SocketAddr;
use std::time::Duration;

use breakglass_mailer::http::server::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::TestApi;

/// A notification that is accepted.
pub const GOOD: &str = r#"{"recipients":["a@example.com"],"subject":"x","text":"y"}"#;

/// A server that ends with the test.
pub struct Served {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub ended: JoinHandle<()>,
    pub api: TestApi,
}

impl Served {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(limits: Limits) -> Self {
        let api = TestApi::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let ended = tokio::spawn(serve(listener, api.router.clone(), limits, stop.clone()));
        Self { address, stop, ended, api }
    }

    /// Connects to it.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends bytes and reads to the end of the connection; the answer in full.
    ///
    /// # Panics
    /// When the server does not end the connection.
    pub async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may stop reading early; the answer is still there.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }
}

/// All that still comes over a connection.
///
/// # Panics
/// When the server does not end it.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
    let _ = read.await.expect("the server ends the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A post of JSON that ends its connection, with more headers, each with its line end.
pub fn raw_post(headers: &str, body: &str) -> Vec<u8> {
    kept_post(&format!("Connection: close\r\n{headers}"), body)
}

/// The same on a connection that is kept.
pub fn kept_post(headers: &str, body: &str) -> Vec<u8> {
    let fixed = "Host: x\r\nContent-Type: application/json\r\n";
    format!("POST /notify HTTP/1.1\r\n{fixed}{headers}\r\n{body}").into_bytes()
}
