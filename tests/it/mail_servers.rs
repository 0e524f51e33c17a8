//! The same mail over every door of real mail servers, read back by another parser than the one
//! that wrote it, and every refusal that they can play. The table of what passed is for the README.

mod faults;
mod mail;
mod table;
mod tokens;

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::mail_servers::{self, Door, Fault, MailServer, PASSWORD, USER};
use crate::support::need;
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_all_mail_over_every_door() {
    if need("postfix") {
        try_out(mail_servers::postfix().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_takes_all_mail_over_every_door() {
    if need("exim") {
        try_out(mail_servers::exim().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_takes_all_mail_over_every_door() {
    if need("opensmtpd") {
        try_out(mail_servers::opensmtpd().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haraka_takes_all_mail_over_every_door() {
    if need("haraka") {
        try_out(mail_servers::haraka().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aiosmtpd_takes_all_mail_over_every_door() {
    if need("aiosmtpd") {
        try_out(mail_servers::aiosmtpd().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maildev_takes_all_mail_over_every_door() {
    if need("maildev") {
        try_out(mail_servers::maildev().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_sink_takes_all_mail() {
    if need("smtp-sink") {
        try_out(mail_servers::smtp_sink().await).await;
    }
}

/// A real mail server, and a server of ours with a provider for each thing to try there.
struct World {
    server: MailServer,
    app: App,
    _home: Home,
}

impl World {
    async fn start(server: MailServer) -> Self {
        let mut providers = Vec::new();
        for door in server.offer.doors {
            let at = |purpose, port| {
                let name = provider_name(*door, purpose);
                let provider = Provider::tls(name, server.host(), port, server.ca()).retry(1, 10);
                provider.sender_name(mail::SENDER_NAME)
            };
            let log_in = |provider: Provider| match door.has_login() {
                true => provider.login(USER, PASSWORD),
                false => provider,
            };
            providers.push(log_in(at("mail", door.port())));
            for fault in server.offer.faults {
                let port = if server.offer.has_fault_ports { fault.port() } else { door.port() };
                // OpenSMTPD tells what comes after the dot by the sender.
                let sender = format!("{}@example.com", fault.recipient());
                providers.push(log_in(at(fault.recipient(), port)).sender(&sender));
            }
            if server.offer.has_greylist {
                let again = log_in(at("again", door.port())).retry(0, 10);
                providers.push(again.sender("again@example.com"));
            }
            if guesses(*door) {
                providers.push(at("guess", door.port()).login(USER, "a guess"));
            }
        }
        let home = Home::new(&[]);
        // Without a default, which would be the last of each chain.
        home.write(&providers.iter().map(|provider| provider.manifests(false)).collect::<String>());
        let app = home.start().await;
        Self { server, app, _home: home }
    }

    /// Posts through the provider for `purpose` at `door`; the answer.
    async fn post(&self, door: Door, purpose: &str, mut post: Value) -> Value {
        post["mailProvider"] = provider_name(door, purpose).into();
        self.app.client.accepted(&post).await
    }

    /// The dead letter that becomes of a notification.
    async fn dead_letter(&self, accepted: &Value) -> Value {
        eventually(&format!("a dead letter of {accepted}"), async || {
            let letters = self.app.client.dead_letters().await;
            letters.into_iter().find(|letter| letter["notification"] == accepted["id"])
        })
        .await
    }
}

/// Whether a wrong password is tried there. After STARTTLS a server may offer a login or not.
fn guesses(door: Door) -> bool {
    door != Door::Relay
}

fn provider_name(door: Door, purpose: &str) -> String {
    format!("{door:?}-{purpose}").to_lowercase()
}

fn short(recipient: &str) -> Value {
    let recipient = format!("{recipient}@example.com");
    json!({"recipients": [recipient], "subject": "s", "text": "t"})
}

/// Posts everything at once, and then looks at what became of each.
async fn try_out(server: MailServer) {
    let world = World::start(server).await;
    let offer = world.server.offer;
    let (mut letters, mut refusals) = (Vec::new(), Vec::new());
    let (mut greylisted, mut logins) = (Vec::new(), Vec::new());
    for door in offer.doors {
        for post in mail::posts() {
            let accepted = world.post(*door, "mail", post.clone()).await;
            letters.push((*door, post, accepted));
        }
        for fault in offer.faults {
            let post = short(fault.recipient());
            refusals.push((*door, *fault, world.post(*door, fault.recipient(), post).await));
        }
        if offer.has_greylist {
            let post = short(Fault::Greylisted.recipient());
            greylisted.push(world.post(*door, "again", post).await);
        }
        if guesses(*door) {
            logins.push((*door, world.post(*door, "guess", short("ada")).await));
        }
    }
    let counts = |door: Door| {
        let letters_count = letters.iter().filter(|(at, ..)| *at == door).count();
        let refusals_count = refusals.iter().filter(|(at, ..)| *at == door).count();
        (letters_count, refusals_count)
    };
    for (door, post, accepted) in &letters {
        mail::check(&world, *door, post, accepted).await;
    }
    for (door, fault, accepted) in &refusals {
        faults::check(&world, *door, *fault, accepted).await;
    }
    for accepted in &greylisted {
        faults::check_second_attempt(&world, accepted).await;
    }
    for (door, accepted) in &logins {
        faults::check_login(&world, *door, accepted).await;
    }
    table::write(&world.server, counts);
}
