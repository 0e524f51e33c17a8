//! The rules of routing, also for any choice among any providers.

use super::*;
use crate::core::provider::{Security, Sender, Smtp};
use crate::core::time::Time;
use proptest::prelude::*;

fn provider(name: &str, default: bool, disabled: bool) -> Provider {
    let name = ProviderName::new(name).expect("a valid name");
    let sender = Sender { address: Address::parse("s@example.com").expect("ok"), name: None };
    let smtp = Smtp::new("localhost", 25, Security::Opportunistic);
    Provider { default, disabled, ..Provider::new(name, smtp, sender) }
}

fn catalog(providers: impl IntoIterator<Item = Provider>) -> Catalog {
    let providers = providers.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect();
    Catalog { namespace: "default".into(), providers, ..Catalog::default() }
}

fn names(route: &Route) -> Vec<&str> {
    route.chain.iter().map(ProviderName::as_str).collect()
}

fn full_catalog() -> Catalog {
    let mut catalog = catalog(
        ["explicit", "urgent", "standard", "fallback"]
            .map(|name| provider(name, name == "fallback", false)),
    );
    let escalation = |provider: &str| Escalation {
        mail_provider: Some(provider.to_owned()),
        notification_mails: vec![],
    };
    let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    catalog.escalations.insert(key("default", "prod"), escalation("urgent"));
    catalog.escalations.insert(key("elsewhere", "only"), escalation("urgent"));
    catalog.escalations.insert(key("one", "twice"), escalation("urgent"));
    catalog.escalations.insert(key("two", "twice"), escalation("urgent"));
    let cluster = Cluster { mail_provider: Some("standard".into()) };
    catalog.clusters.insert(key("default", "prod-1"), cluster);
    catalog
}

#[test]
fn explicit_then_escalation_then_cluster_then_default() {
    let wish =
        Wish { provider: Some("explicit"), escalation: Some("prod"), cluster: Some("prod-1") };
    let route = route(wish, &full_catalog()).expect("a route");
    assert_eq!(names(&route), ["explicit", "urgent", "standard", "fallback"]);
    assert_eq!(route.warnings, Vec::<String>::new());
}

#[test]
fn a_bare_name_means_the_own_namespace_and_then_the_only_one() {
    let catalog = full_catalog();
    let chosen = |escalation| {
        let wish = Wish { escalation: Some(escalation), ..Wish::default() };
        names(&route(wish, &catalog).expect("a route"))[0].to_owned()
    };
    assert_eq!(chosen("prod"), "urgent");
    assert_eq!(chosen("only"), "urgent");
    assert_eq!(chosen("one/twice"), "urgent");
    assert_eq!(chosen("twice"), "fallback");
}

#[test]
fn of_two_defaults_the_older_wins_and_then_the_first_by_name() {
    let at = |name, time: Option<u64>| Provider {
        created: time.map(Time),
        ..provider(name, true, false)
    };
    let chosen = |providers| {
        let found = catalog(providers);
        found.default_provider().expect("a default").name.to_string()
    };
    assert_eq!(chosen([at("a", Some(2)), at("b", Some(1))]), "b");
    assert_eq!(chosen([at("a", None), at("b", None)]), "a");
    assert_eq!(chosen([at("a", None), at("b", Some(1))]), "b");
}

#[test]
fn an_unknown_explicit_provider_is_an_error_and_other_unknown_names_are_warnings() {
    let catalog = full_catalog();
    let wish = Wish { provider: Some("nobody"), ..Wish::default() };
    assert_eq!(route(wish, &catalog), Err(RouteError::NoSuchProvider("nobody".into())));
    let wish = Wish { escalation: Some("x"), cluster: Some("y"), ..Wish::default() };
    let route = route(wish, &catalog).expect("the default");
    assert_eq!(route.warnings.len(), 2);
}

