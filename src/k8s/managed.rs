//! A certificate that the replicas keep among themselves: in a Secret that all of them follow.
//!
//! Whoever sees first that there is none, or that it ends before long, makes one. Each replica puts
//! its authority into the `caBundle` of the webhook's configuration before it serves with it, and
//! the authority before it stays trusted, so that a renewal is never noticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustls::sign::CertifiedKey;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::certificate::{Pem, RENEWED_BEFORE_END};
use super::client::told;
use super::follow::{Followed, Known};
use super::mounted::take_over;

/// The webhook that the configuration is about; it may have others.
const WEBHOOK: &str = "mailprovider.validation.breakglass.t-caas.telekom.com";
/// How often to look whether the certificate ends before long.
const LOOK_INTERVAL: Duration = Duration::from_hours(1);
/// How long after a failure it is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(10);
/// How long a write may take.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// What the certificate is for. Its Secret is named after the Service, so that two installations in
/// one namespace share none.
#[derive(Clone)]
pub struct Webhook {
    /// The API server.
    pub client: Client,
    /// The namespace of this process.
    pub namespace: String,
    /// `--webhook-service`: the Service that the API server reaches us by.
    pub service: String,
    /// `--webhook-configuration`: the ValidatingWebhookConfiguration.
    pub configuration: String,
}

impl Webhook {
    /// The Secret, in the namespace of this process.
    fn secret(&self) -> String {
        format!("{}-cert", self.service)
    }

