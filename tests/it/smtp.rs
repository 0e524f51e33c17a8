//! The SMTP transport against scripted servers.

mod every_step;
mod faults;
mod lies;
mod misdeeds;
mod pipelining;
mod sessions;
mod smuggling;

use std::sync::Arc;
use std::time::Duration;

use breakglass_mailer::core::job::{Job, JobId, Progress};
use breakglass_mailer::core::notification::{Address, Content, NotificationId};
use breakglass_mailer::core::outcome::Outcome;
use breakglass_mailer::core::provider::{
    CertificateAuthority, Credentials, Password, Provider, ProviderName, Security, Sender, Smtp,
};
use breakglass_mailer::core::time::Time;
use breakglass_mailer::delivery::transport::Transport;
use breakglass_mailer::smtp::{SmtpTransport, Timeouts};
use uuid::Uuid;

use crate::support::smtp::{Mode, PKI, Script, Seen, SmtpServer};

/// For peers that never answer: short, and long enough for those that do.
fn hurried() -> Timeouts {
    let limit = Duration::from_secs(2);
    let idle = Duration::from_secs(60);
    Timeouts {
        token: limit,
        connect: limit,
        tls: limit,
        command: limit,
        data: limit,
        dot: limit,
        probe: limit,
        idle,
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("a valid address")
}

/// A provider for `server`; with credentials unless it is a plain relay.
fn provider(server: &SmtpServer, mode: Mode) -> Provider {
    let security = match mode {
        Mode::Plain => Security::Plaintext,
        Mode::StartTls => Security::StartTls,
        Mode::Tls => Security::Implicit,
    };
    let password = Password::Loaded("correct horse".into());
    let credentials = Credentials::with_password("mailer", password);
    let smtp = Smtp {
        certificate_authority: Some(CertificateAuthority::Pem(PKI.ca_pem.clone())),
        credentials: (mode != Mode::Plain).then_some(credentials),
        ..Smtp::new("localhost", server.port(), security)
    };
    let sender = Sender { address: address("alerts@example.com"), name: None };
    let name = ProviderName::new("p").expect("a valid name");
    Provider { default: true, ..Provider::new(name, smtp, sender) }
}

fn job(recipient: &str) -> Job {
    let chain = [ProviderName::new("p").expect("a valid name")].into();
    Job {
        id: JobId(Uuid::from_u128(7)),
        notification: NotificationId(Uuid::from_u128(1)),
        recipient: address(recipient),
        accepted_at: Time(1_700_000_000_000),
        trace: None,
        progress: Progress::fresh(chain, Time(0), Time(u64::MAX)),
    }
}

fn content() -> Content {
    let text = Some("first\n.\n..\nlast".to_owned());
    Content { subject: "Breakglass".into(), html: None, text, reply_to: None }
}

/// Sends one message over a transport of its own; what came of it, and what the server saw.
async fn send_once(mode: Mode, script: Script, timeouts: Timeouts) -> (Outcome, Seen) {
    let server = SmtpServer::start(script).await;
    let provider = Arc::new(provider(&server, mode));
    let transport = SmtpTransport::new(timeouts);
    let outcome = transport.send(&provider, &job("ada@example.com"), &content()).await;
    (outcome, server.seen())
}
