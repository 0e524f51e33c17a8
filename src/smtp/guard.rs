//! The stream under lettre: it takes nothing on trust that a peer sends.
//!
//! * One reply for each command, and no command that was not announced with [`Transcript::enter`]:
//!   a reply that arrives early is never taken for the answer to a later command. Commands that were
//!   announced together go out together (RFC 2920), and their replies are counted: all but the last are
//!   held back, and lettre, which waits for each answer, gets one of ours. A message and its final dot
//!   go out together, too.
//! * Lines, their count and the whole reply are bounded, so a peer cannot make us grow.
//! * What was heard is recorded in a [`Transcript`]; outcomes are drawn from that record and never
//!   from an error's text. lettre gets the reply in a form that it is known to read.
//!
//! It has no clock: whoever drives it puts a deadline around each step.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::reply::{Line, RawReply};
use super::transcript::{Due, Fault, Transcript};

/// The longest line of a reply. RFC 5321 4.5.3.1.5 allows 512; real servers send more.
const LINE_BYTES_MAX: usize = 2048;
/// The most lines of a reply.
const LINES_COUNT_MAX: usize = 256;
/// The most bytes of a reply.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// A message that is longer goes out before its final dot does.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// See the module.
pub(super) struct Guard<S> {
    stream: S,
    peer: SocketAddr,
    transcript: Transcript,
    /// Bytes from the peer that are not yet part of a reply.
    received: Vec<u8>,
    /// The reply so far.
    lines: Vec<String>,
    reply_bytes: usize,
    /// The first digit of its code.
    class: Option<u16>,
    /// A whole reply on its way to lettre.
    released: Vec<u8>,
    /// Bytes from lettre that go out when it flushes, but not while they wait for more.
    outgoing: Vec<u8>,
    waits_for_more: bool,
    /// They belong to a message.
    is_message: bool,
    turn: Turn,
    /// lettre says EHLO once more.
    has_ehlo_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The last reply is complete; the next word is a command.
    Ours,
    /// A command or a message is under way, or its reply is awaited.
    Theirs,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards a connection on which the server speaks first.
    pub(super) fn new(stream: S, peer: SocketAddr, transcript: Transcript) -> Self {
        Self {
            stream,
            peer,
            transcript,
            received: Vec::new(),
            lines: Vec::new(),
            reply_bytes: 0,
            class: None,
            released: Vec::new(),
            outgoing: Vec::new(),
            waits_for_more: false,
            is_message: false,
            turn: Turn::Theirs,
            has_ehlo_due: false,
        }
    }

    /// The same where the next word is a command.
    pub(super) fn at_our_turn(self) -> Self {
        Self { turn: Turn::Ours, ..self }
    }

    /// Has lettre, which begins with a greeting and EHLO, find the answers: both were read already.
    pub(super) fn for_lettre(self) -> Self {
        Self { released: b"220 -\r\n".to_vec(), has_ehlo_due: true, ..self }
    }

    /// Sends one command line, or nothing where the server speaks first, and reads the reply. The
    /// transcript tells what came of it.
    pub(super) async fn exchange(&mut self, command: Option<&str>) -> io::Result<()> {
        if let Some(command) = command {
            self.write_all(command.as_bytes()).await?;
            self.flush().await?;
        }
        poll_fn(|cx| self.poll_reply(cx)).await?;
        self.released.clear();
        Ok(())
    }

