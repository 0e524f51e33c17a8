//! What holds for any bytes from a server, and for the message made of any accepted request.

mod server;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use lettre::transport::smtp::extension::ClientId;
use mail_parser::{MessageParser, MimeHeaders};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::classify::{End, classify, failure};
use super::header::one_line;
use super::message::compose;
use super::session::{Proof, Session, is_kept};
use super::transcript::Transcript;
use super::{Timeouts, dial};
use crate::core::job::{Job, JobId, Progress};
use crate::core::notification::{Address, Content, NotificationId};
use crate::core::outcome::{Outcome, Reply, Stage};
use crate::core::provider::{
    Credentials, Password, Provider, ProviderName, Security, Sender, Smtp,
};
use crate::core::time::Time;
use server::{Dialogue, Exchange, Server};

const PASSWORD: &str = "open-sesame-4711";
const RECIPIENT: &str = "ada.lovelace@example.com";

/// Reads `bytes` as what a server says: the first chooses how the connection is secured and what it
/// is logged in with, and each NUL ends what is said to one command. Two messages are sent, if the
/// first leaves the connection good.
///
/// # Panics
/// When a message counts as delivered that no server took, or a secret or a byte that is not plain
/// text stands in what is told of an attempt.
pub fn replies(bytes: &[u8]) {
    // Everything is there or never comes, so no time passes.
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_current_thread().enable_time().build().expect("a runtime without IO")
    });
    let Some((choice, said)) = bytes.split_first() else { return };
    let (security, has_login) = match choice % 3 {
        0 => (Security::Plaintext, true),
        1 => (Security::Opportunistic, false),
        _ => (Security::StartTls, true),
    };
    let provider = Arc::new(provider(security, has_login));
    let has_token = choice / 3 % 2 == 1;
    RUNTIME.block_on(converse(&provider, has_token, said));
}

async fn converse(provider: &Arc<Provider>, has_token: bool, said: &[u8]) {
    let (server, dialogue) = Server::new(said);
    let transcript = Transcript::new(Stage::Prepare);
    let (timeouts, peer) = (Timeouts::default(), SocketAddr::from(([127, 0, 0, 1], 25)));
    let hello = ClientId::Domain("localhost".to_owned());
    let begun = dial::begin(provider, &timeouts, &transcript, server, peer, &hello).await;
    let mut session = match begun {
        Ok(session) => session,
        Err(end) => return told(provider, &Outcome::Unreachable(failure(transcript.stage(), end))),
    };
    if provider.smtp.credentials.is_some() {
        let secret = PASSWORD.to_owned().into();
        let proof = if has_token { Proof::AccessToken(&secret) } else { Proof::Password(&secret) };
        if let Err(end) = session.log_in("ada", proof, timeouts.command).await {
            return told(provider, &Outcome::Unreachable(failure(transcript.stage(), end)));
        }
    }
    let content = Content {
        subject: "Access to prod-1".to_owned(),
        html: None,
        text: Some("\r\n.\r\n..\r\nMAIL FROM:<b@example.net>\r\n.".to_owned()),
        reply_to: None,
    };
    for _ in 0..2 {
        let ended = deliver(&mut session, provider, &content, &dialogue).await;
        let (stage, mut is_good) = (session.stage(), session.is_in_step());
        if let Err(end) = ended {
            is_good &= is_kept(stage, &end);
            told(provider, &classify(stage, end));
        }
        if !is_good {
            return;
        }
    }
}

async fn deliver(
    session: &mut Session,
    provider: &Provider,
    content: &Content,
    dialogue: &Dialogue,
) -> Result<(), End> {
    let job = job(Address::parse(RECIPIENT).expect("an address"));
    let message = compose(provider, &job, content).expect("a message");
    let exchanges_before = dialogue.lock().len();
    let ended = session.deliver(&message, &Timeouts::default()).await;
    let exchanges = &dialogue.lock()[exchanges_before..];
    let header = b"Auto-Submitted: ";
    let has_body = |exchange: &Exchange| exchange.heard.windows(16).any(|bytes| bytes == header);
    let Some(place) = exchanges.iter().position(has_body) else {
        let end = ended.expect_err("no message was sent");
        return Err(end);
    };
    let (before, body) = (&exchanges[..place], &exchanges[place]);
    let (mail, rcpt) = ("MAIL FROM:<s@example.com>", format!("RCPT TO:<{RECIPIENT}>\r\n"));
    match before {
        [.., group] if group.heard.ends_with(format!("\r\n{rcpt}DATA\r\n").as_bytes()) => {
            assert!(group.is_answered(mail.as_bytes(), b"223"), "{group:?}");
            let lines_count = group.heard.split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(lines_count, 3, "{group:?}");
        }
        [.., first, second, third] => {
            assert!(first.is_answered(mail.as_bytes(), b"2"), "{first:?}");
            assert!(second.is_answered(rcpt.as_bytes(), b"2"), "{second:?}");
            assert!(third.is_answered(b"DATA\r\n", b"3"), "{third:?}");
        }
        _ => panic!("too few commands: {exchanges:?}"),
    }
    let text = String::from_utf8(message.bytes.clone()).expect("ASCII");
    let stuffed = format!("{}\r\n.\r\n", text.replace("\r\n.", "\r\n.."));
    assert!(stuffed.as_bytes().starts_with(&body.heard), "nothing follows the final dot: {body:?}");
    told(provider, &Outcome::Delivered(ended?));
    assert!(body.is_answered(stuffed.as_bytes(), b"2"), "{body:?}");
    Ok(())
}

