//! Manifests from files, as `serve --providers` reads them.

use std::fs;
use std::path::{Path, PathBuf};

use breakglass_mailer::core::provider::{
    CertificateAuthority, Login, Password, ProviderName, Security,
};
use breakglass_mailer::core::route::{Wish, route};
use breakglass_mailer::manifests::{LoadError, Loaded, Source, load};
use secrecy::ExposeSecret;
use tempfile::TempDir;

mod refused;
mod watched;

/// A folder of manifests that is gone after the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let folder = Self::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the file can be written");
    }

    /// The texts without the path of the folder.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
            .replace(&self.path().display().to_string(), "folder")
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        load(&source(self.path()))
    }

    fn warnings(&self) -> String {
        self.short(&self.load().expect("the manifests are good").warnings.join("\n"))
    }

    fn problems(&self) -> String {
        self.short(&self.load().expect_err("the manifests are broken").to_string())
    }
}

fn source(path: &Path) -> Source {
    Source { path: path.into(), namespace: "breakglass-system".into(), secret_namespaces: vec![] }
}

fn reference(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples");
    if name.is_empty() { folder } else { folder.join(name) }
}

fn name(text: &str) -> ProviderName {
    ProviderName::new(text).expect("it is a name")
}

/// A provider that nothing is wrong with.
fn relay(name: &str) -> String {
    format!(
        "apiVersion: breakglass.t-caas.telekom.com/v1alpha1
kind: MailProvider
metadata:
  name: {name}
spec:
  smtp:
    host: smtp.example.com
    port: 25
  sender:
    address: noreply@example.com
"
    )
}

#[test]
fn every_example_of_the_reference_loads_as_it_is_printed() {
    for (file, providers) in [
        ("basic.yaml", vec!["default-smtp"]),
        ("multiple-providers.yaml", vec!["standard-mail", "urgent-mail"]),
        ("gmail.yaml", vec!["gmail-provider"]),
        ("office-365.yaml", vec!["o365-provider"]),
        ("gmail-oauth2.yaml", vec!["gmail-oauth2-provider"]),
        ("office-365-oauth2.yaml", vec!["o365-oauth2-provider"]),
        ("internal-relay.yaml", vec!["internal-relay"]),
        ("mailhog.yaml", vec!["mailhog"]),
        ("escalation.yaml", vec![]),
        ("cluster.yaml", vec![]),
        ("migrated.yaml", vec!["default-smtp"]),
    ] {
        let loaded = load(&source(&reference(file))).unwrap_or_else(|e| panic!("{file}:\n{e}"));
        let names: Vec<_> = loaded.catalog.providers.keys().map(ProviderName::as_str).collect();
        assert_eq!(names, providers, "{file}");
    }
}

#[test]
fn an_example_means_what_it_says() {
    let loaded = load(&source(&reference("basic.yaml"))).expect("it loads");
    assert_eq!(loaded.warnings, [""; 0]);
    let provider = &loaded.catalog.providers[&name("default-smtp")];
    assert_eq!(provider.display_name.as_deref(), Some("Production SMTP"));
    assert!(provider.default && !provider.disabled);
    assert_eq!((provider.smtp.host.as_str(), provider.smtp.port), ("smtp.example.com", 587));
    assert_eq!(provider.smtp.security, Security::StartTls);
    let credentials = provider.smtp.credentials.as_ref().expect("there are credentials");
    assert_eq!(credentials.username, "breakglass@example.com");
    let [(_, password)] = &credentials.secrets()[..] else { panic!("{credentials:?}") };
    let password = password.loaded().expect("it is in the same file");
    assert_eq!(password.expose_secret(), "your-secure-password");
    assert_eq!(provider.sender.address.as_str(), "noreply@example.com");
    assert_eq!(provider.sender.name.as_deref(), Some("Breakglass Notifications"));
    assert_eq!((provider.retry.count, provider.retry.queue_size), (3, 1000));
}

