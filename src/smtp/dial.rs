//! From a provider to a session: name lookup, TCP, greeting, TLS and EHLO.
//!
//! All of it is spoken here and not by lettre, which would take replies that were injected before the
//! handshake for the server's own, and which knows no HELO.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
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
use crate::core::provider::{Credentials, Login, Provider, Security, Smtp, is_dns_subdomain};

/// A session with the provider's server, encrypted as it asks and not yet logged in. `transcript`
/// tells, also while this runs, how far it came.
pub(super) async fn dial(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    transcript: &Transcript,
) -> Result<Session, End> {
    let dialogue = Dialogue { smtp: &provider.smtp, timeouts, transcript };
    let (tcp, peer) = dialogue.connect().await?;
    let name = hello_name(tcp.local_addr());
    begin(provider, timeouts, transcript, tcp, peer, &name).await
}

/// The same over a `stream` to `peer`.
pub(super) async fn begin<S>(
    provider: &Arc<Provider>,
    timeouts: &Timeouts,
    transcript: &Transcript,
    stream: S,
    peer: SocketAddr,
    name: &ClientId,
) -> Result<Session, End>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let dialogue = Dialogue { smtp: &provider.smtp, timeouts, transcript };
    let tls = |stream| Guard::new(stream, peer, transcript.clone());

    let (smtp, ehlo) = if provider.smtp.security == Security::Implicit {
        let mut tls = tls(dialogue.encrypt(stream).await?);
        dialogue.greet(&mut tls).await?;
        let ehlo = dialogue.hello(&mut tls, name).await?;
        (hand_over(tls, name).await?, ehlo)
    } else {
        let mut plain = Guard::new(stream, peer, transcript.clone());
        dialogue.greet(&mut plain).await?;
        let ehlo = dialogue.hello(&mut plain, name).await?;
        if dialogue.start_tls(&mut plain, &ehlo).await? {
            let stream = plain.into_stream().map_err(End::Fault)?;
            let mut tls = tls(dialogue.encrypt(stream).await?).at_our_turn();
            // What was offered in plaintext is forgotten (RFC 3207 4.2).
            let ehlo = dialogue.hello(&mut tls, name).await?;
            (hand_over(tls, name).await?, ehlo)
        } else {
            (hand_over(plain, name).await?, ehlo)
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
    let (replies, end) = listen_to_all(transcript, |_| limit, step).await;
    replies.into_iter().next().ok_or(end)
}

/// The same for steps whose commands went out together, each reply within a limit of its own. Answers
/// the replies, and why there are no more.
pub(super) async fn listen_to_all<T>(
    transcript: &Transcript,
    limit: impl Fn(Stage) -> Duration,
    steps: impl Future<Output = T>,
) -> (Vec<RawReply>, End) {
    let mut steps = pin!(steps);
    let mut stage = transcript.stage();
    let mut deadline = pin!(sleep(limit(stage)));
    let have_ended = poll_fn(|cx| {
        if steps.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        let reached = transcript.stage();
        if reached != stage {
            stage = reached;
            deadline.as_mut().reset(Instant::now() + limit(stage));
        }
        deadline.as_mut().poll(cx).map(|()| false)
    })
    .await;
    let (replies, fault) = transcript.take_all();
    let end = match fault {
        Some(fault) => End::Fault(fault),
        None if have_ended => End::Fault(Fault::Lost),
        None => End::Timeout(limit(stage)),
    };
    (replies, end)
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
    async fn connect(&self) -> Result<(TcpStream, SocketAddr), End> {
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
                    // What we write is small, and nothing follows before it is answered.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, *address));
                }
                Ok(Err(error)) => connect_error(&error, limit),
                Err(_) => End::Timeout(limit),
            };
        }
        Err(end)
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut Guard<S>,
    ) -> Result<(), End> {
        self.transcript.enter(Stage::Greeting);
        let reply = listen(self.transcript, self.timeouts.command, guard.exchange(None)).await?;
        expect(reply, 200..=299, &Redaction::of(self.smtp))?;
        Ok(())
    }

    /// EHLO, and to a server that does not know the word HELO, which offers nothing (RFC 5321 3.2).
    async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut Guard<S>,
        name: &ClientId,
    ) -> Result<RawReply, End> {
        let ehlo = format!("EHLO {name}\r\n");
        match self.ask(Stage::Ehlo, guard, &ehlo, 200..=299).await {
            Err(End::Reply(reply)) if matches!(reply.code, 500 | 502 | 504) => {
                let helo = format!("HELO {name}\r\n");
                let mut reply = self.ask(Stage::Ehlo, guard, &helo, 200..=299).await?;
                reply.lines.truncate(1);
                Ok(reply)
            }
            answer => answer,
        }
    }

    /// Whether the handshake comes next; `false` only where plaintext was asked for, or is allowed
    /// and the server offers nothing else.
    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut Guard<S>,
        ehlo: &RawReply,
    ) -> Result<bool, End> {
        if self.smtp.security == Security::Plaintext {
            return Ok(false);
        }
        if ehlo.offer("STARTTLS").is_some() {
            self.ask(Stage::Tls, guard, "STARTTLS\r\n", 220..=220).await?;
            return Ok(true);
        }
        let may_be_plain =
            self.smtp.security == Security::Opportunistic && self.smtp.credentials.is_none();
        if may_be_plain {
            return Ok(false);
        }
        self.transcript.enter(Stage::Tls);
        let what = match &self.smtp.credentials {
            Some(Credentials { login: Login::OAuth2(_), .. }) => "access token",
            _ => "password",
        };
        let sentence =
            format!("the server does not offer STARTTLS, and no {what} is sent without it");
        Err(End::Other(Cause::Tls, sentence))
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
}

