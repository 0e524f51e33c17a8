//! The SMTP server of `dev`: takes every message on loopback and keeps it as a file.
//!
//! It speaks as much of RFC 5321 as our own sender needs, without TLS and AUTH, and relays nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// No line and no message that our own sender writes is longer.
const LINE_BYTES_MAX: u64 = 2_000;
const MESSAGE_BYTES_MAX: usize = 8 << 20;
const CONNECTIONS_MAX: usize = 64;

/// Takes messages until the process ends; each becomes `mailbox/TIME-ID.eml`, whole or not at all.
pub async fn run(listener: TcpListener, mailbox: PathBuf) {
    let mailbox: Arc<Path> = mailbox.into();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = connections.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let mailbox = mailbox.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &mailbox).await {
                        tracing::debug!(%error, "a conversation with the mailbox was cut short");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the mailbox cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, mailbox: &Path) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mailbox of breakglass-mailer dev\r\n").await?;
    while let Some(line) = read_line(&mut stream).await? {
        let line = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let verb = line.split([' ', '\r', '\n']).next().unwrap_or_default();
        let reply: &[u8] = match verb {
            "EHLO" => b"250-mailbox\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n",
            "HELO" | "NOOP" | "RSET" => b"250 2.0.0 ok\r\n",
            "MAIL" => b"250 2.1.0 ok\r\n",
            "RCPT" => b"250 2.1.5 ok\r\n",
            "DATA" => {
                stream.write_all(b"354 end with a dot\r\n").await?;
                let message = read_message(&mut stream).await?;
                match keep(mailbox, &message).await {
                    Ok(()) => b"250 2.0.0 kept\r\n",
                    Err(error) => {
                        tracing::error!(%error, "the mailbox cannot keep a message");
                        b"452 4.3.1 cannot keep it\r\n"
                    }
                }
            }
            "QUIT" => {
                stream.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            _ => b"502 5.5.1 not here\r\n",
        };
        stream.write_all(reply).await?;
    }
    Ok(())
}

/// One line with its end; `None` when the peer has gone.
async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::other("a line has no end")),
    }
}

/// The message up to the lone dot, with the stuffed dots taken out (RFC 5321 4.5.2).
async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let Some(line) = read_line(stream).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if line == b".\r\n" {
            return Ok(message);
        }
        if message.len() + line.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("a message is too large"));
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

async fn keep(mailbox: &Path, message: &[u8]) -> io::Result<()> {
    // A UUIDv7 sorts by time, so the names list the messages in the order of their arrival.
    let id = uuid::Uuid::now_v7();
    let draft = mailbox.join(format!("{id}.part"));
    tokio::fs::write(&draft, message).await?;
    tokio::fs::rename(draft, mailbox.join(format!("{id}.eml"))).await
}
