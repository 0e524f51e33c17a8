//! What holds for any bytes as a file of manifests, YAML or JSON.

use std::path::PathBuf;

use serde_json::Value;

use super::{Source, load_text, read_bounded, yaml};
use crate::core::provider::{Credentials, Login, Password, Provider, RetryPolicy, Security};
use crate::k8s::convert::{SecretNamespaces, mail_provider};
use crate::k8s::schema::UnknownFields;

/// Values nest no deeper.
const DEPTH_MAX: usize = 64;

/// Reads `bytes` as a file, and each of its documents as the API server would hand it over.
///
/// # Panics
/// When a provider is accepted that breaks a bound, or a complaint is not one line.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = read_bounded(bytes) else { return };
    let parsed = yaml::parse(&text);
    for document in &parsed.documents {
        let value = document.to_value();
        assert!(depth(&value) <= DEPTH_MAX);
        resource(&value);
    }
    let source = Source {
        path: PathBuf::from("a.yaml"),
        namespace: "default".to_owned(),
        secret_namespaces: vec!["mail".to_owned()],
    };
    match load_text(&source, text) {
        Ok(loaded) => {
            assert!(parsed.errors.is_empty(), "what is not YAML is refused");
            loaded.warnings.iter().for_each(|line| complaint(line));
            for (name, provider) in &loaded.catalog.providers {
                assert_eq!(*name, provider.name);
                bounds(provider);
            }
        }
        Err(refused) => {
            assert!(!refused.problems.is_empty());
            refused.problems.iter().for_each(|line| complaint(line));
        }
    }
}

/// A MailProvider of the Kubernetes API may have fields that are not known yet.
fn resource(value: &Value) {
    let namespaces = SecretNamespaces { own: "default", allowed: &[] };
    let name = value["metadata"]["name"].as_str().unwrap_or("a");
    let password = |_: &str, _: &str, _: &str| Password::SecretUnreadable("default/a".to_owned());
    let converted =
        mail_provider(name, &value["spec"], UnknownFields::Ignored, namespaces, &password);
    match converted {
        Ok(converted) => bounds(&converted.provider),
        Err(errors) => assert!(!errors.is_empty(), "what is refused has a reason"),
    }
}

fn bounds(provider: &Provider) {
    let RetryPolicy { count, initial_backoff, queue_size } = provider.retry;
    assert!(count <= 10 && (10..=10_000).contains(&queue_size));
    assert!((10..=60_000).contains(&initial_backoff.as_millis()));
    assert!(provider.smtp.port != 0 && !provider.smtp.host.is_empty());
    if let Some(Credentials { username, login: Login::OAuth2(oauth2) }) = &provider.smtp.credentials
    {
        assert!(!username.is_empty() && provider.smtp.security != Security::Plaintext);
        let url = &oauth2.token_url;
        let local = ["http://localhost", "http://127.", "http://[::1]"];
        assert!(url.starts_with("https://") || local.iter().any(|local| url.starts_with(local)));
        assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?} can be asked");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    assert!(provider.smtp.host.chars().all(plain), "{:?} can be dialled", provider.smtp.host);
    let name = provider.sender.name.as_deref().unwrap_or_default();
    assert!(name.chars().count() <= 100 && !name.chars().any(char::is_control));
}

/// One line that begins with the file.
fn complaint(line: &str) {
    assert!(line.starts_with("a.yaml:") && !line.chars().any(char::is_control), "{line:?}");
}

fn depth(value: &Value) -> usize {
    let depth_below =
        |values: &mut dyn Iterator<Item = &Value>| 1 + values.map(depth).max().unwrap_or_default();
    match value {
        Value::Array(items) => depth_below(&mut items.iter()),
        Value::Object(fields) => depth_below(&mut fields.values()),
        _ => 0,
    }
}