    /// The name by which the API server calls.
    fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// Keeps `serving`, the Secret and the `caBundle` up to date until `stop`.
pub async fn keep(
    webhook: Webhook,
    serving: watch::Sender<Option<Arc<CertifiedKey>>>,
    stop: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let keeper = Keeper::start(webhook, changed.clone());
    let mut last_problem = None;
    loop {
        let problem = keeper.keep(&serving).await.err();
        if let Some(error) = problem.as_ref().filter(|_| problem != last_problem) {
            tracing::warn!(error, "the certificate of the webhook is not in order; trying again");
        }
        let wait = if problem.is_some() { RETRY_WAIT } else { LOOK_INTERVAL };
        last_problem = problem;
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

struct Keeper {
    webhook: Webhook,
    secret: Followed<Secret>,
    configuration: Followed<ValidatingWebhookConfiguration>,
}

impl Keeper {
    fn start(webhook: Webhook, changed: Arc<Notify>) -> Self {
        let Webhook { client, namespace, configuration, .. } = &webhook;
        let name = webhook.secret();
        let what = format!("the Secret {namespace}/{name}");
        let selector = format!("metadata.name={name}");
        let api = Api::namespaced(client.clone(), namespace);
        let secret = Followed::start(api, (), what, &selector, changed.clone());
        let what = format!("the ValidatingWebhookConfiguration {configuration}");
        let selector = format!("metadata.name={configuration}");
        let api = Api::all(client.clone());
        let configuration = Followed::start(api, (), what, &selector, changed);
        Self { webhook, secret, configuration }
    }

    /// Does what there is to do, and is called again when the Secret or the configuration changed.
    async fn keep(&self, serving: &watch::Sender<Option<Arc<CertifiedKey>>>) -> Result<(), String> {
        // One that we may not read is followed until we may; the log says so.
        if self.secret.known() != Known::Listed {
            return Ok(());
        }
        let (secret, now) = (self.secret.objects().pop(), SystemTime::now());
        let pem = secret.as_deref().and_then(pem);
        let host = self.webhook.host();
        let accepted = |at| pem.as_ref().and_then(|pem| pem.accepted(&host, at));
        let made = match accepted(now + RENEWED_BEFORE_END) {
            Some(_) => Ok(()),
            // What is written comes back by the watch.
            None => {
                let trusted = pem.as_ref().filter(|_| accepted(now).is_some());
                self.renew(secret.as_deref(), trusted, now).await
            }
        };
        let (Some(key), Some(pem)) = (accepted(now), &pem) else { return made };
        let trusted = self.trust(&pem.authorities).await;
        take_over(key, serving);
        made.and(trusted)
    }

    /// Writes a certificate that follows `trusted`, unless another replica was first.
    async fn renew(
        &self,
        secret: Option<&Secret>,
        trusted: Option<&Pem>,
        now: SystemTime,
    ) -> Result<(), String> {
        let Webhook { client, namespace, service, .. } = &self.webhook;
        let (name, host) = (self.webhook.secret(), self.webhook.host());
        let names = vec![service.clone(), format!("{service}.{namespace}"), host.clone()];
        let made = Pem::make(names, trusted, now).map_err(|error| error.to_string())?;
        // Else it would be made again as soon as it is written.
        if made.accepted(&host, now + RENEWED_BEFORE_END).is_none() {
            return Err(format!("no certificate can be made for {host}: is that a DNS name?"));
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let wanted = filled(secret, &name, made);
        let params = PostParams::default();
        let written = match secret {
            Some(_) => timeout(WRITE_TIME_MAX, api.replace(&name, &params, &wanted)).await,
            None => timeout(WRITE_TIME_MAX, api.create(&params, &wanted)).await,
        };
        if outcome(written, &format!("cannot write the Secret {namespace}/{name}"))? {
            tracing::info!(secret = name, namespace, "a new certificate of the webhook is made");
        }
        Ok(())
    }

    /// Has the API server trust `authorities`.
    async fn trust(&self, authorities: &[u8]) -> Result<(), String> {
        let name = &self.webhook.configuration;
        let Some(configuration) = self.configuration.objects().pop() else {
            // The first list is on its way.
            if self.configuration.known() == Known::NotYet {
                return Ok(());
            }
            return Err(format!("there is no ValidatingWebhookConfiguration {name}: apply it"));
        };
        let mut webhooks = configuration.webhooks.iter().flatten();
        let Some(webhook) = webhooks.find(|webhook| webhook.name == WEBHOOK) else {
            return Err(format!(
                "the ValidatingWebhookConfiguration {name} has no webhook {WEBHOOK}: add it"
            ));
        };
        let authorities = ByteString(authorities.to_vec());
        if webhook.client_config.ca_bundle.as_ref() == Some(&authorities) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({
            "metadata": {"resourceVersion": configuration.resource_version()},
            "webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": authorities}}],
        }));
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.webhook.client.clone());
        let params = PatchParams::default();
        let written = timeout(WRITE_TIME_MAX, api.patch(name, &params, &patch)).await;
        let what =
            format!("cannot write the caBundle of the ValidatingWebhookConfiguration {name}");
        if outcome(written, &what)? {
            tracing::info!(configuration = name, "the caBundle of the webhook is written");
        }
        Ok(())
    }
}

/// Whether a write was taken; not when another one came between, which the watch tells of.
fn outcome<T>(
    written: Result<kube::Result<T>, tokio::time::error::Elapsed>,
    what: &str,
) -> Result<bool, String> {
    match written {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => Ok(false),
        Ok(Err(error)) => Err(format!("{what}: {}", told(&error))),
        Err(_) => Err(format!("{what}: no answer within {WRITE_TIME_MAX:?}")),
    }
}

/// What the Secret holds; nothing when a part is missing.
fn pem(secret: &Secret) -> Option<Pem> {
    let part = |name: &str| secret.data.as_ref()?.get(name).map(|part| part.0.clone());
    Some(Pem { chain: part("tls.crt")?, key: part("tls.key")?, authorities: part("ca.crt")? })
}

/// The Secret with `pem` in it. One that is there keeps its type and its labels.
fn filled(secret: Option<&Secret>, name: &str, pem: Pem) -> Secret {
    let data = BTreeMap::from([
        ("tls.crt".to_owned(), ByteString(pem.chain)),
        ("tls.key".to_owned(), ByteString(pem.key)),
        ("ca.crt".to_owned(), ByteString(pem.authorities)),
    ]);
    let new = || Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    };
    Secret { data: Some(data), ..secret.cloned().unwrap_or_else(new) }
}