#[test]
fn an_example_with_oauth2_means_what_it_says() {
    for (file, has_refresh_token) in [("office-365-oauth2", false), ("gmail-oauth2", true)] {
        let loaded = load(&source(&reference(&format!("{file}.yaml")))).expect("it loads");
        assert_eq!(loaded.warnings, [""; 0], "{file}");
        let provider = loaded.catalog.providers.values().next().expect("a provider");
        assert_eq!(provider.smtp.security, Security::StartTls);
        let credentials = provider.smtp.credentials.as_ref().expect("there are credentials");
        let Login::OAuth2(oauth2) = &credentials.login else { panic!("{credentials:?}") };
        assert!(oauth2.token_url.starts_with("https://"), "{credentials:?}");
        assert_eq!(credentials.missing(), None);
        let (secret, token) = ("your-client-secret", "your-refresh-token");
        let read: Vec<_> = credentials.secrets().iter().filter_map(|(_, s)| s.loaded()).collect();
        let read: Vec<_> = read.iter().map(|secret| secret.expose_secret()).collect();
        assert_eq!(read, if has_refresh_token { vec![secret, token] } else { vec![secret] });
    }
}

#[test]
fn a_token_endpoint_that_is_taken_can_be_asked() {
    let sample = fs::read_to_string(reference("gmail-oauth2.yaml")).expect("the example is there");
    let with_url = |url: &str| {
        let folder = Folder::new();
        folder.write("a.yaml", &sample.replace("https://oauth2.googleapis.com/token", url));
        folder.load().is_ok()
    };
    let mut refused = String::new();
    for c in ' '..='~' {
        let url = format!("https://login.example.com/a{c}b");
        // In quotes, as a URL with a colon or a hash must be.
        if with_url(&format!("{:?}", url)) {
            let uri: hyper::Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(uri.host(), Some("login.example.com"));
            assert!(uri.path_and_query().is_some_and(|path| path.as_str() == format!("/a{c}b")));
        } else {
            refused.push(c);
        }
    }
    assert_eq!(refused, " \"#<>[\\]^`{|}");
}

#[test]
fn the_examples_together_choose_escalation_then_cluster_then_default() {
    let folder = Folder::new();
    for file in ["multiple-providers.yaml", "escalation.yaml", "cluster.yaml"] {
        let text = fs::read_to_string(reference(file)).expect("the example is there");
        folder.write(file, &text);
    }
    let catalog = folder.load().expect("they load").catalog;
    let wish = Wish {
        provider: None,
        escalation: Some("production-escalation"),
        cluster: Some("production-cluster"),
    };
    let route = route(wish, &catalog).expect("there is a route");
    assert_eq!(route.chain, [name("urgent-mail"), name("standard-mail")]);
    let escalation = catalog.escalation("production-escalation").expect("it is there");
    assert_eq!(escalation.notification_mails[0].as_str(), "oncall@example.com");
}

#[test]
fn a_folder_of_all_examples_warns_of_what_is_odd() {
    let folder = Folder::new();
    for entry in fs::read_dir(reference("")).expect("the examples are there") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    insta::assert_snapshot!(folder.warnings(), @r#"
    internal-relay.yaml:8: MailProvider internal-relay: spec.smtp: No SMTP authentication configured
    mailhog.yaml:8: MailProvider mailhog: spec.smtp: No SMTP authentication configured
    mailhog.yaml:11: MailProvider mailhog: spec.smtp.disableTLS: mail and password are sent in plaintext; never in production
    mailhog.yaml:12: MailProvider mailhog: spec.smtp.insecureSkipVerify: any certificate is taken; use it for testing only
    migrated.yaml:1: MailProvider default-smtp: replaces the one at basic.yaml:1
    multiple-providers.yaml:13: MailProvider standard-mail: spec.smtp.passwordRef: there is no Secret breakglass-system/standard-smtp-secret
    multiple-providers.yaml:35: MailProvider urgent-mail: spec.smtp.passwordRef: there is no Secret breakglass-system/urgent-smtp-secret
    office-365.yaml:12: MailProvider o365-provider: spec.smtp.passwordRef: at the end of December 2026 Microsoft switches passwords for SMTP off in existing tenants, until an administrator switches them on again; use spec.smtp.oauth2
    office-365.yaml:12: MailProvider o365-provider: spec.smtp.passwordRef: there is no Secret breakglass-system/o365-secret
    folder: only one MailProvider can be marked as default, and default-smtp, gmail-oauth2-provider, gmail-provider, internal-relay, mailhog, o365-oauth2-provider, o365-provider, standard-mail are; default-smtp is used
    "#);
}

#[test]
fn json_is_a_manifest_too() {
    let json = r#"{
        "apiVersion": "breakglass.t-caas.telekom.com/v1alpha1",
        "kind": "MailProvider",
        "metadata": {"name": "relay", "labels": {"a/b": "c"}},
        "spec": {
            "smtp": {"host": "2001:db8::25", "port": 465, "passwordRef": null},
            "sender": {"address": "root@localhost"}
        },
        "status": {"conditions": []}
    }"#;
    let folder = Folder::of([("relay.json", json)]);
    let catalog = folder.load().expect("it loads").catalog;
    assert_eq!(catalog.providers[&name("relay")].smtp.security, Security::Implicit);
}

