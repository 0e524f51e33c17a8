//! Which providers may carry a notification, and in which order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notification::Address;
use super::provider::{Provider, ProviderName, is_dns_subdomain};

/// All that can be chosen from, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The namespace of this process: a bare name is looked up there first.
    pub namespace: String,
    /// By name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// BreakglassEscalations by namespace and name.
    pub escalations: BTreeMap<(String, String), Escalation>,
    /// ClusterConfigs by namespace and name.
    pub clusters: BTreeMap<(String, String), Cluster>,
}

/// What we read of a BreakglassEscalation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Escalation {
    /// `spec.mailProvider`.
    pub mail_provider: Option<String>,
    /// `spec.notificationMails`: recipients when the caller names none.
    pub notification_mails: Vec<Address>,
}

/// What we read of a ClusterConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `spec.mailProvider`.
    pub mail_provider: Option<String>,
}

impl Catalog {
    /// The escalation that `reference` names: `namespace/name`, or a bare name in the process's
    /// own namespace, or the only one of that name in any namespace.
    #[must_use]
    pub fn escalation(&self, reference: &str) -> Option<&Escalation> {
        find(&self.escalations, &self.namespace, reference)
    }

    /// The cluster that `reference` names, looked up like an escalation.
    #[must_use]
    pub fn cluster(&self, reference: &str) -> Option<&Cluster> {
        find(&self.clusters, &self.namespace, reference)
    }

    /// The enabled provider marked as default. Of several the oldest wins, then the first by name.
    #[must_use]
    pub fn default_provider(&self) -> Option<&Arc<Provider>> {
        self.providers
            .values()
            .filter(|provider| provider.default && !provider.disabled)
            .min_by_key(|provider| (provider.created.is_none(), provider.created, &provider.name))
    }

    /// The provider of that name when it exists and is enabled.
    #[must_use]
    pub fn enabled(&self, name: &ProviderName) -> Option<&Arc<Provider>> {
        self.providers.get(name).filter(|provider| !provider.disabled)
    }
}

fn find<'a, T>(
    all: &'a BTreeMap<(String, String), T>,
    own_namespace: &str,
    reference: &str,
) -> Option<&'a T> {
    if let Some((namespace, name)) = reference.split_once('/') {
        return all.get(&(namespace.to_owned(), name.to_owned()));
    }
    all.get(&(own_namespace.to_owned(), reference.to_owned())).or_else(|| {
        let mut named = all.iter().filter(|((_, name), _)| name == reference);
        let (_, only) = named.next()?;
        named.next().is_none().then_some(only)
    })
}

/// Whether `reference` can name a namespaced object: `name` or `namespace/name`.
#[must_use]
pub fn is_reference(reference: &str) -> bool {
    match reference.split_once('/') {
        Some((namespace, name)) => is_dns_subdomain(namespace) && is_dns_subdomain(name),
        None => is_dns_subdomain(reference),
    }
}

/// What a caller asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// `mailProvider`.
    pub provider: Option<&'a str>,
    /// `escalation`.
    pub escalation: Option<&'a str>,
    /// `cluster`.
    pub cluster: Option<&'a str>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Enabled providers in order, without repeats; never empty. The first accepts.
    pub chain: Vec<ProviderName>,
    /// What the caller should know: a name that led nowhere.
    pub warnings: Vec<String>,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// `mailProvider` names nothing.
    #[error("there is no MailProvider named {0}")]
    NoSuchProvider(String),
    /// Nothing is left to choose.
    #[error("no enabled mail provider can carry this notification")]
    NoProvider,
}

/// The chain: the explicit provider, then the escalation's, then the cluster's, then the default.
/// Missing and disabled ones are left out with a warning, repeats without.
///
/// # Errors
/// When an explicit provider does not exist, or when nothing is left.
pub fn route(wish: Wish<'_>, catalog: &Catalog) -> Result<Route, RouteError> {
    let mut route = Route { chain: Vec::new(), warnings: Vec::new() };
    if let Some(name) = wish.provider {
        let known = ProviderName::new(name).is_some_and(|n| catalog.providers.contains_key(&n));
        if !known {
            return Err(RouteError::NoSuchProvider(name.to_owned()));
        }
        route.try_provider("mailProvider", name, catalog);
    }
    if let Some(name) = wish.escalation {
        match catalog.escalation(name) {
            None => route.warnings.push(format!("escalation {name} does not exist")),
            Some(Escalation { mail_provider: Some(provider), .. }) => {
                route.try_provider(&format!("escalation {name}"), provider, catalog);
            }
            Some(_) => {}
        }
    }
    if let Some(name) = wish.cluster {
        match catalog.cluster(name) {
            None => route.warnings.push(format!("cluster {name} does not exist")),
            Some(Cluster { mail_provider: Some(provider) }) => {
                route.try_provider(&format!("cluster {name}"), provider, catalog);
            }
            Some(_) => {}
        }
    }
    if let Some(default) = catalog.default_provider()
        && !route.chain.contains(&default.name)
    {
        route.chain.push(default.name.clone());
    }
    if route.chain.is_empty() { Err(RouteError::NoProvider) } else { Ok(route) }
}

impl Route {
    fn try_provider(&mut self, source: &str, name: &str, catalog: &Catalog) {
        let found = ProviderName::new(name).and_then(|n| catalog.providers.get(&n));
        match found {
            None => self.warnings.push(format!("{source}: MailProvider {name} does not exist")),
            Some(provider) if provider.disabled => {
                self.warnings.push(format!("{source}: MailProvider {name} is disabled"));
            }
            Some(provider) if self.chain.contains(&provider.name) => {}
            Some(provider) => self.chain.push(provider.name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
