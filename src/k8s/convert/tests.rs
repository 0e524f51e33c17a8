use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;

use super::*;
use crate::k8s::crd::{RetryConfig, SenderConfig};

fn spec() -> MailProviderSpec {
    MailProviderSpec {
        display_name: None,
        default: false,
        disabled: false,
        smtp: SmtpConfig {
            host: "smtp.example.com".into(),
            port: 587,
            username: Some("breakglass@example.com".into()),
            password_ref: Some(reference()),
            insecure_skip_verify: false,
            certificate_authority: None,
            disable_tls: false,
        },
        sender: SenderConfig { address: "noreply@example.com".into(), name: None },
        retry: RetryConfig::default(),
        limits: None,
    }
}

fn reference() -> SecretKeyReference {
    SecretKeyReference { name: "smtp-secret".into(), key: "password".into(), namespace: None }
}

fn namespaces() -> SecretNamespaces<'static> {
    SecretNamespaces { own: "default", allowed: &[] }
}

fn found(_: &str, _: &str, _: &str) -> Password {
    Password::Loaded(SecretString::from("hunter2"))
}

fn refusals(change: impl FnOnce(&mut MailProviderSpec)) -> Vec<String> {
    let mut spec = spec();
    change(&mut spec);
    let errors = converted("default-smtp", &spec, namespaces(), &found).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

fn converted(
    name: &str,
    spec: &MailProviderSpec,
    namespaces: SecretNamespaces<'_>,
    password: &dyn Fn(&str, &str, &str) -> Password,
) -> Result<Provider, Vec<FieldError>> {
    let spec = serde_json::to_value(spec).expect("JSON");
    mail_provider(name, &spec, UnknownFields::Refused, namespaces, password)
        .map(|converted| converted.provider)
}

fn warned(change: impl FnOnce(&mut MailProviderSpec)) -> Vec<String> {
    let mut spec = spec();
    change(&mut spec);
    warnings(&spec)
}

#[test]
fn a_username_and_a_password_need_each_other() {
    assert_eq!(
        refusals(|spec| spec.smtp.password_ref = None),
        ["spec.smtp.passwordRef: Required value: passwordRef must be specified when username is \
             provided"]
    );
    for absent in [None, Some(String::new())] {
        assert_eq!(
            refusals(|spec| spec.smtp.username = absent),
            ["spec.smtp.username: Required value: username must be specified when passwordRef is \
                 provided"]
        );
    }
}

#[test]
fn an_empty_username_without_a_password_means_no_credentials() {
    let mut spec = spec();
    spec.smtp.username = Some(String::new());
    spec.smtp.password_ref = None;
    let provider = converted("relay", &spec, namespaces(), &found).expect("it is valid");
    assert!(provider.smtp.credentials.is_none());
    assert_eq!(provider.smtp.security, Security::Opportunistic);
}

#[test]
fn a_reference_names_a_secret_and_a_key() {
    let with = |change: fn(&mut SecretKeyReference)| {
        let mut reference = reference();
        change(&mut reference);
        refusals(|spec| spec.smtp.password_ref = Some(reference)).join("\n")
    };
    insta::assert_snapshot!(with(|r| r.name = String::new()), @r#"
    spec.smtp.passwordRef.name: Required value: a name is required
    "#);
    insta::assert_snapshot!(with(|r| r.key = String::new()), @r#"
    spec.smtp.passwordRef.key: Required value: the key in the Secret must not be empty
    "#);
    insta::assert_snapshot!(with(|r| r.name = "../other/secret".into()), @r#"
    spec.smtp.passwordRef.name: Invalid value: "../other/secret": must be a lowercase RFC 1123 subdomain of at most 253 characters: letters, digits, '-' and '.', with a letter or digit at either end
    "#);
    insta::assert_snapshot!(with(|r| r.namespace = Some("kube-system".into())), @r#"
    spec.smtp.passwordRef.namespace: Forbidden: Secrets are read from namespace default and from those listed in --secret-namespaces only
    "#);
    insta::assert_snapshot!(with(|r| r.namespace = Some("a/b".into())), @r#"
    spec.smtp.passwordRef.namespace: Invalid value: "a/b": must be a lowercase RFC 1123 label of at most 63 characters
    "#);
    assert_eq!(with(|r| r.namespace = Some("default".into())), "");
    assert_eq!(with(|r| r.namespace = Some(String::new())), "");
}

#[test]
fn a_secret_of_a_listed_namespace_is_looked_up_there() {
    let mut spec = spec();
    let namespace = Some("mail".to_owned());
    spec.smtp.password_ref = Some(SecretKeyReference { namespace, ..reference() });
    let allowed = ["mail".to_owned()];
    let namespaces = SecretNamespaces { own: "default", allowed: &allowed };
    let missing = |namespace: &str, name: &str, _: &str| {
        Password::SecretNotFound(format!("{namespace}/{name}"))
    };
    let provider = converted("a", &spec, namespaces, &missing).expect("it is valid");
    let password = provider.smtp.credentials.map(|credentials| credentials.password);
    assert!(matches!(password, Some(Password::SecretNotFound(name)) if name == "mail/smtp-secret"));
}

#[test]
fn a_host_that_carries_a_password_is_refused_without_showing_it() {
    let texts = refusals(|spec| spec.smtp.host = "user:pass@smtp.example.com".into());
    insta::assert_snapshot!(texts.join("\n"), @r#"
    spec.smtp.host: Invalid value: "…@smtp.example.com": must be a DNS name or an IP address, without port, user or zone
    "#);
}

#[test]
fn a_sender_is_one_address_of_the_world_or_of_this_machine() {
    for good in ["a@example.com", "root@localhost", "грета@пример.рф"] {
        assert_eq!(refusals(|spec| spec.sender.address = good.into()), [""; 0], "{good}");
    }
    for bad in [
        "a@example",
        "noreply@",
        "Bob <noreply@example.com>",
        "noreply@example.com\n",
        "a@.example.com",
        "a@example.com,b@example.com",
        "a@[127.0.0.1]",
    ] {
        let texts = refusals(|spec| spec.sender.address = bad.into());
        assert_eq!(texts.len(), 1, "{bad:?}");
        assert!(texts[0].starts_with("spec.sender.address: Invalid value: "), "{}", texts[0]);
    }
}

#[test]
fn a_display_name_has_no_control_characters() {
    for bad in ["a\0b", "\u{1b}[2J", "a\r\nBcc: b@example.com", "a\u{85}b"] {
        let texts = refusals(|spec| spec.sender.name = Some(bad.into()));
        assert_eq!(texts.len(), 1, "{bad:?}");
        assert!(texts[0].starts_with("spec.sender.name: Invalid value: "), "{}", texts[0]);
    }
    assert_eq!(refusals(|spec| spec.sender.name = Some("ü".repeat(100))), [""; 0]);
    assert_eq!(refusals(|spec| spec.sender.name = Some("ü".repeat(101))).len(), 1);
}

#[test]
fn what_is_unsafe_or_unusual_is_admitted_with_a_warning() {
    assert_eq!(warned(|_| {}), [""; 0]);
    insta::assert_snapshot!(warned(|spec| {
        spec.smtp.insecure_skip_verify = true;
        spec.smtp.disable_tls = true;
        spec.smtp.username = None;
        spec.smtp.password_ref = None;
    }).join("\n"), @r#"
    spec.smtp.insecureSkipVerify: any certificate is taken; use it for testing only
    spec.smtp.disableTLS: mail and password are sent in plaintext; never in production
    spec.smtp: No SMTP authentication configured
    "#);
}

#[test]
fn a_certificate_authority_that_cannot_be_read_is_admitted_with_a_warning_and_known_as_such() {
    let key = KeyPair::generate().expect("a key pair can be made");
    let certificate = CertificateParams::default().self_signed(&key).expect("it can be signed");
    let pem = certificate.pem();
    let bundle = format!("# two of them\n{pem}\n{pem}");
    for good in [pem.as_str(), &bundle, ""] {
        assert_eq!(warned(|spec| spec.smtp.certificate_authority = Some(good.into())), [""; 0]);
    }
    let fake = "-----BEGIN CERTIFICATE-----\nfake\n-----END CERTIFICATE-----";
    let half = format!("{pem}\n{fake}");
    let garbage = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----";
    for bad in [fake, garbage, &half, "not PEM", " ", &key.serialize_pem()] {
        let mut spec = spec();
        spec.smtp.certificate_authority = Some(bad.into());
        let provider = converted("a", &spec, namespaces(), &found).expect("it is admitted");
        assert_eq!(provider.smtp.certificate_authority, Some(CertificateAuthority::Unreadable));
        assert!(warnings(&spec)[0].starts_with("spec.smtp.certificateAuthority: "), "{bad}");
    }
    let texts = refusals(|spec| spec.smtp.certificate_authority = Some("A".repeat(70_000)));
    insta::assert_snapshot!(texts.join("\n"), @r#"
    spec.smtp.certificateAuthority: Invalid value: 70000 bytes: must be at most 64 KiB
    "#);
}

#[test]
fn an_escalation_names_each_address_that_is_none() {
    let spec = BreakglassEscalationSpec {
        mail_provider: Some(String::new()),
        notification_mails: vec!["oncall@example.com".into(), "nobody".into()],
    };
    let (used, errors) = escalation(&spec);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].path, "spec.notificationMails[1]");
    assert_eq!((used.mail_provider, used.notification_mails.len()), (None, 1));
}
