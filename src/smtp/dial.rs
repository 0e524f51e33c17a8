//! From a provider to a session: name lookup, TCP, greeting, TLS and EHLO.
//!
//! The plaintext part of STARTTLS is spoken here and not by lettre, which would take replies that
//! were injected before the handshake for the server's own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::Timeouts;
use super::classify::End;
use super::guard::Guard;
use super::redaction::Redaction;
use super::reply::RawReply;
use super::session::Session;
use super::tls;
use super::transcript::{Fault, Transcript};
use crate::core::outcome::{Cause, Stage};
use crate::core::provider::{Provider, Security, Smtp, is_dns_subdomain};

/// A session with the provider's server, encrypted as it asks and not yet logged in. `transcript`
/// tells, also while this runs, how far it came.
pub(super) async fn dial(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    transcript: &Transcript,
) -> Result<Session, End> {
    let tcp = Dialogue { smtp: &provider.smtp, timeouts, transcript }.connect().await?;
    let lost = |_| End::Fault(Fault::Lost);
    let peer = tcp.peer_addr().map_err(lost)?;
    let hello = hello_name(tcp.local_addr().map_err(lost)?);
    begin(provider, timeouts, transcript, tcp, peer, &hello).await
}

/// The same over a `stream` to `peer`.
pub(super) async fn begin<S>(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    transcript: &Transcript,
    stream: S,
    peer: SocketAddr,
    hello: &ClientId,
) -> Result<Session, End>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let dialogue = Dialogue { smtp: &provider.smtp, timeouts, transcript };
    let guard = |stream| Guard::new(stream, peer, transcript.clone());

    let (smtp, ehlo) = match provider.smtp.security {
        Security::Implicit => {
            let tls = dialogue.encrypt(stream).await?;
            let tls = dialogue.greet(Guard::new(tls, peer, transcript.clone())).await?;
            dialogue.hello(tls, hello).await?
        }
        Security::Plaintext => dialogue.hello(dialogue.greet(guard(stream)).await?, hello).await?,
        Security::StartTls | Security::Opportunistic => {
            let mut plain = dialogue.greet(guard(stream)).await?;
            if dialogue.start_tls(&mut plain, hello).await? {
                let stream = plain.into_stream().map_err(End::Fault)?;
                let tls = Guard::new(dialogue.encrypt(stream).await?, peer, transcript.clone());
                dialogue.hello(tls, hello).await?
            } else {
                dialogue.hello(plain, hello).await?
            }
        }
    };
    Ok(Session::new(smtp, &ehlo, transcript.clone(), provider.clone()))
}

/// Waits for what a step of the dialogue brings: a whole reply, or why there is none.
pub(super) async fn listen<T>(
    transcript: &Transcript,
    limit: Duration,
    step: impl Future<Output = T>,
) -> Result<RawReply, End> {
    let ended = timeout(limit, step).await;
    match transcript.take() {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(fault)) => Err(End::Fault(fault)),
        None if ended.is_err() => Err(End::Timeout(limit)),
        None => Err(End::Fault(Fault::Lost)),
    }
}

/// `reply` when its code is one of `wanted`.
pub(super) fn expect(
    reply: RawReply,
    wanted: std::ops::RangeInclusive<u16>,
    redaction: &Redaction<'_>,
) -> Result<RawReply, End> {
    if wanted.contains(&reply.code) {
        return Ok(reply);
    }
    Err(End::Reply(reply.to_reply(redaction)))
}

struct Dialogue<'a> {
    smtp: &'a Smtp,
    timeouts: &'a Timeouts,
    transcript: &'a Transcript,
}

