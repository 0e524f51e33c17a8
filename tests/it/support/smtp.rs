//! An SMTP server that follows a script and remembers what it saw. It shares no code with the
//! client: no lettre, and its own reading of RFC 5321.

mod blackhole;
mod pki;
mod script;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use wire::Wire;

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
    verbs: HashMap<Verb, usize>,
}

impl Seen {
    pub fn count(&self, verb: Verb) -> usize {
        self.verbs.get(&verb).copied().unwrap_or_default()
    }
}

struct Shared {
    script: Mutex<Script>,
    seen: watch::Sender<Seen>,
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics while it holds a script")
    }
}

/// See the module. Stops listening when it is dropped.
pub struct SmtpServer {
    pub address: SocketAddr,
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
        let shared = Arc::new(Shared { script: Mutex::new(script), seen });
        let address = address.into();
        let mut server = Self { address, shared, accepting: None };
        server.listen().await;
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
    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is ours");
        self.address = listener.local_addr().expect("it listens");
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

struct Conversation {
    /// `None` only during a handshake.
    wire: Option<Wire>,
    received: Vec<u8>,
    shared: Arc<Shared>,
    sender: String,
    recipients: Vec<String>,
}

impl Conversation {
    fn new(tcp: TcpStream, shared: Arc<Shared>) -> Self {
        let (wire, received) = (Some(Wire::Plain(tcp)), Vec::new());
        Self { wire, received, shared, sender: String::new(), recipients: Vec::new() }
    }

