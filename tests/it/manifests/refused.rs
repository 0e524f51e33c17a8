//! Manifests that are refused: each with its line and the rule, as the reference words it.

use super::*;

/// 21 lines, and nothing is wrong with them.
const GOOD: &str = r#"apiVersion: breakglass.t-caas.telekom.com/v1alpha1
kind: MailProvider
metadata:
  name: default-smtp
spec:
  displayName: "Production SMTP"
  default: true
  smtp:
    host: smtp.example.com
    port: 587
    username: breakglass@example.com
    passwordRef:
      name: smtp-secret
      key: password
  sender:
    address: noreply@example.com
    name: "Breakglass"
  retry:
    count: 3
    initialBackoffMs: 100
    queueSize: 1000
"#;

const SENDER: &str = "  sender:\n    address: noreply@example.com\n    name: \"Breakglass\"\n";
const PASSWORD_REF: &str = "    passwordRef:\n      name: smtp-secret\n      key: password\n";
const NO_PASSWORD_REF: &str = "spec.smtp.passwordRef: Required value: passwordRef must be \
                               specified when username is provided";
const NO_USERNAME: &str = "spec.smtp.username: Required value: username must be specified when \
                           passwordRef is provided";
const NO_NAME: &str = "3: MailProvider: metadata.name: Required value: a name is required";

const MORE: &str = "    queueSize: 1000\n";
const PER_MINUTE: &str = "limits.messagesPerMinute";
const PER_DAY: &str = "limits.messagesPerDay";
const CONNECTIONS: &str = "limits.maxConnections";

/// The end of the manifest with one limit, in line 23.
fn limits(limit: &str) -> String {
    format!("{MORE}  limits:\n    {limit}\n")
}

/// The lines and texts of what is wrong after one change of [`GOOD`].
fn problems_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is in the good manifest");
    let folder = Folder::of([("a.yaml", GOOD.replacen(from, to, 1).as_str())]);
    folder.problems().replace("a.yaml:", "").replace("MailProvider default-smtp: ", "")
}

#[test]
fn nothing_is_wrong_with_the_good_one() {
    assert!(Folder::of([("a.yaml", GOOD)]).load().is_ok());
}

#[test]
fn a_limit_or_a_type_is_named_with_the_line_of_the_field() {
    let string = "must be of type integer: \"string\"";
    let number = "must be of type integer: \"number\"";
    for (from, to, line, path, found, rule) in [
        ("587", "\"587\"", 10, "smtp.port", "\"string\"", string),
        ("587", "587.5", 10, "smtp.port", "\"number\"", number),
        ("587", "1e30", 10, "smtp.port", "\"number\"", number),
        ("587", "0", 10, "smtp.port", "0", "should be greater than or equal to 1"),
        ("587", "65536", 10, "smtp.port", "65536", "should be less than or equal to 65535"),
        ("t: 3", "t: 11", 19, "retry.count", "11", "should be less than or equal to 10"),
        ("t: 3", "t: -1", 19, "retry.count", "-1", "should be greater than or equal to 0"),
        (
            "100\n",
            "9\n",
            20,
            "retry.initialBackoffMs",
            "9",
            "should be greater than or equal to 10",
        ),
        (
            " 100\n",
            " 60001\n",
            20,
            "retry.initialBackoffMs",
            "60001",
            "should be less than or equal to 60000",
        ),
        (" 100\n", " 100ms\n", 20, "retry.initialBackoffMs", "\"string\"", string),
        ("1000", "9", 21, "retry.queueSize", "9", "should be greater than or equal to 10"),
        ("1000", "10001", 21, "retry.queueSize", "10001", "should be less than or equal to 10000"),
        ("true", "yes", 7, "default", "\"string\"", "must be of type boolean: \"string\""),
        (": smtp.example.com", ": \"\"", 9, "smtp.host", "\"\"", "should be at least 1 chars long"),
        (
            MORE,
            &limits("messagesPerMinute: 0"),
            23,
            PER_MINUTE,
            "0",
            "should be greater than or equal to 1",
        ),
        (
            MORE,
            &limits("messagesPerMinute: 100001"),
            23,
            PER_MINUTE,
            "100001",
            "should be less than or equal to 100000",
        ),
        (MORE, &limits("messagesPerMinute: many"), 23, PER_MINUTE, "\"string\"", string),
        (
            MORE,
            &limits("messagesPerDay: 0"),
            23,
            PER_DAY,
            "0",
            "should be greater than or equal to 1",
        ),
        (
            MORE,
            &limits("messagesPerDay: 10000001"),
            23,
            PER_DAY,
            "10000001",
            "should be less than or equal to 10000000",
        ),
        (
            MORE,
            &limits("maxConnections: 0"),
            23,
            CONNECTIONS,
            "0",
            "should be greater than or equal to 1",
        ),
        (
            MORE,
            &limits("maxConnections: 1001"),
            23,
            CONNECTIONS,
            "1001",
            "should be less than or equal to 1000",
        ),
    ] {
        let path = format!("spec.{path}");
        let problem = format!("{line}: {path}: Invalid value: {found}: {path} in body {rule}");
        assert_eq!(problems_with(from, to), problem);
    }
}

