//! Which provider carries a notification: four servers, and to whom each of them gets to speak.

use serde_json::{Value, json};

use crate::support::app::{App, Home, Provider};
use crate::support::client::Answer;
use crate::support::provider::{cluster, escalation, manifests};
use crate::support::smtp::{Script, SmtpServer};
use crate::support::wait::eventually;

/// What a caller would name, the servers of what he may choose, and the server that chooses.
struct Town {
    servers: [SmtpServer; 4],
    home: Home,
    app: App,
}

/// The providers in the order of the contract.
const NAMES: [&str; 4] = ["own", "urgent", "standard", "main"];

impl Town {
    /// The escalation `production` means `urgent`, the cluster `production` means `standard`, and
    /// `main` is the default; `more` is behind it all.
    async fn start(more: &str) -> Self {
        let servers = [server().await, server().await, server().await, server().await];
        let text: String = std::iter::zip(NAMES, &servers)
            .map(|(name, server)| {
                let provider = Provider::plain(name, server.port());
                let provider = provider.sender(&format!("{name}@sender.example"));
                provider.sender_name(name).manifests(name == "main")
            })
            .collect();
        let urgent = json!({"mailProvider": "urgent", "notificationMails": ["oncall@example.com"]});
        let choices = escalation("production", &urgent) + &cluster("production", "standard");
        let home = Home::new(&[]);
        home.write(&(text + &choices + more));
        let app = home.start().await;
        Self { servers, home, app }
    }

    async fn post(&self, fields: Value) -> Answer {
        self.app.client.notify(&notification(fields), None).await.expect("an answer")
    }

    /// Posts; the chain and the warnings of the 202.
    async fn route(&self, fields: Value) -> (Value, Value) {
        let answer = self.app.client.accepted(&notification(fields)).await;
        assert_eq!(answer["provider"], answer["chain"][0]);
        (answer["chain"].clone(), answer["warnings"].clone())
    }

    /// Who got mail from each of the servers, once everything has gone out.
    async fn recipients(&self) -> [Vec<String>; 4] {
        self.app.drained().await;
        self.servers.each_ref().map(|server| {
            server.accepted().into_iter().flat_map(|accepted| accepted.recipients).collect()
        })
    }
}

async fn server() -> SmtpServer {
    SmtpServer::start(Script::plain()).await
}