    async fn run(mut self) -> io::Result<()> {
        if self.shared.script().mode == Mode::Tls {
            self.encrypt().await?;
        }
        self.answer(Verb::Greeting, "", "220 fake ESMTP").await?;
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            let verb = match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => Verb::Ehlo,
                "STARTTLS" => Verb::StartTls,
                "AUTH" => Verb::Auth,
                "MAIL" => Verb::Mail,
                "RCPT" => Verb::Rcpt,
                "DATA" => Verb::Data,
                "NOOP" => Verb::Noop,
                "RSET" => Verb::Rset,
                "QUIT" => Verb::Quit,
                _ => Verb::Unknown,
            };
            self.obey(verb, &line).await?;
            if verb == Verb::Quit {
                return self.wire().shutdown().await;
            }
        }
    }

    async fn obey(&mut self, verb: Verb, line: &str) -> io::Result<()> {
        match verb {
            Verb::Ehlo => {
                let mode = self.shared.script().mode;
                let offer = match (mode, self.wire().is_encrypted()) {
                    (Mode::StartTls, false) => "STARTTLS",
                    _ => "AUTH PLAIN LOGIN",
                };
                let reply = format!("250-fake\r\n250-SIZE 10485760\r\n250-SMTPUTF8\r\n250 {offer}");
                self.answer(verb, line, &reply).await?;
            }
            Verb::StartTls => {
                if self.answer(verb, line, "220 go ahead").await? == b'2' {
                    self.received.clear();
                    self.encrypt().await?;
                }
            }
            Verb::Auth => self.log_in(line).await?,
            Verb::Mail => {
                self.recipients.clear();
                if self.answer(verb, line, "250 2.1.0 ok").await? == b'2' {
                    self.sender = path(line);
                }
            }
            Verb::Rcpt => {
                if self.answer(verb, line, "250 2.1.5 ok").await? == b'2' {
                    self.recipients.push(path(line));
                }
            }
            Verb::Data => {
                if self.answer(verb, line, "354 go ahead").await? == b'3' {
                    self.take_message().await?;
                }
            }
            Verb::Quit => drop(self.answer(verb, line, "221 bye").await?),
            Verb::Unknown => drop(self.answer(verb, line, "500 what?").await?),
            _ => drop(self.answer(verb, line, "250 ok").await?),
        }
        Ok(())
    }

    /// PLAIN with its initial response, or LOGIN with its two prompts.
    async fn log_in(&mut self, line: &str) -> io::Result<()> {
        if line.to_ascii_uppercase().starts_with("AUTH LOGIN") {
            for prompt in ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"] {
                self.wire().write_all(prompt.as_bytes()).await?;
                self.line().await?;
            }
        }
        self.answer(Verb::Auth, line, "235 2.7.0 welcome").await?;
        Ok(())
    }

    async fn take_message(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let line = self.raw_line().await?;
            if line == b".\r\n" {
                break;
            }
            bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let text = String::from_utf8_lossy(&bytes);
        let message_id = text.lines().find_map(|line| line.strip_prefix("Message-ID: "));
        let accepted = Accepted {
            sender: self.sender.clone(),
            recipients: std::mem::take(&mut self.recipients),
            message_id: message_id.unwrap_or_default().to_owned(),
            is_encrypted: self.wire().is_encrypted(),
            bytes: bytes.clone(),
        };
        let takes = {
            let script = self.shared.script();
            let nth = self.shared.seen.borrow().count(Verb::Dot) + 1;
            script.takes_before_reply
                || match script.action(Verb::Dot, "", nth) {
                    None => true,
                    Some(
                        Action::Say(reply)
                        | Action::Close(reply)
                        | Action::Reset(reply)
                        | Action::Delay(_, reply),
                    ) => reply.starts_with(b"2"),
                    Some(_) => false,
                }
        };
        // Taken before it is said, as by a server that syncs its queue first.
        if takes {
            self.shared.seen.send_modify(|seen| seen.accepted.push(accepted));
        }
        self.answer(Verb::Dot, "", "250 2.0.0 queued").await?;
        Ok(())
    }

    /// Does what the script says, or says `usual`; returns the first byte of what was said.
    async fn answer(&mut self, verb: Verb, line: &str, usual: &str) -> io::Result<u8> {
        self.shared.seen.send_modify(|seen| *seen.verbs.entry(verb).or_default() += 1);
        let nth = self.shared.seen.borrow().count(verb);
        let action = self.shared.script().action(verb, line, nth).unwrap_or_else(|| say(usual));
        let ended = io::ErrorKind::ConnectionAborted;
        match action {
            Action::Say(reply) => {
                self.wire().write_all(&reply).await?;
                self.wire().flush().await?;
                return Ok(reply.first().copied().unwrap_or_default());
            }
            Action::Delay(wait, reply) => {
                tokio::time::sleep(wait).await;
                self.wire().write_all(&reply).await?;
                self.wire().flush().await?;
                return Ok(reply.first().copied().unwrap_or_default());
            }
            Action::Drip(every) => loop {
                self.wire().write_all(b"2").await?;
                self.wire().flush().await?;
                tokio::time::sleep(every).await;
            },
            Action::Flood(bytes_count) => {
                let chunk = vec![b'2'; 64 * 1024];
                for _ in 0..bytes_count.div_ceil(chunk.len()) {
                    self.wire().write_all(&chunk).await?;
                }
            }
            // Until the client hangs up.
            Action::Hang => while self.wire().read(&mut [0; 1024]).await? > 0 {},
            Action::Close(reply) => {
                self.wire().write_all(&reply).await?;
                self.wire().shutdown().await?;
            }
            Action::Reset(reply) => {
                self.wire().write_all(&reply).await?;
                self.wire().flush().await?;
                self.wire().tcp().set_zero_linger()?;
            }
            Action::ResetInBody(bytes_count) => {
                self.wire().write_all(b"354 go ahead\r\n").await?;
                self.wire().flush().await?;
                self.wire().read_exact(&mut vec![0; bytes_count]).await?;
                self.wire().tcp().set_zero_linger()?;
            }
        }
        Err(ended.into())
    }

    async fn line(&mut self) -> io::Result<String> {
        let line = String::from_utf8_lossy(&self.raw_line().await?).trim_end().to_owned();
        self.shared.seen.send_modify(|seen| seen.lines.push(line.clone()));
        Ok(line)
    }

    async fn raw_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                return Ok(self.received.drain(..end + 2).collect());
            }
            let mut bytes = [0; 64 * 1024];
            let bytes_count = self.wire().read(&mut bytes).await?;
            if bytes_count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&bytes[..bytes_count]);
        }
    }

    async fn encrypt(&mut self) -> io::Result<()> {
        let certificate = self.shared.script().certificate;
        let Some(config) = PKI.server_config(certificate) else {
            while self.wire().read(&mut [0; 1024]).await? > 0 {}
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if let Some(Wire::Plain(tcp)) = self.wire.take() {
            let tls = TlsAcceptor::from(config).accept(tcp).await?;
            self.wire = Some(Wire::Tls(Box::new(tls)));
        }
        Ok(())
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("a handshake that failed ends the conversation")
    }
}

/// The address between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(path, _)| path.to_owned()).unwrap_or_default()
}
