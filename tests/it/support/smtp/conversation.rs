//! One connection of a scripted server, from its first byte to its end.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::script::{Action, Certificate, Mode, Verb, say};
use super::wire::Wire;
use super::{Accepted, PKI, Shared};

/// See the module.
pub(super) struct Conversation {
    /// `None` only during a handshake.
    wire: Option<Wire>,
    received: Vec<u8>,
    shared: Arc<Shared>,
    sender: String,
    recipients: Vec<String>,
}

impl Conversation {
    pub(super) fn new(tcp: TcpStream, shared: Arc<Shared>) -> Self {
        let (wire, received) = (Some(Wire::Plain(tcp)), Vec::new());
        Self { wire, received, shared, sender: String::new(), recipients: Vec::new() }
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        if self.shared.script().mode == Mode::Tls {
            self.encrypt().await?;
        }
        self.answer(Verb::Greeting, "", "220 fake ESMTP").await?;
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            let verb = match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => Verb::Ehlo,
                "HELO" => Verb::Helo,
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
                let (mode, pipelining) = {
                    let script = self.shared.script();
                    (script.mode, if script.offers_pipelining { "250-PIPELINING\r\n" } else { "" })
                };
                let offer = match (mode, self.wire().is_encrypted()) {
                    (Mode::StartTls, false) => "STARTTLS",
                    _ => "AUTH PLAIN LOGIN XOAUTH2",
                };
                let offers = "250-SIZE 10485760\r\n250-SMTPUTF8";
                let reply = format!("250-fake\r\n{pipelining}{offers}\r\n250 {offer}");
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
                let usual = match self.recipients.is_empty() {
                    false => "354 go ahead",
                    true => "554 5.5.1 no valid recipients",
                };
                if self.answer(verb, line, usual).await? == b'3' {
                    self.take_message().await?;
                }
            }
            Verb::Quit => drop(self.answer(verb, line, "221 bye").await?),
            Verb::Unknown => drop(self.answer(verb, line, "500 what?").await?),
            _ => drop(self.answer(verb, line, "250 ok").await?),
        }
        Ok(())
    }

    /// PLAIN with its initial response, LOGIN with its two prompts, or XOAUTH2.
    async fn log_in(&mut self, line: &str) -> io::Result<()> {
        if line.to_ascii_uppercase().starts_with("AUTH LOGIN") {
            let asks =
                [(Verb::AuthLogin, "334 VXNlcm5hbWU6"), (Verb::Username, "334 UGFzc3dvcmQ6")];
            for (verb, usual) in asks {
                if self.answer(verb, line, usual).await? != b'3' {
                    return Ok(());
                }
                self.line().await?;
            }
        }
        if line.to_ascii_uppercase().starts_with("AUTH XOAUTH2") {
            return self.log_in_by_token(line.to_owned()).await;
        }
        self.answer(Verb::Auth, line, "235 2.7.0 welcome").await?;
        Ok(())
    }

    /// The script sees the whole line, wherever its second part came. Who says 334 to it refuses it,
    /// and says so once the client has heard why.
    async fn log_in_by_token(&mut self, mut line: String) -> io::Result<()> {
        if 510 < line.len() {
            self.answer(Verb::Unknown, &line, "500 5.5.6 line too long").await?;
            return Ok(());
        }
        if line.trim().len() == "AUTH XOAUTH2".len() {
            if self.answer(Verb::AuthXoauth2, &line, "334 ").await? != b'3' {
                return Ok(());
            }
            line = format!("AUTH XOAUTH2 {}", self.line().await?);
        }
        if self.answer(Verb::Auth, &line, "235 2.7.0 welcome").await? == b'3' {
            let said = self.line().await?;
            self.answer(Verb::AuthRefused, &said, "535 5.7.3 the token is not good").await?;
        }
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
                        | Action::SayInPieces(reply)
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
            Action::SayInPieces(reply) => {
                for byte in &reply {
                    self.wire().write_all(&[*byte]).await?;
                    self.wire().flush().await?;
                    tokio::task::yield_now().await;
                }
                return Ok(reply.first().copied().unwrap_or_default());
            }
            Action::Drip(bytes, every) => loop {
                self.wire().write_all(&bytes).await?;
                self.wire().flush().await?;
                tokio::time::sleep(every).await;
            },
            Action::Flood(bytes, bytes_count) => {
                let chunk = bytes.repeat((64 * 1024_usize).div_ceil(bytes.len()));
                for _ in 0..bytes_count.div_ceil(chunk.len()) {
                    self.wire().write_all(&chunk).await?;
                    self.shared.seen.send_modify(|seen| seen.flood_bytes += chunk.len());
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
            let bytes = &bytes[..bytes_count];
            let is_encrypted = self.wire().is_encrypted();
            let mut heard = self.shared.heard();
            let heard = if is_encrypted { &mut heard.encrypted } else { &mut heard.plaintext };
            heard.extend_from_slice(bytes);
            self.received.extend_from_slice(bytes);
        }
    }

    async fn encrypt(&mut self) -> io::Result<()> {
        let certificate = self.shared.script().certificate;
        let Some(config) = PKI.server_config(certificate) else {
            if let Certificate::Not(answer) = certificate {
                // Whatever of it has come: nothing in it matters.
                let _ = self.wire().read(&mut [0; 1024]).await?;
                self.wire().write_all(answer).await?;
                self.wire().shutdown().await?;
            }
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