/// To Ada, unless the fields say otherwise.
fn notification(fields: Value) -> Value {
    let mut body = json!({"recipients": ["ada@example.com"], "subject": "s", "text": "t"});
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_explicit_provider_comes_first_then_the_escalations_the_clusters_and_the_default() {
    let town = Town::start("").await;
    let wishes = [
        json!({"mailProvider": "own", "escalation": "production", "cluster": "production"}),
        json!({"escalation": "production", "cluster": "production"}),
        json!({"cluster": "production"}),
        json!({}),
    ];
    for (n, mut wish) in wishes.into_iter().enumerate() {
        wish["recipients"] = json!([format!("to-{n}@example.com")]);
        assert_eq!(town.route(wish).await, (json!(NAMES[n..]), json!([])));
    }
    let all = ["to-0", "to-1", "to-2", "to-3"].map(|to| vec![format!("{to}@example.com")]);
    assert_eq!(town.recipients().await, all);
    for (name, server) in std::iter::zip(NAMES, &town.servers) {
        let letter = &server.accepted()[0];
        assert_eq!(letter.sender, format!("{name}@sender.example"));
        let message = mail_parser::MessageParser::new().parse(&letter.bytes).expect("a message");
        let from = message.from().and_then(|from| from.first()).expect("one author");
        assert_eq!(from.name(), Some(name));
        assert_eq!(from.address(), Some(&*letter.sender));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_nowhere_falls_through_to_the_next_level_with_a_warning() {
    let more = escalation("lost", &json!({"mailProvider": "gone"})) + &cluster("lost", "gone");
    let town = Town::start(&more).await;
    let wish = json!({"escalation": "nobody", "cluster": "production"});
    let (chain, warnings) = town.route(wish).await;
    assert_eq!(chain, json!(["standard", "main"]));
    assert_eq!(warnings, json!(["escalation nobody does not exist"]));

    let (chain, warnings) = town.route(json!({"escalation": "lost", "cluster": "lost"})).await;
    assert_eq!(chain, json!(["main"]));
    let warnings = warnings.as_array().expect("warnings").len();
    assert_eq!(warnings, 2, "one for each level");

    let disabled: Vec<_> = std::iter::zip(NAMES, &town.servers)
        .map(|(name, server)| (name, Provider::plain(name, server.port())))
        .map(|(name, provider)| match name {
            "main" => provider.manifests(true),
            _ => provider.disabled().manifests(false),
        })
        .collect();
    let urgent = escalation("production", &json!({"mailProvider": "urgent"}));
    town.home.write(&(disabled.concat() + &urgent + &cluster("production", "standard")));
    town.app.provider_is("own", |shown| shown["disabled"] == true).await;
    let wish = json!({"mailProvider": "own", "escalation": "production", "cluster": "production"});
    let (chain, warnings) = town.route(wish).await;
    assert_eq!(chain, json!(["main"]));
    let warnings = warnings.as_array().expect("warnings");
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.as_str().expect("text").contains("disabled")));

    let [own, urgent, standard, main] = town.recipients().await;
    assert_eq!([own.len(), urgent.len(), standard.len(), main.len()], [0, 0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_escalations_mails_are_the_recipients_when_the_caller_names_none() {
    let town = Town::start(&escalation("mute", &json!({}))).await;
    let post = |escalation: &str| json!({"subject": "s", "text": "t", "escalation": escalation});
    let answer = town.app.client.accepted(&post("production")).await;
    assert_eq!(answer["jobs"][0]["recipient"], "oncall@example.com");
    town.route(json!({"escalation": "production"})).await;
    let [_, mut urgent, ..] = town.recipients().await;
    urgent.sort();
    assert_eq!(urgent, ["ada@example.com", "oncall@example.com"], "a named one replaces them");

    for name in ["mute", "nobody"] {
        let answer = town.app.client.notify(&post(name), None).await.expect("an answer");
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.json()["errors"][0]["pointer"], "/recipients");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_tells_apart_what_has_the_same_name() {
    let more = [
        escalation("blue/night", &json!({"mailProvider": "own"})),
        escalation("green/night", &json!({"mailProvider": "standard"})),
        escalation("green/day", &json!({"mailProvider": "standard"})),
        escalation("green/production", &json!({"mailProvider": "standard"})),
        cluster("blue/edge", "own"),
    ];
    let town = Town::start(&more.concat()).await;
    for (reference, chain) in [
        ("blue/night", json!(["own", "main"])),
        ("green/night", json!(["standard", "main"])),
        // The only one of its name.
        ("day", json!(["standard", "main"])),
        // In the process's own namespace before all others.
        ("production", json!(["urgent", "main"])),
    ] {
        let expected = (chain, json!([]));
        assert_eq!(town.route(json!({"escalation": reference})).await, expected, "{reference}");
    }
    for reference in ["night", "blue/day"] {
        let (chain, warnings) = town.route(json!({"escalation": reference})).await;
        assert_eq!(chain, json!(["main"]), "{reference} is not clear");
        assert_eq!(warnings.as_array().expect("warnings").len(), 1, "{reference}");
    }
    let expected = (json!(["own", "main"]), json!([]));
    assert_eq!(town.route(json!({"cluster": "blue/edge"})).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_provider_can_carry_is_refused_and_never_sent() {
    let town = Town::start("").await;
    let unknown = town.post(json!({"mailProvider": "nobody"})).await;
    assert_eq!(unknown.status, 422, "{}", unknown.body);
    assert_eq!(unknown.json()["errors"][0]["pointer"], "/mailProvider");

    let spare = Provider::plain("own", town.servers[0].port());
    town.home.write(&spare.manifests(false));
    eventually("the default is gone", async || {
        let all = town.app.client.get("/providers").await;
        (all["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let refused = town.post(json!({})).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert!(refused.headers.contains_key("retry-after"));
    let kind = refused.json()["type"].as_str().expect("a type").to_owned();
    assert!(kind.ends_with("/no-mail-provider"), "{kind}");

    town.home.write(&manifests(&[spare]));
    town.app.provider_is("own", |shown| shown["default"] == true).await;
    assert_eq!(town.route(json!({})).await.0, json!(["own"]));
    let lengths = town.recipients().await.map(|recipients| recipients.len());
    assert_eq!(lengths, [1, 0, 0, 0]);
}
