//! An SMTP server that follows a script and remembers what it saw. It shares no code with the
//! client: no lettre, and its own reading of RFC 5321.

mod blackhole;
mod conversation;
mod pki;
mod script;
mod wire;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::port::Port;
use conversation::Conversation;

pub use blackhole::Blackhole;
pub use pki::PKI;
pub use script::{Action, Certificate, Mode, Script, Verb, say};

/// A message that the server took.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub sender: String,
    pub recipients: Vec<String>,
    /// Without dot-stuffing and the final dot.
    pub bytes: Vec<u8>,
    pub message_id: String,
    pub is_encrypted: bool,
}

/// What a server saw until now, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub connections_count: usize,
    pub open_count: usize,
    /// The lines outside of messages.
    pub lines: Vec<String>,
    pub accepted: Vec<Accepted>,
    /// What it said in answers that have no end.
    pub flood_bytes: usize,
    verbs: HashMap<Verb, usize>,
}

impl Seen {
    pub fn count(&self, verb: Verb) -> usize {
        self.verbs.get(&verb).copied().unwrap_or_default()
    }
}

/// Every byte that clients said, over all connections.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub plaintext: Vec<u8>,
    pub encrypted: Vec<u8>,
}

struct Shared {
    script: Mutex<Script>,
    seen: watch::Sender<Seen>,
    heard: Mutex<Heard>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics while it holds a script")
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics while holding what was heard")
    }
}

/// See the module. Stops listening when it is dropped.
pub struct SmtpServer {
    pub address: SocketAddr,
    port: Port,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl SmtpServer {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(script: Script) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0), script).await
    }

    /// Listens there; port 0 is a free one.
    pub async fn at(address: impl Into<SocketAddr>, script: Script) -> Self {
        let seen = watch::Sender::new(Seen::default());
        let shared = Arc::new(Shared { script: Mutex::new(script), seen, heard: Mutex::default() });
        let port = Port::take(address);
        let mut server = Self { address: port.address, port, shared, accepting: None };
        server.listen();
        server
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What the next words meet, also on open connections.
    pub fn follow(&self, script: Script) {
        *self.shared.script() = script;
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    pub fn accepted(&self) -> Vec<Accepted> {
        self.seen().accepted
    }

    /// What was heard since the last call.
    pub fn take_heard(&self) -> Heard {
        std::mem::take(&mut self.shared.heard())
    }

    /// Waits until what was seen fulfils `wanted`.
    pub async fn wait_until(&self, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.shared.seen.subscribe();
        seen.wait_for(wanted).await.expect("the sender lives as long as the server").clone()
    }

    /// Closes the port: connections are refused. Open ones go on.
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Opens the port again, the same one.
    ///
    /// # Panics
    /// When it is open.
    pub fn listen(&mut self) {
        assert!(self.accepting.is_none(), "it is open");
        let listener = self.port.listen();
        let shared = self.shared.clone();
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    shared.seen.send_modify(|seen| {
                        seen.connections_count += 1;
                        seen.open_count += 1;
                    });
                    let _ = Conversation::new(tcp, shared.clone()).run().await;
                    shared.seen.send_modify(|seen| seen.open_count -= 1);
                });
            }
        }));
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