    /// The stream beneath, for a TLS handshake: only when nothing lies in the buffer, since that
    /// came in plaintext and would be taken for a protected reply (CVE-2011-0411).
    pub(super) fn into_stream(self) -> Result<S, Fault> {
        let is_clean = self.received.is_empty() && self.transcript.is_in_step();
        if is_clean { Ok(self.stream) } else { Err(Fault::Unasked) }
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.assemble() {
                Ok(Some(reply)) => {
                    let released = reply.for_lettre();
                    if self.transcript.hear(reply) {
                        continue;
                    }
                    if !self.received.is_empty() {
                        self.transcript.spoil();
                    }
                    self.released = released;
                    self.turn = Turn::Ours;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(self.fail(fault))),
            }
            if let Err(fault) = ready!(self.poll_receive(cx)) {
                return Poll::Ready(Err(self.fail(fault)));
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(Err(Fault::Lost));
        }
        self.received.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Takes whole lines from what was received until they make a reply.
    fn assemble(&mut self) -> Result<Option<RawReply>, Fault> {
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            self.reply_bytes += end + 1;
            let is_within = end < LINE_BYTES_MAX
                && self.lines.len() < LINES_COUNT_MAX
                && self.reply_bytes <= REPLY_BYTES_MAX;
            if !is_within {
                return Err(Fault::TooLong);
            }
            let line = Line::parse(&self.received[..=end]).ok_or(Fault::NotSmtp)?;
            // A reply that agrees in one line and refuses in another says neither.
            if *self.class.get_or_insert(line.code / 100) != line.code / 100 {
                return Err(Fault::NotSmtp);
            }
            self.received.drain(..=end);
            self.lines.push(line.text);
            if line.is_last {
                self.reply_bytes = 0;
                self.class = None;
                let lines = std::mem::take(&mut self.lines);
                return Ok(Some(RawReply { code: line.code, lines }));
            }
        }
        if self.received.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Fault::TooLong) }
    }

    /// Takes a command, or the first part of a message.
    fn begin(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let due = self.transcript.take_due_command();
        match due {
            None => return Poll::Ready(Err(io::Error::other("no command is due"))),
            Some(Due::WithNext) => self.released = b"250 -\r\n".to_vec(),
            Some(Due::Now | Due::Message) => {
                // A server may announce at any time that it is going (RFC 5321 3.8).
                ready!(self.look(cx, |code| code == 421))?;
                self.turn = Turn::Theirs;
            }
        }
        self.is_message = due == Some(Due::Message);
        if self.is_message && HELD_BYTES_MAX < bytes.len() {
            return self.poll_send(cx, bytes);
        }
        self.waits_for_more = due != Some(Due::Now);
        self.outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Ok(sent_count) if 0 < sent_count => Poll::Ready(Ok(sent_count)),
            Ok(_) | Err(_) => {
                // Who closes within a message has often said why.
                ready!(self.look(cx, is_refusal))?;
                Poll::Ready(Err(self.fail(Fault::Lost)))
            }
        }
    }

    /// Looks whether bytes are here before we have finished speaking. They answer nothing, and end
    /// the connection; a reply that `may_end` it is heard for what it says. Waits only within a
    /// message, and there only for the rest of a reply that has begun.
    fn look(&mut self, cx: &mut Context<'_>, may_end: fn(u16) -> bool) -> Poll<io::Result<()>> {
        if !self.has_begun()
            && let Poll::Ready(Err(fault)) = self.poll_receive(cx)
        {
            return Poll::Ready(Err(self.fail(fault)));
        }
        if !self.has_begun() {
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.assemble() {
                Ok(Some(reply)) if may_end(reply.code) => {
                    self.transcript.hear(reply);
                    self.transcript.spoil();
                    let ended = io::Error::other("the server ended the dialogue");
                    return Poll::Ready(Err(ended));
                }
                Ok(None) if self.turn == Turn::Theirs => {
                    if ready!(self.poll_receive(cx)).is_err() {
                        return Poll::Ready(Err(self.fail(Fault::Unasked)));
                    }
                }
                _ => return Poll::Ready(Err(self.fail(Fault::Unasked))),
            }
        }
    }

    /// Whether a part of a reply is here.
    fn has_begun(&self) -> bool {
        !self.received.is_empty() || self.reply_bytes > 0
    }

    fn fail(&mut self, fault: Fault) -> io::Error {
        self.transcript.fail(fault);
        io::Error::other("the guard ended the connection")
    }
}

/// Within a message a server may refuse, but cannot yet have accepted.
fn is_refusal(code: u16) -> bool {
    code >= 400
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.released.is_empty() {
            if self.turn == Turn::Ours {
                return Poll::Ready(Err(io::Error::other("no reply is due")));
            }
            ready!(self.poll_reply(cx))?;
        }
        let bytes_count = buffer.remaining().min(self.released.len());
        buffer.put_slice(&self.released[..bytes_count]);
        self.released.drain(..bytes_count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.has_ehlo_due) {
            self.released = b"250 -\r\n".to_vec();
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.turn == Turn::Ours {
            return self.begin(cx, bytes);
        }
        if self.waits_for_more {
            self.waits_for_more = false;
            self.outgoing.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.look(cx, is_refusal))?;
        self.poll_send(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits_for_more {
            return Poll::Ready(Ok(()));
        }
        while !self.outgoing.is_empty() {
            if self.is_message {
                ready!(self.look(cx, is_refusal))?;
            }
            let outgoing = std::mem::take(&mut self.outgoing);
            let sent = self.poll_send(cx, &outgoing);
            self.outgoing = outgoing;
            let sent_count = ready!(sent)?;
            self.outgoing.drain(..sent_count);
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(self.fail(Fault::Lost))),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> std::fmt::Debug for Guard<S> {
    /// Shows no bytes: they may hold credentials and contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("turn", &self.turn).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> AsyncTokioStream for Guard<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

#[cfg(test)]
mod tests;
