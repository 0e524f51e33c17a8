//! Taking over what the API server tells, without a restart.
//!
//! MailProviders, escalations and clusters are watched, and of the Secrets those that a
//! MailProvider names, each by a watch of its own. While the API server is away, what is known
//! stays in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::convert::SecretNamespaces;
use super::crd::{BreakglassEscalation, ClusterConfig, MailProvider};
use super::follow::{Followed, Known};
use super::seen::{Built, FullName, Objects, SecretState, Seen, build};
use crate::registry::Registry;

/// `kubectl apply` of several objects is one change.
const QUIET: Duration = Duration::from_millis(50);
/// How long a catalog waits for Secrets that are named for the first time. Then they count as
/// missing until they come.
const SECRETS_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the first catalog waits for the kinds of the breakglass controller, where the API
/// server fails to list them. Mail does not stop for that.
const FOREIGN_WAIT_MAX: Duration = Duration::from_secs(30);

/// What to watch.
#[derive(Clone)]
pub struct Source {
    /// The API server.
    pub client: Client,
    /// `--namespace`: where a `passwordRef` without a namespace leads.
    pub namespace: String,
    /// `--secret-namespaces`: where else a `passwordRef` may lead.
    pub secret_namespaces: Vec<String>,
}

/// Keeps `registry` up to date until `stop`, and tells what was seen. Nothing is told before the
/// first lists are in.
pub async fn watch(
    source: Source,
    registry: Arc<Registry>,
    seen: watch::Sender<Option<Arc<Seen>>>,
    stop: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let mut watched = Watched::start(&source, changed.clone());
    let mut last = None;
    let mut warned = BTreeSet::new();
    loop {
        if watched.is_listed() {
            let (fingerprint, built) = watched.build(&source, &changed, &stop).await;
            if last.as_ref() != Some(&fingerprint) {
                last = Some(fingerprint);
                registry.replace(built.seen.catalog.as_ref().clone());
                tell(&built, &mut warned);
            }
            seen.send_replace(Some(Arc::new(built.seen)));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => sleep(QUIET).await,
            () = sleep(FOREIGN_WAIT_MAX), if last.is_none() => {}
        }
    }
}

/// Logs what was taken over, and each warning once for as long as it lasts.
fn tell(built: &Built, warned: &mut BTreeSet<String>) {
    for warning in built.warnings.iter().filter(|warning| !warned.contains(*warning)) {
        tracing::warn!(warning, "a resource is taken with a warning, or left out");
    }
    *warned = built.warnings.iter().cloned().collect();
    tracing::info!(
        providers_count = built.seen.catalog.providers.len(),
        escalations_count = built.seen.catalog.escalations.len(),
        clusters_count = built.seen.catalog.clusters.len(),
        "the resources are taken over"
    );
}

struct Watched {
    providers: Followed<DynamicObject>,
    escalations: Followed<DynamicObject>,
    clusters: Followed<DynamicObject>,
    secrets: BTreeMap<FullName, Followed<Secret>>,
    changed: Arc<Notify>,
    /// Since when the providers are there.
    listed_since: Option<Instant>,
}

impl Watched {
    fn start(source: &Source, changed: Arc<Notify>) -> Self {
        // Of any shape: one object that does not fit must not end the watch of all others.
        let follow = |resource: ApiResource| {
            let api = Api::all_with(source.client.clone(), &resource);
            let what = resource.plural.clone();
            Followed::start(api, resource, what, "", changed.clone())
        };
        Self {
            providers: follow(ApiResource::erase::<MailProvider>(&())),
            escalations: follow(ApiResource::erase::<BreakglassEscalation>(&())),
            clusters: follow(ApiResource::erase::<ClusterConfig>(&())),
            secrets: BTreeMap::new(),
            changed,
            listed_since: None,
        }
    }

    /// The providers must be there; the other two belong to a controller that may not.
    fn is_listed(&mut self) -> bool {
        if self.providers.known() != Known::Listed {
            return false;
        }
        let since = *self.listed_since.get_or_insert_with(Instant::now);
        let foreign = [&self.escalations, &self.clusters];
        foreign.iter().all(|kind| kind.known() != Known::NotYet)
            || FOREIGN_WAIT_MAX <= since.elapsed()
    }

    /// The catalog, once the Secrets that it names are known, and its fingerprint.
    async fn build(
        &mut self,
        source: &Source,
        changed: &Notify,
        stop: &CancellationToken,
    ) -> (Vec<String>, Built) {
        let namespaces =
            SecretNamespaces { own: &source.namespace, allowed: &source.secret_namespaces };
        let until = Instant::now() + SECRETS_WAIT_MAX;
        loop {
            // First: what changes meanwhile is found by the next one.
            let fingerprint = self.fingerprint();
            let built = build(&self.objects(), namespaces);
            self.follow_secrets(&source.client, &built.secrets);
            let is_known = self.secrets.values().all(|secret| secret.known() != Known::NotYet);
            if is_known || Instant::now() >= until || stop.is_cancelled() {
                return (fingerprint, built);
            }
            let _ = timeout_at(until, changed.notified()).await;
        }
    }

    fn objects(&self) -> Objects {
        let secret = |(name, followed): (&FullName, &Followed<Secret>)| {
            let state = match (followed.objects().pop(), followed.known()) {
                (Some(secret), _) => SecretState::Found(secret),
                (None, Known::Listed) => SecretState::Missing,
                (None, Known::NotYet | Known::Refused) => SecretState::Unreadable,
            };
            (name.clone(), state)
        };
        Objects {
            providers: self.providers.objects(),
            escalations: self.escalations.objects(),
            clusters: self.clusters.objects(),
            secrets: self.secrets.iter().map(secret).collect(),
        }
    }

    fn follow_secrets(&mut self, client: &Client, wanted: &BTreeSet<FullName>) {
        self.secrets.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !self.secrets.contains_key(name) {
                let api = Api::namespaced(client.clone(), &name.0);
                let what = format!("the Secret {}/{}", name.0, name.1);
                let selector = format!("metadata.name={}", name.1);
                let followed = Followed::start(api, (), what, &selector, self.changed.clone());
                self.secrets.insert(name.clone(), followed);
            }
        }
    }

    /// Differs whenever the catalog may: a status that is written changes nothing.
    fn fingerprint(&self) -> Vec<String> {
        // The whole spec: what a new version of the definition adds does not count up a generation.
        let of_spec = |object: &Arc<DynamicObject>| {
            format!("{:?} {:?} {}", object.uid(), object.name_any(), object.data["spec"])
        };
        let of_secret = |(name, followed): (&FullName, &Followed<Secret>)| {
            let version = followed.objects().pop().and_then(|secret| secret.resource_version());
            format!("{name:?} {version:?} {:?}", followed.known())
        };
        let kinds = [&self.providers, &self.escalations, &self.clusters];
        let mut all: Vec<_> =
            kinds.iter().flat_map(|kind| kind.objects()).map(|object| of_spec(&object)).collect();
        all.extend(self.secrets.iter().map(of_secret));
        all.sort();
        all
    }
}