#[test]
fn a_missing_secret_or_key_leaves_the_provider_without_a_password_and_says_so() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: found}\nstringData: {other: x}\n";
    let with_reference = |provider: &str, secret: &str| {
        let reference = format!("25\n    username: u\n    passwordRef: {{name: {secret}}}");
        relay(provider).replace("25", &reference)
    };
    let folder = Folder::of([
        ("a.yaml", with_reference("a", "missing").as_str()),
        ("b.yaml", with_reference("b", "found").as_str()),
        ("c.yaml", secret),
    ]);
    insta::assert_snapshot!(folder.warnings(), @r#"
    a.yaml:10: MailProvider a: spec.smtp.passwordRef: there is no Secret breakglass-system/missing
    b.yaml:10: MailProvider b: spec.smtp.passwordRef: the Secret breakglass-system/found has no value for the key password
    "#);
    let catalog = folder.load().expect("it loads").catalog;
    let password = |provider: &str| {
        let credentials = catalog.providers[&name(provider)].smtp.credentials.as_ref();
        credentials.expect("there are credentials").secrets()[0].1
    };
    assert!(
        matches!(password("a"), Password::SecretNotFound(n) if n == "breakglass-system/missing")
    );
    assert!(matches!(password("b"), Password::KeyNotFound(_, key) if key == "password"));
}

#[test]
fn the_later_of_two_objects_of_one_name_wins() {
    let first = relay("relay").replace("port: 25", "port: 26\n    insecureSkipVerify: true");
    let second = relay("relay").replace("  smtp", "  disabled: true\n  smtp");
    let folder = Folder::of([("a.yaml", first.as_str()), ("b.yaml", second.as_str())]);
    insta::assert_snapshot!(folder.warnings(), @r#"
    b.yaml:1: MailProvider relay: replaces the one at a.yaml:1
    b.yaml:7: MailProvider relay: spec.smtp: No SMTP authentication configured
    "#);
    let catalog = folder.load().expect("it loads").catalog;
    assert_eq!(catalog.providers[&name("relay")].smtp.port, 25);
}

#[test]
fn two_defaults_and_no_provider_are_warnings() {
    let default = |name: &str| relay(name).replace("  smtp", "  default: true\n  smtp");
    let folder = Folder::of([("b.yaml", default("b").as_str()), ("a.yaml", &default("a"))]);
    assert!(folder.warnings().ends_with(
        "folder: only one MailProvider can be marked as default, and a, b are; a is used"
    ));
    insta::assert_snapshot!(Folder::new().warnings(), @r#"
    folder: there is no MailProvider: nothing can be sent
    "#);
}

#[test]
fn objects_without_a_namespace_are_in_the_own_one() {
    let object = |kind: &str, head: &str| {
        format!(
            "apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: {kind}\nmetadata:\n  \
             name: prod\n{head}spec:\n  mailProvider: relay\n  clusterID: prod-1\n---\n"
        )
    };
    let text = object("BreakglassEscalation", "")
        + &object("BreakglassEscalation", "  namespace: team-a\n")
        + &object("ClusterConfig", "  namespace: team-b\n")
        + &relay("relay");
    let catalog = Folder::of([("all.yaml", text.as_str())]).load().expect("it loads").catalog;
    let namespaces = |keys: Vec<&(String, String)>| {
        keys.iter().map(|(namespace, _)| namespace.clone()).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(catalog.escalations.keys().collect()), ["breakglass-system", "team-a"]);
    assert_eq!(namespaces(catalog.clusters.keys().collect()), ["team-b"]);
}
