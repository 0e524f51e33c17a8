//! A server in memory that says what it was given, and what was heard of it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server that says what it was given, whatever it hears.
#[derive(Debug)]
pub(super) struct Server {
    dialogue: Dialogue,
    to_say: VecDeque<Vec<u8>>,
    saying: VecDeque<u8>,
    /// It heard something since it last spoke.
    is_asked: bool,
    /// It said that there is nothing to read, so that only who waits for it hears more.
    has_paused: bool,
}

/// What was heard and said, command by command.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialogue(Arc<Mutex<Vec<Exchange>>>);

#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) heard: Vec<u8>,
    said: Vec<u8>,
}

impl Dialogue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Whether the command began so and the first whole replies are of these classes.
    pub(super) fn is_answered(&self, command: &[u8], classes: &[u8]) -> bool {
        let is_last = |line: &&[u8]| line.get(3) != Some(&b'-');
        let replies = self.said.split(|byte| *byte == b'\n').filter(is_last);
        let said = replies.map_while(|line| line.first().copied()).take(classes.len());
        self.heard.starts_with(command) && said.eq(classes.iter().copied())
    }
}

impl Server {
    pub(super) fn new(said: &[u8]) -> (Self, Dialogue) {
        let dialogue = Dialogue::default();
        dialogue.lock().push(Exchange::default());
        let to_say = said.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let server = Self {
            dialogue: dialogue.clone(),
            to_say,
            saying: VecDeque::new(),
            is_asked: true,
            has_paused: false,
        };
        (server, dialogue)
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.saying.is_empty() {
            let may_speak = std::mem::take(&mut self.is_asked) || self.has_paused;
            self.has_paused = !may_speak;
            if may_speak {
                // The end of what it was given is the end of the connection.
                let Some(next) = self.to_say.pop_front() else { return Poll::Ready(Ok(())) };
                self.has_paused = next.is_empty();
                self.saying = next.into();
            }
            if self.has_paused {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let bytes_count = self.saying.len().min(buffer.remaining());
        let bytes: Vec<u8> = self.saying.drain(..bytes_count).collect();
        buffer.put_slice(&bytes);
        if let Some(exchange) = self.dialogue.lock().last_mut() {
            exchange.said.extend(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_paused = false;
        let mut exchanges = self.dialogue.lock();
        if exchanges.last().is_some_and(|exchange| !exchange.said.is_empty()) {
            exchanges.push(Exchange::default());
        }
        if let Some(exchange) = exchanges.last_mut() {
            exchange.heard.extend(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_asked = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