#[test]
fn every_level_tells_what_became_of_it() {
    let mut catalog = full_catalog();
    let key = |name: &str| ("default".to_owned(), name.to_owned());
    let lost = Escalation { mail_provider: Some("gone".into()), notification_mails: vec![] };
    catalog.escalations.insert(key("lost"), lost);
    catalog.clusters.insert(key("mute"), Cluster::default());
    let off = ProviderName::new("off").expect("a name");
    catalog.providers.insert(off, Arc::new(provider("off", false, true)));
    let told = |wish| {
        let considered = consider(wish, &catalog);
        assert!(considered.candidates.iter().map(|c| c.level).eq(Level::ALL));
        considered.candidates.iter().map(|c| (c.decision, c.reason())).collect::<Vec<_>>()
    };
    let wish = Wish { provider: Some("off"), escalation: Some("lost"), cluster: Some("mute") };
    let expected = [
        (Decision::Disabled, "mailProvider: MailProvider off is disabled"),
        (Decision::NoSuchProvider, "escalation lost: MailProvider gone does not exist"),
        (Decision::NamesNone, "cluster mute names no MailProvider"),
        (Decision::Taken, "default: MailProvider fallback is enabled"),
    ];
    assert_eq!(told(wish), expected.map(|(decision, reason)| (decision, reason.to_owned())));
    let wish = Wish { provider: Some("fallback"), escalation: None, cluster: Some("nobody") };
    let expected = [
        (Decision::Taken, "mailProvider: MailProvider fallback is enabled"),
        (Decision::NotAsked, "no escalation was asked for"),
        (Decision::NotFound, "cluster nobody does not exist"),
        (Decision::Repeated, "default: MailProvider fallback is in the chain already"),
    ];
    assert_eq!(told(wish), expected.map(|(decision, reason)| (decision, reason.to_owned())));
    catalog.providers.clear();
    let none = consider(Wish::default(), &catalog);
    assert_eq!(none.candidates[3].reason(), "no MailProvider is the default");
    assert_eq!(none.route(), Err(RouteError::NoProvider));
}

proptest! {
    #[test]
    fn a_chain_holds_enabled_providers_once_and_the_default_last_unless_chosen(
        disabled in prop::array::uniform4(any::<bool>()),
        defaults in prop::array::uniform4(any::<bool>()),
        wishes in prop::array::uniform3(prop::option::of(0usize..6)),
    ) {
        let known = ["a", "b", "c", "d"];
        let mut catalog = catalog(known.iter().enumerate()
            .map(|(n, name)| provider(name, defaults[n], disabled[n])));
        let name = |n: usize| *known.get(n).unwrap_or(&"missing");
        if let Some(n) = wishes[1] {
            let mail_provider = Some(name(n).to_owned());
            catalog.escalations.insert(("default".into(), "e".into()),
                Escalation { mail_provider, notification_mails: vec![] });
        }
        if let Some(n) = wishes[2] {
            catalog.clusters.insert(("default".into(), "c".into()),
                Cluster { mail_provider: Some(name(n).to_owned()) });
        }
        let wish = Wish {
            provider: wishes[0].map(name),
            escalation: wishes[1].map(|_| "e"),
            cluster: wishes[2].map(|_| "c"),
        };
        let default = catalog.default_provider().map(|p| p.name.clone());
        match route(wish, &catalog) {
            Ok(route) => {
                prop_assert!(!route.chain.is_empty());
                prop_assert!(route.chain.iter().all(|n| catalog.enabled(n).is_some()));
                let mut seen = route.chain.clone();
                seen.sort();
                seen.dedup();
                prop_assert_eq!(seen.len(), route.chain.len());
                let wanted: Vec<_> = wishes.iter().flatten().map(|n| name(*n)).collect();
                for chosen in &route.chain {
                    prop_assert!(wanted.contains(&chosen.as_str()) || Some(chosen) == default.as_ref());
                }
                prop_assert!(default.is_none_or(|d| route.chain.contains(&d)));
            }
            Err(RouteError::NoSuchProvider(missing)) => {
                prop_assert_eq!(wishes[0].map(name), Some(missing.as_str()));
            }
            Err(RouteError::NoProvider) => {
                prop_assert!(default.is_none());
                for n in wishes.iter().flatten() {
                    prop_assert!(known.get(*n).is_none() || disabled[*n]);
                }
            }
        }
    }
}