/// What may be shown of an attempt.
fn told(provider: &Provider, outcome: &Outcome) {
    let failure = outcome.failure();
    let (detail, reply) = match outcome {
        Outcome::Delivered(reply) => ("", Some(reply)),
        _ => failure.map_or(("", None), |f| (f.detail.as_str(), f.reply.as_ref())),
    };
    let text = reply.map_or("", |reply: &Reply| &reply.text);
    let has_recipient = failure
        .is_none_or(|f| matches!(f.stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Dot));
    let has_password = provider.smtp.credentials.is_some();
    for shown in [detail, text] {
        assert!(
            shown.len() <= 1000 && shown.bytes().all(|b| matches!(b, b' '..=b'~')),
            "{shown:?}"
        );
        let lower = shown.to_ascii_lowercase();
        assert!(!has_password || !lower.contains(PASSWORD), "the password is shown: {shown}");
        assert!(!has_recipient || !lower.contains(RECIPIENT), "the recipient is shown: {shown}");
    }
    let code = reply.map_or(200, |reply| reply.code);
    assert!((200..600).contains(&code));
}

/// Composes the message of a request that was accepted.
///
/// # Panics
/// When it is not one message with the wanted headers and bodies.
pub fn message(recipient: Address, content: &Content) {
    let provider = provider(Security::Plaintext, false);
    let reply_to = content.reply_to.as_ref();
    let domains = [Some(&recipient), reply_to].into_iter().flatten().map(Address::domain);
    let has_a_labels = domains.clone().all(str::is_ascii);
    let job = job(recipient.clone());
    let message = match compose(&provider, &job, content) {
        Ok(message) => message,
        Err(Outcome::Rejected(_)) if !has_a_labels => return,
        Err(outcome) => panic!("{outcome:?}"),
    };
    let text = String::from_utf8(message.bytes.clone()).expect("UTF-8");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines.iter().all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])));
    let (head, _) = text.split_once("\r\n\r\n").expect("headers, then a body");
    let mut names: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(": ").next().unwrap_or_default())
        .collect();
    names.retain(|name| !["Content-Transfer-Encoding", "Reply-To"].contains(name));
    names.sort_unstable();
    let wanted = [
        "Auto-Submitted",
        "Content-Type",
        "Date",
        "From",
        "MIME-Version",
        "Message-ID",
        "Subject",
        "To",
    ];
    assert_eq!(names, wanted);

    let parsed = MessageParser::default().parse(message.bytes.as_slice()).expect("a message");
    let to = parsed.to().and_then(|to| to.first()).and_then(|to| to.address());
    assert_eq!(to, Some(message.recipient.to_string().as_str()));
    assert_eq!(parsed.to().map(|to| to.iter().count()), Some(1));
    assert!(parsed.cc().is_none() && parsed.bcc().is_none());
    assert_eq!(parsed.subject().unwrap_or_default().trim(), one_line(&content.subject));
    let normal = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
    let bodies = parsed.parts.iter().filter(|part| {
        part.content_type().is_none_or(|kind| kind.ctype().eq_ignore_ascii_case("text"))
    });
    let read: Vec<String> = bodies.filter_map(|part| part.text_contents()).map(normal).collect();
    let written: Vec<String> =
        content.text.iter().chain(&content.html).map(|body| normal(body)).collect();
    assert_eq!(read, written);
}

fn provider(security: Security, has_login: bool) -> Provider {
    let address = Address::parse("s@example.com").expect("an address");
    let mut smtp = Smtp::new("localhost", 25, security);
    let password = Password::Loaded(PASSWORD.to_owned().into());
    smtp.credentials = has_login.then(|| Credentials::with_password("ada", password));
    let name = ProviderName::new("a").expect("a name");
    Provider::new(name, smtp, Sender { address, name: None })
}

fn job(recipient: Address) -> Job {
    let chain = [ProviderName::new("a").expect("a name")].into();
    Job {
        id: JobId(Uuid::from_u128(7)),
        notification: NotificationId(Uuid::from_u128(1)),
        recipient,
        accepted_at: Time(1_700_000_000_123),
        trace: None,
        progress: Progress::fresh(chain, Time(0), Time(u64::MAX)),
    }
}
