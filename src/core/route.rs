//! Which providers may carry a notification, in which order, and why.

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

    /// Whether any provider, enabled or not, may be given only so many messages in a time.
    #[must_use]
    pub fn is_any_limited(&self) -> bool {
        self.providers.values().any(|provider| provider.limits.count())
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

/// Where a provider can be named, in the order of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// By the caller, in `mailProvider`.
    MailProvider,
    /// By the escalation that the caller named.
    Escalation,
    /// By the cluster that the caller named.
    Cluster,
    /// By being the default.
    Default,
}

impl Level {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::MailProvider, Self::Escalation, Self::Cluster, Self::Default];

    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MailProvider => "mailProvider",
            Self::Escalation => "escalation",
            Self::Cluster => "cluster",
            Self::Default => "default",
        }
    }
}

/// What became of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its provider is in the chain.
    Taken,
    /// Its provider is in the chain already.
    Repeated,
    /// Its provider is disabled.
    Disabled,
    /// Its provider does not exist.
    NoSuchProvider,
    /// The escalation or cluster does not exist, or a bare name could mean several.
    NotFound,
    /// The escalation or cluster names no provider, or no provider is the default.
    NamesNone,
    /// The caller named nothing there.
    NotAsked,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Taken,
        Self::Repeated,
        Self::Disabled,
        Self::NoSuchProvider,
        Self::NotFound,
        Self::NamesNone,
        Self::NotAsked,
    ];

    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Repeated => "repeated",
            Self::Disabled => "disabled",
            Self::NoSuchProvider => "noSuchProvider",
            Self::NotFound => "notFound",
            Self::NamesNone => "namesNone",
            Self::NotAsked => "notAsked",
        }
    }
}

/// A level, to which provider it led, and what became of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub level: Level,
    /// What the caller named there.
    pub named: Option<String>,
    /// The provider that this led to, as it was written.
    pub provider: Option<String>,
    /// What became of it.
    pub decision: Decision,
}

impl Candidate {
    /// The decision as a sentence without its end.
    #[must_use]
    pub fn reason(&self) -> String {
        let level = self.level.as_str();
        let source = match (self.level, &self.named) {
            (Level::Escalation | Level::Cluster, Some(named)) => format!("{level} {named}"),
            _ => level.to_owned(),
        };
        let provider = self.provider.as_deref().unwrap_or_default();
        match self.decision {
            Decision::Taken => format!("{source}: MailProvider {provider} is enabled"),
            Decision::Repeated => {
                format!("{source}: MailProvider {provider} is in the chain already")
            }
            Decision::Disabled => format!("{source}: MailProvider {provider} is disabled"),
            Decision::NoSuchProvider => format!("{source}: MailProvider {provider} does not exist"),
            Decision::NotFound => format!("{source} does not exist"),
            Decision::NamesNone if self.level == Level::Default => {
                "no MailProvider is the default".to_owned()
            }
            Decision::NamesNone => format!("{source} names no MailProvider"),
            Decision::NotAsked => format!("no {source} was asked for"),
        }
    }

    /// Whether the caller should know: it named something that led nowhere.
    fn is_warned_of(&self) -> bool {
        let leads_nowhere = matches!(
            self.decision,
            Decision::Disabled | Decision::NoSuchProvider | Decision::NotFound
        );
        leads_nowhere && self.level != Level::Default
    }
}

/// What was made of a wish: every level, and the chain that came of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// One for each level, in order.
    pub candidates: Vec<Candidate>,
    chain: Vec<ProviderName>,
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

/// Considers each level: the explicit provider, then the escalation's, then the cluster's, then the
/// default. Missing and disabled ones and repeats stay out of the chain.
#[must_use]
pub fn consider(wish: Wish<'_>, catalog: &Catalog) -> Considered {
    let escalation = wish.escalation.map(|name| catalog.escalation(name));
    let escalation = escalation.map(|found| found.map(|found| &found.mail_provider));
    let cluster = wish.cluster.map(|name| catalog.cluster(name));
    let cluster = cluster.map(|found| found.map(|found| &found.mail_provider));
    let default = catalog.default_provider().map(|provider| provider.name.as_str());
    let levels = [
        (Level::MailProvider, wish.provider, wish.provider.ok_or(Decision::NotAsked)),
        (Level::Escalation, wish.escalation, led_to(escalation)),
        (Level::Cluster, wish.cluster, led_to(cluster)),
        (Level::Default, None, default.ok_or(Decision::NamesNone)),
    ];
    let mut chain = Vec::new();
    let candidates = levels.map(|(level, named, led_to)| {
        let decision = led_to.map(|name| catalog.decide(name, &mut chain));
        Candidate {
            level,
            named: named.map(str::to_owned),
            provider: led_to.ok().map(str::to_owned),
            decision: decision.unwrap_or_else(|decision| decision),
        }
    });
    Considered { candidates: candidates.into(), chain }
}

/// The provider that is named by what was asked for and found.
fn led_to(asked: Option<Option<&Option<String>>>) -> Result<&str, Decision> {
    let found = asked.ok_or(Decision::NotAsked)?.ok_or(Decision::NotFound)?;
    found.as_deref().ok_or(Decision::NamesNone)
}

impl Catalog {
    /// What becomes of the provider of that name, which is put into the chain when it is taken.
    fn decide(&self, name: &str, chain: &mut Vec<ProviderName>) -> Decision {
        match ProviderName::new(name).and_then(|name| self.providers.get(&name)) {
            None => Decision::NoSuchProvider,
            Some(provider) if provider.disabled => Decision::Disabled,
            Some(provider) if chain.contains(&provider.name) => Decision::Repeated,
            Some(provider) => {
                chain.push(provider.name.clone());
                Decision::Taken
            }
        }
    }
}

impl Considered {
    /// The chain, and a warning for each name that led nowhere.
    ///
    /// # Errors
    /// When an explicit provider does not exist, or when nothing is left.
    pub fn route(&self) -> Result<Route, RouteError> {
        if let Some(Candidate {
            decision: Decision::NoSuchProvider, provider: Some(name), ..
        }) = self.candidates.iter().find(|candidate| candidate.level == Level::MailProvider)
        {
            return Err(RouteError::NoSuchProvider(name.clone()));
        }
        if self.chain.is_empty() {
            return Err(RouteError::NoProvider);
        }
        Ok(Route { chain: self.chain.clone(), warnings: self.warnings() })
    }

    /// What the caller should know: each name that led nowhere.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warned = self.candidates.iter().filter(|candidate| candidate.is_warned_of());
        warned.map(Candidate::reason).collect()
    }
}

/// The route of a wish: see [`consider`] and [`Considered::route`].
///
/// # Errors
/// When an explicit provider does not exist, or when nothing is left.
pub fn route(wish: Wish<'_>, catalog: &Catalog) -> Result<Route, RouteError> {
    consider(wish, catalog).route()
}

#[cfg(test)]
mod tests;
