//! An SMTP server that takes everything and remembers it, or does as the test says.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::port::Port;

/// A message that arrived whole, once per recipient.
#[derive(Clone, Debug)]
pub struct Letter {
    pub message_id: String,
    pub subject: String,
    pub recipient: String,
    pub bytes: Arc<Vec<u8>>,
}

impl Letter {
    /// The job that it delivers.
    pub fn job(&self) -> &str {
        self.message_id.trim_start_matches('<').split('@').next().unwrap_or_default()
    }
}

/// A point at which the sink asks what to do.
pub enum Moment<'a> {
    Greeting,
    Recipient(&'a str),
    Data,
    Dot,
}

/// What it does then.
pub enum Act {
    /// The usual positive reply.
    Accept,
    /// This reply instead. At the dot nothing is taken then.
    Say(&'static str),
    /// Nothing until `Sink::release`, then the usual positive reply.
    Hold,
}

type Manner = Box<dyn Fn(Moment<'_>) -> Act + Send + Sync>;

struct State {
    manner: Manner,
    letters: Mutex<Vec<Letter>>,
    held: AtomicUsize,
    released: watch::Sender<bool>,
    delay_ms: AtomicU64,
}

/// Listens on loopback until it is closed or dropped.
pub struct Sink {
    pub port: u16,
    kept: Port,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
}

impl Sink {
    /// Takes everything.
    pub fn start() -> Self {
        Self::with(|_| Act::Accept)
    }

    /// Puts off `later-…` about every second time and `never-…` each time, refuses `no-…`.
    pub fn moody() -> Self {
        let turn = AtomicUsize::new(0);
        Self::with(move |moment| match moment {
            Moment::Recipient(to) if to.starts_with("no-") => Act::Say("550 5.1.1 no such user"),
            Moment::Recipient(to) if to.starts_with("never-") => Act::Say("451 4.3.0 not today"),
            Moment::Recipient(to) if to.starts_with("later-") => {
                match turn.fetch_add(1, Ordering::Relaxed) % 2 {
                    0 => Act::Say("451 4.3.0 not now"),
                    _ => Act::Accept,
                }
            }
            _ => Act::Accept,
        })
    }

    /// Does as `manner` says.
    pub fn with(manner: impl Fn(Moment<'_>) -> Act + Send + Sync + 'static) -> Self {
        let state = Arc::new(State {
            manner: Box::new(manner),
            letters: Mutex::default(),
            held: AtomicUsize::new(0),
            released: watch::Sender::new(false),
            delay_ms: AtomicU64::new(0),
        });
        let kept = Port::take((Ipv4Addr::LOCALHOST, 0));
        let mut sink = Self { port: kept.address.port(), kept, state, listening: None };
        sink.open();
        sink
    }

    /// Listens, on the same port as before.
    ///
    /// # Panics
    /// When it is open.
    pub fn open(&mut self) {
        assert!(self.listening.is_none(), "it is open");
        let serving = serve(self.kept.listen(), Arc::clone(&self.state));
        self.listening = Some(tokio::spawn(serving));
    }

    /// Refuses connections from now on and cuts those that are there.
    pub async fn close(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
    }

    /// Lets everything go on that is held, now and later.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Waits so long before it says what a `Moment` asks for, from now on.
    pub fn delay(&self, delay_ms: u64) {
        self.state.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// Whether it takes connections.
    pub fn is_open(&self) -> bool {
        self.listening.is_some()
    }

    /// How many wait for `release`.
    pub fn held_count(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// All that was taken, in order.
    ///
    /// # Panics
    /// When a reader of it panicked.
    pub fn letters(&self) -> Vec<Letter> {
        self.state.letters.lock().expect("not poisoned").clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // An end of the connection, at whichever side, is no fault of the sink.
        let session = session(stream, Arc::clone(&state));
        sessions.spawn(async move { session.await.ok() });
        while sessions.try_join_next().is_some() {}
    }
}

impl State {
    /// The reply to give at `moment`, and whether it is the usual one.
    async fn reply(&self, moment: Moment<'_>, usual: &'static str) -> (&'static str, bool) {
        let delay_ms = self.delay_ms.load(Ordering::Relaxed);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        match (self.manner)(moment) {
            Act::Accept => (usual, true),
            Act::Say(other) => (other, false),
            Act::Hold => {
                self.held.fetch_add(1, Ordering::SeqCst);
                // The sender lives in `self`.
                let _ = self.released.subscribe().wait_for(|released| *released).await;
                (usual, true)
            }
        }
    }
}

async fn session(stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut peer = BufStream::new(stream);
    let mut recipients = Vec::new();
    let (greeting, _) = state.reply(Moment::Greeting, "220 sink.test ESMTP").await;
    say(&mut peer, greeting).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if peer.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.trim_end().to_ascii_uppercase();
        if verb.starts_with("EHLO") {
            say(&mut peer, "250-sink.test\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES").await?;
        } else if verb.starts_with("MAIL FROM:") || verb == "RSET" {
            recipients.clear();
            say(&mut peer, "250 2.0.0 ok").await?;
        } else if verb.starts_with("RCPT TO:") {
            let recipient = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            let (reply, taken) = state.reply(Moment::Recipient(&recipient), "250 2.1.5 ok").await;
            if taken {
                recipients.push(recipient);
            }
            say(&mut peer, reply).await?;
        } else if verb == "DATA" {
            let (reply, taken) = state.reply(Moment::Data, "354 go on").await;
            say(&mut peer, reply).await?;
            if !taken {
                continue;
            }
            let bytes = Arc::new(content(&mut peer).await?);
            let mut last = "250 2.0.0 taken";
            for recipient in recipients.drain(..) {
                let letter = Letter {
                    message_id: header(&bytes, "message-id"),
                    subject: header(&bytes, "subject"),
                    recipient,
                    bytes: Arc::clone(&bytes),
                };
                let (reply, taken) = state.reply(Moment::Dot, last).await;
                if taken {
                    state.letters.lock().expect("not poisoned").push(letter);
                }
                last = reply;
            }
            say(&mut peer, last).await?;
        } else if verb == "QUIT" {
            return say(&mut peer, "221 2.0.0 bye").await;
        } else {
            say(&mut peer, "250 2.0.0 ok").await?;
        }
    }
}

async fn say(peer: &mut BufStream<TcpStream>, reply: &str) -> std::io::Result<()> {
    peer.write_all(reply.as_bytes()).await?;
    peer.write_all(b"\r\n").await?;
    peer.flush().await
}

/// Everything up to the final dot, without the stuffed ones.
async fn content(peer: &mut BufStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let begin = bytes.len();
        if peer.read_until(b'\n', &mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if &bytes[begin..] == b".\r\n" {
            bytes.truncate(begin);
            return Ok(bytes);
        }
        if bytes[begin] == b'.' {
            bytes.remove(begin);
        }
    }
}

/// A header's text, unfolded but not decoded: enough for ids and for the tests' ASCII subjects.
fn header(bytes: &[u8], name: &str) -> String {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).replace("\r\n ", " ").replace("\r\n\t", " ");
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map_or_else(String::new, |(_, text)| text.trim().to_owned())
}