impl Dialogue<'_> {
    /// Tries the host's addresses in turn; each gets an equal share of the time that is left.
    async fn connect(&self) -> Result<TcpStream, End> {
        self.transcript.enter(Stage::Connect);
        let limit = self.timeouts.connect;
        let until = Instant::now() + limit;
        // An IPv6 address may be written in brackets, as in a URL.
        let host = self.smtp.host.trim_matches(['[', ']']);
        let found = timeout(limit, tokio::net::lookup_host((host, self.smtp.port))).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(_)) => Vec::new(),
            Err(_) => {
                let sentence = format!("the host name was not resolved within {limit:?}");
                return Err(End::Other(Cause::Dns, sentence));
            }
        };
        let mut end =
            End::Other(Cause::Dns, "the host name cannot be resolved to an address".to_owned());
        for (n, address) in addresses.iter().enumerate() {
            let left_count = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(Instant::now()) / left_count;
            end = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Commands are small and each waits for its answer.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => connect_error(&error, limit),
                Err(_) => End::Timeout(limit),
            };
        }
        Err(end)
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut guard: Guard<S>,
    ) -> Result<Guard<S>, End> {
        self.transcript.enter(Stage::Greeting);
        let reply = listen(self.transcript, self.timeouts.command, guard.exchange(None)).await?;
        expect(reply, 200..=299, &Redaction::of(self.smtp))?;
        Ok(guard)
    }

    /// Whether the handshake comes next; `false` only where plaintext is allowed and the server
    /// offers nothing else.
    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut Guard<S>,
        hello: &ClientId,
    ) -> Result<bool, End> {
        let ehlo = format!("EHLO {hello}\r\n");
        let offers = self.ask(Stage::Ehlo, guard, &ehlo, 200..=299).await?;
        if offers.offer("STARTTLS").is_some() {
            self.ask(Stage::Tls, guard, "STARTTLS\r\n", 220..=220).await?;
            return Ok(true);
        }
        let may_be_plain =
            self.smtp.security == Security::Opportunistic && self.smtp.credentials.is_none();
        if may_be_plain {
            return Ok(false);
        }
        self.transcript.enter(Stage::Tls);
        let sentence = "the server does not offer STARTTLS, and no password is sent without it";
        Err(End::Other(Cause::Tls, sentence.to_owned()))
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stage: Stage,
        guard: &mut Guard<S>,
        command: &str,
        wanted: std::ops::RangeInclusive<u16>,
    ) -> Result<RawReply, End> {
        self.transcript.enter(stage);
        let exchange = guard.exchange(Some(command));
        let reply = listen(self.transcript, self.timeouts.command, exchange).await?;
        expect(reply, wanted, &Redaction::of(self.smtp))
    }

    async fn encrypt<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<TlsStream<S>, End> {
        self.transcript.enter(Stage::Tls);
        let refuse = |sentence| End::Other(Cause::Tls, sentence);
        let connector = tls::connector(self.smtp).map_err(refuse)?;
        let name = tls::server_name(&self.smtp.host).map_err(refuse)?;
        let limit = self.timeouts.tls;
        match timeout(limit, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(refuse(tls::handshake_error(&error))),
            Err(_) => Err(End::Timeout(limit)),
        }
    }

    /// Hands the stream to lettre, which says EHLO.
    async fn hello<S>(
        &self,
        guard: Guard<S>,
        hello: &ClientId,
    ) -> Result<(AsyncSmtpConnection, RawReply), End>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        self.transcript.enter(Stage::Ehlo);
        let stream = Box::new(guard.with_greeting());
        let mut connected = None;
        let step = async {
            connected = AsyncSmtpConnection::connect_with_transport(stream, hello).await.ok();
        };
        let reply = listen(self.transcript, self.timeouts.command, step).await?;
        let reply = expect(reply, 200..=299, &Redaction::of(self.smtp))?;
        connected.map(|smtp| (smtp, reply)).ok_or(End::Fault(Fault::NotSmtp))
    }
}

fn connect_error(error: &io::Error, limit: Duration) -> End {
    match error.kind() {
        io::ErrorKind::TimedOut => End::Timeout(limit),
        // The kind's own words ("connection refused", "network unreachable") name no address.
        kind => End::Other(Cause::ConnectionRefused, kind.to_string()),
    }
}

/// The local host name where it is a domain name, else the address literal (RFC 5321 4.1.4).
fn hello_name(local: SocketAddr) -> ClientId {
    match ClientId::default() {
        ClientId::Domain(name) if is_dns_subdomain(&name.to_ascii_lowercase()) => {
            ClientId::Domain(name)
        }
        _ => match local {
            SocketAddr::V4(address) => ClientId::Ipv4(*address.ip()),
            SocketAddr::V6(address) => ClientId::Ipv6(*address.ip()),
        },
    }
}
