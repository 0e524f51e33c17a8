//! A token server that counts its tokens, or answers as the test says; and what a mail server is
//! told of a token.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::peer;

/// What it does when it is asked.
#[derive(Clone)]
pub enum Manner {
    /// Gives out a new token, unless one is among these fields.
    Grant(Value),
    /// Says this, byte for byte.
    Say(String),
    /// Says nothing and keeps the connection open.
    Hang,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: watch::Sender<Vec<String>>,
    /// The tokens that it vouches for.
    valid: Mutex<BTreeSet<String>>,
}

/// Listens on loopback until it is dropped.
pub struct TokenServer {
    pub url: String,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl TokenServer {
    /// Gives out tokens that live for an hour.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            manner: Mutex::new(granting(3600)),
            asked: watch::Sender::new(Vec::new()),
            valid: Mutex::default(),
        });
        let serving = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                // What a client breaks off is not remembered.
                tokio::spawn(async move { shared.serve(stream).await.ok() });
            }
        });
        Self { url: format!("http://127.0.0.1:{port}/token"), shared, listening }
    }

    /// What whoever asks from now on meets.
    ///
    /// # Panics
    /// When a test panicked while it held the manner.
    pub fn follow(&self, manner: Manner) {
        *self.shared.manner.lock().expect("not poisoned") = manner;
    }

    /// Where it says of a token whose it is: `breakglass`'s, of each that it gave out.
    pub fn introspection_url(&self) -> String {
        self.url.replace("/token", "/whose")
    }

    /// Vouches for none any more that it gave out until now.
    ///
    /// # Panics
    /// When it panicked.
    pub fn takes_back_all(&self) {
        self.shared.valid.lock().expect("not poisoned").clear();
    }

    /// The requests for tokens until now, each as it came over the wire.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.borrow().clone()
    }

    /// Waits until it was asked so often.
    ///
    /// # Panics
    /// When the server is gone.
    pub async fn was_asked(&self, count: usize) -> Vec<String> {
        let mut asked = self.shared.asked.subscribe();
        asked.wait_for(|asked| count <= asked.len()).await.expect("it lives").clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = peer::read(&mut stream).await?;
        if request.starts_with("GET /whose") {
            let answer = self.whose(&request);
            stream.write_all(answer.as_bytes()).await?;
            return stream.shutdown().await;
        }
        let manner = self.manner.lock().expect("not poisoned").clone();
        self.asked.send_modify(|asked| asked.push(request));
        let nth = self.asked.borrow().len();
        let answer = match manner {
            Manner::Say(answer) => answer,
            Manner::Hang => return std::future::pending().await,
            Manner::Grant(mut fields) => {
                if fields["access_token"].is_null() {
                    fields["access_token"] = token(nth).into();
                    self.valid.lock().expect("not poisoned").insert(token(nth));
                }
                peer::json(200, &fields)
            }
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }
}

impl Shared {
    fn whose(&self, request: &str) -> String {
        let authorization = peer::header(request, "authorization").unwrap_or_default();
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        if self.valid.lock().expect("not poisoned").contains(token) {
            peer::json(200, &json!({"username": "breakglass"}))
        } else {
            peer::json(401, &json!({"error": "invalid_token"}))
        }
    }
}

/// Gives out tokens that live so long.
pub fn granting(seconds: u64) -> Manner {
    Manner::Grant(json!({"token_type": "Bearer", "expires_in": seconds}))
}

/// Refuses with this code.
pub fn refusing(status: u16, code: &str) -> Manner {
    Manner::Say(peer::json(status, &json!({"error": code})))
}

/// The token that the n-th request gets: as long as those of Microsoft.
pub fn token(nth: usize) -> String {
    let claims: String = (0..120).map(|n| format!("{:016x}", n * 0x9e37_79b9_7f4a_u64)).collect();
    format!("token-{nth}.{claims}")
}

/// What AUTH XOAUTH2 says of a user and his token.
pub fn xoauth2(username: &str, token: &str) -> String {
    STANDARD.encode(format!("user={username}\x01auth=Bearer {token}\x01\x01"))
}