#[test]
fn a_value_at_its_limit_is_taken() {
    let longest = format!("{}@{}.example", "a".repeat(64), "b.".repeat(90) + "b");
    assert_eq!(longest.len(), 254);
    for (from, to) in [
        ("587", "1"),
        ("587", "65535"),
        ("count: 3", "count: 0"),
        ("count: 3", "count: 10"),
        ("Ms: 100", "Ms: 10"),
        ("Ms: 100", "Ms: 60000"),
        ("1000", "10"),
        ("1000", "10000"),
        ("\"Breakglass\"", &"ü".repeat(100)),
        (MORE, &limits("messagesPerMinute: 1")),
        (MORE, &limits("messagesPerMinute: 100000")),
        (MORE, &limits("messagesPerDay: 10000000")),
        (MORE, &limits("maxConnections: 1000")),
        (MORE, &(MORE.to_owned() + "  limits: {}\n")),
        (MORE, &(MORE.to_owned() + "  limits: ~\n")),
        ("noreply@example.com", &longest),
        ("noreply@example.com", "root@localhost"),
        ("smtp.example.com", "mailhog"),
        ("smtp.example.com", "192.168.1.100"),
        ("  displayName: \"Production SMTP\"\n", "  displayName: ~\n"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        let folder = Folder::of([("a.yaml", text.as_str())]);
        assert!(folder.load().is_ok(), "{}", folder.problems());
    }
}

#[test]
fn a_field_that_is_missing_is_named_with_the_line_of_its_parent() {
    for (from, to, problem) in [
        ("    port: 587\n", "", "8: spec.smtp.port: Required value"),
        ("    host: smtp.example.com\n", "", "8: spec.smtp.host: Required value"),
        ("    address: noreply@example.com\n", "", "15: spec.sender.address: Required value"),
        ("noreply@example.com", "~", "16: spec.sender.address: Required value"),
        ("      name: smtp-secret\n", "", "12: spec.smtp.passwordRef.name: Required value"),
        (SENDER, "", "5: spec.sender: Required value"),
        (PASSWORD_REF, "", &format!("8: {NO_PASSWORD_REF}")),
        ("    username: breakglass@example.com\n", "", &format!("8: {NO_USERNAME}")),
        ("breakglass@example.com", "\"\"", &format!("11: {NO_USERNAME}")),
        ("  name: default-smtp\n", "", NO_NAME),
        ("kind: MailProvider\n", "", "1: kind: Required value"),
    ] {
        assert_eq!(problems_with(from, to), problem);
    }
}

#[test]
fn a_value_that_a_schema_cannot_judge_is_judged_too() {
    for (from, to, problem) in [
        ("name: smtp-secret", "name: \"\"", "13: spec.smtp.passwordRef.name: Required value"),
        (
            "name: smtp-secret",
            "name: ../other/secret",
            "13: spec.smtp.passwordRef.name: Invalid value: \"../other/secret\"",
        ),
        (
            "name: smtp-secret",
            "name: Smtp_Secret",
            "13: spec.smtp.passwordRef.name: Invalid value: ",
        ),
        ("key: password", "key: \"\"", "14: spec.smtp.passwordRef.key: Required value"),
        (
            "key: password",
            "namespace: kube-system",
            "14: spec.smtp.passwordRef.namespace: Forbidden: ",
        ),
        (
            "smtp.example.com",
            "user:hunter2@smtp.example.com",
            "9: spec.smtp.host: Invalid value: \"…@smtp.example.com\": ",
        ),
        (
            "smtp.example.com",
            "smtp example.com",
            "9: spec.smtp.host: Invalid value: \"smtp example.com\": ",
        ),
        (
            "smtp.example.com",
            r#""smtp.example.com\r\nRSET""#,
            r#"9: spec.smtp.host: Invalid value: "smtp.example.com\r\nRSET": "#,
        ),
        ("smtp.example.com", "_", "9: spec.smtp.host: Invalid value: "),
        ("smtp.example.com", "smtp..example.com", "9: spec.smtp.host: Invalid value: "),
        ("smtp.example.com", "fe80::1%eth0", "9: spec.smtp.host: Invalid value: "),
        ("smtp.example.com", "\"*.example.com\"", "9: spec.smtp.host: Invalid value: "),
        ("noreply@example.com", "noreply@", "16: spec.sender.address: Invalid value: "),
        (
            "noreply@example.com",
            "Bob <noreply@example.com>",
            "16: spec.sender.address: Invalid value: ",
        ),
        (
            "noreply@example.com",
            r#""noreply@example.com\n""#,
            r#"16: spec.sender.address: Invalid value: "noreply@example.com\n": "#,
        ),
        ("noreply@example.com", "a@.example.com", "16: spec.sender.address: Invalid value: "),
        (
            "noreply@example.com",
            "a@example.com,b@example.com",
            "16: spec.sender.address: Invalid value: ",
        ),
        (
            "\"Breakglass\"",
            r#""a\0b""#,
            r#"17: spec.sender.name: Invalid value: "a\0b": must not contain control characters"#,
        ),
        ("\"Breakglass\"", r#""\e[2J""#, "17: spec.sender.name: Invalid value: "),
        ("port: 587", "tls: true\n    port: 587", "10: unknown field \"spec.smtp.tls\""),
        ("  retry:", "  retries: {count: 5}\n  retry:", "18: unknown field \"spec.retries\""),
        ("  retry:", "retry:", "18: unknown field \"retry\""),
        (
            "name: default-smtp",
            "name: Default_SMTP",
            "4: MailProvider \"Default_SMTP\": metadata.name: Invalid value: ",
        ),
        (
            "MailProvider",
            "MailSender",
            "2: kind: Invalid value: \"MailSender\": no such kind in version ",
        ),
        ("v1alpha1", "v9", "2: kind: Invalid value: \"MailProvider\": no such kind in version "),
    ] {
        let problems = problems_with(from, to);
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(problems.starts_with(problem), "{problems}\nis not about\n{problem}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_certificate_authority_is_bounded_and_a_fake_one_is_a_warning() {
    let authority = |pem: &str| format!("587\n    certificateAuthority: {pem:?}");
    insta::assert_snapshot!(problems_with("587", &authority(&"A".repeat(70_000))), @r#"
    11: spec.smtp.certificateAuthority: Invalid value: 70000 bytes: must be at most 64 KiB
    "#);
    let fake = authority("-----BEGIN CERTIFICATE-----\nfake\n-----END CERTIFICATE-----");
    let folder = Folder::of([("a.yaml", GOOD.replace("587", &fake).as_str())]);
    insta::assert_snapshot!(folder.warnings(), @r#"
    a.yaml:11: MailProvider default-smtp: spec.smtp.certificateAuthority: not a PEM certificate; nothing is sent through this provider until it is
    a.yaml:13: MailProvider default-smtp: spec.smtp.passwordRef: there is no Secret breakglass-system/smtp-secret
    "#);
    let catalog = folder.load().expect("it is admitted").catalog;
    let smtp = &catalog.providers[&name("default-smtp")].smtp;
    assert_eq!(smtp.certificate_authority, Some(CertificateAuthority::Unreadable));
}

#[test]
fn everything_that_is_wrong_in_any_file_is_named_at_once() {
    let folder = Folder::of([
        (
            "a.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  password: hunter2!\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\nkind: [\n",
        ),
        (
            "b.yaml",
            &GOOD
                .replace("587", "0")
                .replace("count: 3", "count: 3\n    count: 4")
                .replace("noreply@", "no reply@")
                .replace("    username: breakglass@example.com\n", ""),
        ),
        ("c.json", "[1, 2]"),
        (
            "d.yml",
            "apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: BreakglassEscalation\n\
             metadata: {name: e, namespace: Team A}\n---\n\
             apiVersion: breakglass.t-caas.telekom.com/v1alpha1\nkind: BreakglassEscalation\n\
             metadata: {name: e}\nspec:\n  notificationMails:\n  - oncall@example.com\n  - oncall\n",
        ),
    ]);
    folder.write("e.yaml", "");
    fs::write(folder.path().join("f.yaml"), [0xff]).expect("the file can be written");
    insta::assert_snapshot!(folder.problems(), @r#"
    a.yaml:5: Secret s: data.password: Invalid value: must be base64
    a.yaml:8: kind: Invalid value: "ConfigMap": no such kind in version "v1"; known are MailProvider (breakglass.t-caas.telekom.com/v1alpha1), BreakglassEscalation (breakglass.t-caas.telekom.com/v1alpha1), ClusterConfig (breakglass.t-caas.telekom.com/v1alpha1), Secret (v1)
    a.yaml:12: not YAML: while parsing a node, did not find expected node content
    b.yaml:8: MailProvider default-smtp: spec.smtp.username: Required value: username must be specified when passwordRef is provided
    b.yaml:10: MailProvider default-smtp: spec.smtp.port: Invalid value: 0: spec.smtp.port in body should be greater than or equal to 1
    b.yaml:15: MailProvider default-smtp: spec.sender.address: Invalid value: "no reply@example.com": spec.sender.address in body should match '^[^@\s]+@([^@\s.]+(\.[^@\s.]+)+|localhost)$'
    b.yaml:19: the key "count" is already on line 18
    c.json:1: kind: Required value: a manifest is a mapping with a kind
    d.yml:1: BreakglassEscalation e: spec: Required value
    d.yml:3: BreakglassEscalation e: metadata.namespace: Invalid value: "Team A": must be a lowercase RFC 1123 label of at most 63 characters
    d.yml:11: BreakglassEscalation e: spec.notificationMails[1]: Invalid value: "oncall": the address must have the form local@domain
    f.yaml: cannot be read: stream did not contain valid UTF-8
    "#);
}

#[test]
fn a_bad_name_does_not_hide_what_else_is_wrong() {
    let text = GOOD.replace("587", "0").replace("name: default-smtp", "name: \"a\\nb\"");
    let folder = Folder::of([("a.yaml", text.as_str())]);
    insta::assert_snapshot!(folder.problems(), @r#"
    a.yaml:4: MailProvider "a\nb": metadata.name: Invalid value: "a\nb": must be a lowercase RFC 1123 subdomain of at most 253 characters: letters, digits, '-' and '.', with a letter or digit at either end
    a.yaml:10: MailProvider "a\nb": spec.smtp.port: Invalid value: 0: spec.smtp.port in body should be greater than or equal to 1
    "#);
}

#[test]
fn a_misspelt_part_of_a_secret_is_refused_without_its_value() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringdata: {a: hunter2}\n";
    let folder = Folder::of([("a.yaml", secret)]);
    assert_eq!(folder.problems(), "a.yaml:5: Secret s: unknown field \"stringdata\"");
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    let folder = Folder::new();
    let error = load(&source(&folder.path().join("none.yaml"))).expect_err("it is not there");
    assert!(folder.short(&error.to_string()).starts_with("none.yaml: cannot be read: "), "{error}");
}
