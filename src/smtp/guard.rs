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
mod tests {
    use super::*;
    use crate::core::outcome::Stage;
    use tokio::io::{AsyncReadExt, DuplexStream};

    fn guarded() -> (Guard<DuplexStream>, DuplexStream, Transcript) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let transcript = Transcript::new(Stage::Greeting);
        let peer = SocketAddr::from(([127, 0, 0, 1], 25));
        (Guard::new(ours, peer, transcript.clone()), theirs, transcript)
    }

    /// The first thing that was heard.
    fn taken(transcript: &Transcript) -> Option<Result<RawReply, Fault>> {
        let (replies, fault) = transcript.take_all();
        replies.into_iter().map(Ok).chain(fault.map(Err)).next()
    }

    /// What the guard makes of `bytes` when they are the first that a server sends.
    async fn heard(bytes: &[u8]) -> Option<Result<RawReply, Fault>> {
        let (mut guard, mut server, transcript) = guarded();
        server.write_all(bytes).await.unwrap();
        drop(server);
        let _ = guard.exchange(None).await;
        taken(&transcript)
    }

    #[tokio::test]
    async fn a_reply_is_heard_once_it_is_complete() {
        let reply = heard(b"250-one\r\n250-two\r\n250 three\r\n").await.unwrap().unwrap();
        assert_eq!((reply.code, reply.lines.len()), (250, 3));
        assert_eq!(heard(b"250-one\r\n250-t").await, Some(Err(Fault::Lost)));
        assert_eq!(heard(b"").await, Some(Err(Fault::Lost)));
        assert_eq!(heard(b"SSH-2.0-x\r\n").await, Some(Err(Fault::NotSmtp)));
    }

    #[tokio::test]
    async fn a_reply_that_agrees_and_refuses_at_once_is_none() {
        assert_eq!(heard(b"250-ok\r\n550 no\r\n").await, Some(Err(Fault::NotSmtp)));
        assert_eq!(heard(b"550-no\r\n250 ok\r\n").await, Some(Err(Fault::NotSmtp)));
        assert_eq!(heard(b"250-ok\r\n251 ok\r\n").await.unwrap().unwrap().code, 251);
    }

    #[tokio::test]
    async fn a_line_a_count_and_a_total_without_end_are_cut_off() {
        assert_eq!(heard(&vec![b'2'; 100_000]).await, Some(Err(Fault::TooLong)));
        assert_eq!(heard(&b"250-x\r\n".repeat(257)).await, Some(Err(Fault::TooLong)));
        let wide = format!("250-{}\r\n", "x".repeat(2000));
        assert_eq!(heard(wide.repeat(100).as_bytes()).await, Some(Err(Fault::TooLong)));
    }

    #[tokio::test]
    async fn no_more_than_a_few_kilobytes_of_a_flood_are_kept() {
        let (mut guard, mut server, _) = guarded();
        server.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
        assert!(guard.exchange(None).await.is_err());
        assert!(guard.received.capacity() <= 16 * 1024);
    }

    #[tokio::test]
    async fn a_reply_that_came_early_never_answers_the_next_command() {
        let (mut guard, mut server, transcript) = guarded();
        server.write_all(b"220 hi\r\n250 early\r\n").await.unwrap();
        guard.exchange(None).await.unwrap();
        assert!(!transcript.is_in_step());
        transcript.enter(Stage::Ehlo);
        assert!(guard.exchange(Some("EHLO x\r\n")).await.is_err());
        assert_eq!(taken(&transcript), Some(Err(Fault::Unasked)));
        assert_eq!(guard.into_stream().map(drop), Err(Fault::Unasked));
    }

    #[tokio::test]
    async fn an_unasked_421_is_heard_as_the_announcement_that_it_is() {
        let (mut guard, mut server, transcript) = guarded();
        server.write_all(b"220 hi\r\n").await.unwrap();
        guard.exchange(None).await.unwrap();
        server.write_all(b"421 going down\r\n").await.unwrap();
        transcript.enter(Stage::Mail);
        assert!(guard.exchange(Some("MAIL FROM:<>\r\n")).await.is_err());
        assert_eq!(taken(&transcript).unwrap().unwrap().code, 421);
    }

    #[tokio::test]
    async fn within_a_message_a_refusal_is_heard_and_an_acceptance_is_not() {
        let table = [
            (&["552 5.3.4 too big\r\n"][..], Ok(552)),
            (&["552-5.3.4 to", "o big\r\n", "552 5.3.4 really\r\n"], Ok(552)),
            (&["250 ok\r\n"], Err(Fault::Unasked)),
            (&["250-o", "k\r\n", "250 ok\r\n"], Err(Fault::Unasked)),
            (&["55"], Err(Fault::Unasked)),
        ];
        let lengths = [20, 2 * HELD_BYTES_MAX];
        for ((early, heard), length) in table.into_iter().flat_map(|t| lengths.map(|n| (t, n))) {
            let (guard, mut server, transcript) = guarded();
            let mut guard = guard.at_our_turn();
            transcript.enter_message();
            guard.write_all(&vec![b'x'; length]).await.unwrap();
            guard.flush().await.unwrap();
            let mut said = early.iter();
            server.write_all(said.next().unwrap().as_bytes()).await.unwrap();
            let say_the_rest = async {
                for piece in said {
                    tokio::task::yield_now().await;
                    server.write_all(piece.as_bytes()).await.unwrap();
                }
                drop(server);
            };
            let send_the_rest = async {
                guard.write_all(b"\r\n.\r\n").await?;
                guard.flush().await
            };
            let (sent, ()) = tokio::join!(send_the_rest, say_the_rest);
            assert!(sent.is_err(), "{early:?}");
            assert_eq!(taken(&transcript).unwrap().map(|reply| reply.code), heard, "{early:?}");
        }
    }

    /// What the server hears before it says anything.
    async fn heard_by(server: &mut DuplexStream) -> String {
        let mut bytes = vec![0; 1 << 20];
        let bytes_count = server.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..bytes_count].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn commands_that_were_announced_together_go_out_together_and_are_answered_in_order() {
        let (guard, mut server, transcript) = guarded();
        let mut guard = guard.at_our_turn();
        transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
        for command in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n"] {
            guard.write_all(command.as_bytes()).await.unwrap();
            guard.flush().await.unwrap();
            let mut answer = [0; 7];
            guard.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"250 -\r\n", "the guard's own");
        }
        guard.write_all(b"DATA\r\n").await.unwrap();
        guard.flush().await.unwrap();
        let group = "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n";
        assert_eq!(heard_by(&mut server).await, group);
        server.write_all(b"250 one\r\n250-two\r\n250 two\r\n").await.unwrap();
        assert!(poll_once(&mut guard).await.is_none(), "the third is missing");
        assert_eq!(transcript.stage(), Stage::Data);
        server.write_all(b"354 three\r\n").await.unwrap();
        assert!(poll_once(&mut guard).await.unwrap().starts_with(b"354"));
        let (replies, fault) = transcript.take_all();
        let codes: Vec<_> = replies.iter().map(|reply| reply.code).collect();
        assert_eq!((codes, fault), (vec![250, 250, 354], None));
        assert!(transcript.is_in_step());
    }

    /// What can be read now.
    async fn poll_once(guard: &mut Guard<DuplexStream>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 100];
        let read = tokio::time::timeout(std::time::Duration::ZERO, guard.read(&mut bytes)).await;
        read.ok().map(|bytes_count| bytes[..bytes_count.unwrap()].to_vec())
    }

    #[tokio::test]
    async fn a_reply_more_than_there_were_commands_answers_none_of_them() {
        let (guard, mut server, transcript) = guarded();
        let mut guard = guard.at_our_turn();
        transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
        for command in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n", "DATA\r\n"] {
            guard.write_all(command.as_bytes()).await.unwrap();
            guard.flush().await.unwrap();
            guard.released.clear();
        }
        server.write_all(b"250 one\r\n250 two\r\n354 three\r\n250 four\r\n").await.unwrap();
        assert!(poll_once(&mut guard).await.unwrap().starts_with(b"354"));
        assert_eq!(transcript.take_all().0.len(), 3);
        assert!(!transcript.is_in_step());
        transcript.enter_message();
        let sent = async {
            guard.write_all(b"message\r\n.\r\n").await?;
            guard.flush().await
        };
        assert!(sent.await.is_err());
        assert_eq!(transcript.take_all(), (Vec::new(), Some(Fault::Unasked)));
        assert!(!heard_by(&mut server).await.contains("message"));
    }

    #[tokio::test]
    async fn all_bytes_arrive_in_order_however_few_the_stream_takes_at_once() {
        for length in [10, HELD_BYTES_MAX, HELD_BYTES_MAX + 1] {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let transcript = Transcript::new(Stage::Mail);
            let peer = SocketAddr::from(([127, 0, 0, 1], 25));
            let mut guard = Guard::new(ours, peer, transcript.clone()).at_our_turn();
            let message: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            let group: [&[u8]; 2] = [b"MAIL FROM:<somebody@example.com>\r\n", b"DATA\r\n"];
            let speak = async {
                transcript.enter_group(Stage::Mail, &[Stage::Data]);
                for command in group {
                    guard.write_all(command).await.unwrap();
                    guard.flush().await.unwrap();
                    guard.released.clear();
                }
                guard.read_exact(&mut [0; 5]).await.unwrap();
                transcript.enter_message();
                for part in [&message[..], b"\r\n.\r\n"] {
                    guard.write_all(part).await.unwrap();
                    guard.flush().await.unwrap();
                }
            };
            let expected = [group[0], group[1], &message, b"\r\n.\r\n"].concat();
            let listen = async {
                let mut heard = vec![0; expected.len()];
                let commands_bytes = group.concat().len();
                theirs.read_exact(&mut heard[..commands_bytes]).await.unwrap();
                theirs.write_all(b"250 a\r\n354 b\r\n").await.unwrap();
                theirs.read_exact(&mut heard[commands_bytes..]).await.unwrap();
                heard
            };
            let ((), heard) = tokio::join!(speak, listen);
            assert!(heard == expected, "{length}");
        }
    }

    #[tokio::test]
    async fn a_message_goes_out_with_its_final_dot() {
        let (guard, mut server, transcript) = guarded();
        let mut guard = guard.at_our_turn();
        transcript.enter_message();
        guard.write_all(b"message").await.unwrap();
        guard.flush().await.unwrap();
        guard.write_all(b"\r\n.\r\n").await.unwrap();
        guard.flush().await.unwrap();
        assert_eq!(heard_by(&mut server).await, "message\r\n.\r\n");
    }

    #[tokio::test]
    async fn a_command_that_was_not_announced_does_not_go_out() {
        let (guard, mut server, transcript) = guarded();
        let mut guard = guard.at_our_turn();
        assert!(guard.write_all(b"QUIT\r\n").await.is_err());
        assert_eq!(taken(&transcript), None);
        drop(guard);
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"");
    }
}
