use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;

use super::*;
use crate::core::provider::{Grant, Login, OAuth2};
use crate::k8s::crd::{
    ClientSecretReference, OAuth2Config, RefreshTokenReference, RetryConfig, SecretKeyReference,
    SenderConfig,
};

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
            oauth2: None,
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
    let login = provider.smtp.credentials.map(|credentials| credentials.login);
    let missing = Password::SecretNotFound("mail/smtp-secret".into());
    assert_eq!(login, Some(Login::Password(missing)));
}

fn with_oauth2(change: impl FnOnce(&mut OAuth2Config)) -> MailProviderSpec {
    let mut spec = spec();
    let key = "clientSecret".to_owned();
    let mut oauth2 = OAuth2Config {
        token_url: "https://login.example.com/token".into(),
        client_id: "client".into(),
        scope: Some("mail.send".into()),
        client_secret_ref: Some(ClientSecretReference { name: "s".into(), key, namespace: None }),
        refresh_token_ref: None,
    };
    change(&mut oauth2);
    spec.smtp.password_ref = None;
    spec.smtp.oauth2 = Some(oauth2);
    spec
}

#[test]
fn oauth2_means_client_credentials_unless_there_is_a_refresh_token() {
    let refresh_token = |namespace: Option<&str>| RefreshTokenReference {
        name: "r".into(),
        key: "refreshToken".into(),
        namespace: namespace.map(str::to_owned),
    };
    let told = |namespace: &str, name: &str, key: &str| {
        Password::KeyNotFound(format!("{namespace}/{name}"), key.to_owned())
    };
    let allowed = ["mail".to_owned()];
    let namespaces = SecretNamespaces { own: "default", allowed: &allowed };
    let grant = |spec: &MailProviderSpec| {
        let provider = converted("a", spec, namespaces, &told).expect("it is valid");
        assert_eq!(provider.smtp.security, Security::StartTls);
        let login = provider.smtp.credentials.map(|credentials| credentials.login);
        let Some(Login::OAuth2(OAuth2 { grant, .. })) = login else { panic!("{login:?}") };
        grant
    };
    let client_secret = told("default", "s", "clientSecret");
    let secret = || Some(client_secret.clone());
    assert_eq!(
        grant(&with_oauth2(|_| {})),
        Grant::ClientCredentials { client_secret: client_secret.clone() }
    );
    for (namespace, found, client_secret) in
        [(None, "default", secret()), (Some("mail"), "mail", None), (Some(""), "default", None)]
    {
        let spec = with_oauth2(|oauth2| {
            oauth2.refresh_token_ref = Some(refresh_token(namespace));
            if client_secret.is_none() {
                oauth2.client_secret_ref = None;
            }
        });
        let refresh_token = told(found, "r", "refreshToken");
        assert_eq!(grant(&spec), Grant::RefreshToken { refresh_token, client_secret });
    }
}

#[test]
fn all_that_is_wrong_with_oauth2_is_told_and_no_url_is_shown() {
    let mut spec = with_oauth2(|oauth2| {
        oauth2.token_url = "https://user:hunter2@login.example.com/token".into();
        oauth2.client_id = "c\u{1}".into();
        oauth2.scope = Some("mäil".into());
        if let Some(reference) = &mut oauth2.client_secret_ref {
            (reference.name, reference.key) = ("../s".into(), String::new());
            reference.namespace = Some("kube-system".into());
        }
    });
    spec.smtp.disable_tls = true;
    spec.smtp.username = None;
    let errors = converted("a", &spec, namespaces(), &found).expect_err("it is not valid");
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    spec.smtp.username: Required value: username must be specified when oauth2 is provided: it names the mailbox
    spec.smtp.disableTLS: Forbidden: with oauth2 TLS must not be disabled: whoever reads an access token can use it
    spec.smtp.oauth2.tokenURL: Invalid value: must not have a user or a password in it
    spec.smtp.oauth2.clientID: Invalid value: "c\u{1}": must be printable ASCII (RFC 6749 A)
    spec.smtp.oauth2.scope: Invalid value: "mäil": must be printable ASCII (RFC 6749 A)
    spec.smtp.oauth2.clientSecretRef.name: Invalid value: "../s": must be a lowercase RFC 1123 subdomain of at most 253 characters: letters, digits, '-' and '.', with a letter or digit at either end
    spec.smtp.oauth2.clientSecretRef.key: Required value: the key in the Secret must not be empty
    spec.smtp.oauth2.clientSecretRef.namespace: Forbidden: Secrets are read from namespace default and from those listed in --secret-namespaces only
    "#);
}

#[test]
fn a_secret_of_oauth2_that_is_missing_is_named_by_its_field() {
    let spec = serde_json::to_value(with_oauth2(|_| {})).expect("JSON");
    let missing = |_: &str, name: &str, _: &str| Password::SecretNotFound(name.to_owned());
    let converted = mail_provider("a", &spec, UnknownFields::Refused, namespaces(), &missing);
    let warnings = converted.expect("it is valid").warnings;
    assert_eq!(warnings, ["spec.smtp.oauth2.clientSecretRef: there is no Secret s"]);
}

#[test]
fn a_password_that_its_host_is_about_to_refuse_is_admitted_with_a_warning() {
    for host in ["smtp.office365.com", "SMTP.Office365.com", "outlook.office365.com"] {
        let warned = warned(|spec| spec.smtp.host = host.into());
        assert_eq!(warned.len(), 1, "{host}: {warned:?}");
        assert!(warned[0].starts_with("spec.smtp.passwordRef: at the end of December 2026 "));
    }
    let warned_of = warned(|spec| spec.smtp.host = "smtp-mail.outlook.com".into());
    assert!(warned_of[0].contains("Outlook.com in September 2024"), "{warned_of:?}");
    for host in ["office365.com.example.com", "notoffice365.com", "smtp.gmail.com"] {
        assert_eq!(warned(|spec| spec.smtp.host = host.into()), [""; 0], "{host}");
    }
    let mut spec = with_oauth2(|_| {});
    spec.smtp.host = "smtp.office365.com".into();
    assert_eq!(warnings(&spec), [""; 0]);
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
