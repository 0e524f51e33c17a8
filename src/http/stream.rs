//! A connection whose other side may be slow to read or still sending when we close.
//!
//! A socket that is closed with unread bytes resets the connection, and the reset overtakes the
//! answer: a client that still sends a body that is too large would never learn why. So the write
//! side is closed first, and what still comes is read and dropped for a moment (RFC 9112 9.6).
//! And a client that does not read its answer must not hold its connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// For how long a closing connection is still read.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// For how long the other side may take nothing of an answer.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// A stream with bounded patience: see the module.
pub(super) struct PatientStream<S> {
    stream: S,
    /// Until when the other side has to take something; set while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Until when a closing connection is read; set once our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, stalled: None, lingering: None }
    }

    /// Turns a write that has waited for too long into an error.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let wait = || Box::pin(tokio::time::sleep(STALL_TIME_MAX));
        ready!(self.stalled.get_or_insert_with(wait).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let closed = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.bounded(cx, closed))?;
        }
        let wait = || Box::pin(tokio::time::sleep(LINGER_TIME_MAX));
        let lingering = this.lingering.get_or_insert_with(wait);
        let mut dropped = [0; 4096];
        loop {
            if lingering.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut dropped);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let mut stream = PatientStream::new(ours);
        let error = stream.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_served() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = PatientStream::new(ours);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while all.len() < 64 {
                tokio::time::sleep(STALL_TIME_MAX / 2).await;
                let mut some = [0; 8];
                let count = theirs.read(&mut some).await.expect("open");
                all.extend_from_slice(&some[..count]);
            }
        });
        stream.write_all(&[0; 64]).await.expect("it goes on");
        reading.await.expect("all is read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closing_connection_is_read_until_the_other_side_closes_or_for_a_moment() {
        let (ours, theirs) = duplex(16);
        let begun = Instant::now();
        PatientStream::new(ours).shutdown().await.expect("closed");
        assert!(LINGER_TIME_MAX <= begun.elapsed());
        drop(theirs);

        let (ours, mut theirs) = duplex(16);
        let begun = Instant::now();
        let sending = tokio::spawn(async move { theirs.write_all(&[0; 1000]).await });
        PatientStream::new(ours).shutdown().await.expect("closed");
        sending.await.expect("no panic").expect("all of it was taken");
        assert!(begun.elapsed() < LINGER_TIME_MAX);
    }
}