/// Hands the stream to lettre. Nothing goes out for that, and nothing is waited for.
async fn hand_over<S>(guard: Guard<S>, name: &ClientId) -> Result<AsyncSmtpConnection, End>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let connected = AsyncSmtpConnection::connect_with_transport(Box::new(guard.for_lettre()), name);
    connected.await.map_err(|_| End::Fault(Fault::NotSmtp))
}

fn connect_error(error: &io::Error, limit: Duration) -> End {
    match error.kind() {
        io::ErrorKind::TimedOut => End::Timeout(limit),
        // The kind's own words ("connection refused", "network unreachable") name no address.
        kind => End::Other(Cause::ConnectionRefused, kind.to_string()),
    }
}

/// The local host name where it is a domain name, else the address literal (RFC 5321 4.1.4).
fn hello_name(local: io::Result<SocketAddr>) -> ClientId {
    match (ClientId::default(), local) {
        (ClientId::Domain(name), _) if is_dns_subdomain(&name.to_ascii_lowercase()) => {
            ClientId::Domain(name)
        }
        (_, Ok(SocketAddr::V4(address))) => ClientId::Ipv4(*address.ip()),
        (_, Ok(SocketAddr::V6(address))) => ClientId::Ipv6(*address.ip()),
        // The connection is gone already, which its first step finds out.
        (_, Err(_)) => ClientId::Ipv4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16) -> RawReply {
        RawReply { code, lines: Vec::new() }
    }

    /// MAIL, RCPT and DATA together, whose replies take so many seconds after one another.
    async fn heard(waits: [u64; 3]) -> (usize, End, Duration) {
        let transcript = Transcript::new(Stage::Mail);
        transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
        let dialogue = async {
            for (wait, code) in waits.into_iter().zip([250, 250, 354]) {
                sleep(Duration::from_secs(wait)).await;
                transcript.hear(reply(code));
            }
        };
        let begin = Instant::now();
        let limit = |stage| Timeouts::default().of(stage);
        let (replies, end) = listen_to_all(&transcript, limit, dialogue).await;
        (replies.len(), end, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn each_reply_has_its_own_limit_also_where_the_commands_went_out_together() {
        assert_eq!(heard([59, 59, 119]).await.0, 3);
        let seconds = Duration::from_secs;
        assert_eq!(heard([61, 0, 0]).await, (0, End::Timeout(seconds(60)), seconds(60)));
        assert_eq!(heard([59, 61, 0]).await, (1, End::Timeout(seconds(60)), seconds(119)));
        assert_eq!(heard([1, 1, 121]).await, (2, End::Timeout(seconds(120)), seconds(122)));
    }
}
