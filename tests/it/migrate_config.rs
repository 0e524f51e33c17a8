//! `migrate-config`: what goes in, what comes out, and that `serve` takes what comes out.

use std::io::Write;
use std::process::{Command, Stdio};

use breakglass_mailer::core::provider::{Login, Password, Provider};
use breakglass_mailer::manifests::{Source, load};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::app::Home;

struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// Runs it with `config` on its standard input.
fn migrate(config: &str, flags: &[&str]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_breakglass-mailer"))
        .args(["migrate-config", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may have refused a flag before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(config.as_bytes());
    let ended = child.wait_with_output().expect("it ends");
    Ended {
        code: ended.status.code().expect("no signal"),
        out: String::from_utf8(ended.stdout).expect("UTF-8"),
        err: String::from_utf8(ended.stderr).expect("UTF-8"),
    }
}

fn printed(config: &str) -> String {
    let ended = migrate(config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    ended.out
}

/// What it says when it prints nothing.
fn refused(config: &str) -> String {
    let ended = migrate(config, &[]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    ended.err
}

/// The one provider of `manifests`, as `serve --providers` reads it.
fn provider(manifests: &str) -> Provider {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("providers.yaml");
    std::fs::write(&path, manifests).expect("written");
    let source = Source { path, namespace: "default".into(), secret_namespaces: vec![] };
    let loaded = load(&source).unwrap_or_else(|error| panic!("{error}\n{manifests}"));
    let provider = loaded.catalog.providers.into_values().next().expect("a provider");
    Provider::clone(&provider)
}

fn password(provider: &Provider) -> Option<String> {
    match &provider.smtp.credentials.as_ref()?.login {
        Login::Password(Password::Loaded(password)) => Some(password.expose_secret().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// All documents of `text`, read by somebody else's parser, where there is one.
fn read_by_python(text: &str) -> Option<Value> {
    const PROGRAM: &str =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin.buffer))))";
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It has gone already where it lacks the parser.
    let _ = child.stdin.take().expect("a pipe").write_all(text.as_bytes());
    let ended = child.wait_with_output().ok()?;
    if !ended.status.success() {
        let has_parser = Command::new("python3").args(["-c", "import yaml"]).status();
        assert!(!has_parser.is_ok_and(|status| status.success()), "not YAML:\n{text}");
        return None;
    }
    Some(serde_json::from_slice(&ended.stdout).expect("JSON"))
}

const BEFORE: &str = "mail:
  host: smtp.example.com
  port: 587
  username: breakglass@example.com
  password: secret-password
  sender:
    address: noreply@example.com
    name: \"Breakglass\"
  retry:
    count: 3
    initialBackoffMs: 100
";
const AFTER: &str = include_str!("../../deploy/samples/migrated.yaml");

#[test]
fn the_example_of_the_reference_becomes_what_the_reference_says() {
    let ended = migrate(BEFORE, &[]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, AFTER, ""));
}

#[test]
fn the_flat_shape_of_the_old_controller_becomes_the_same() {
    let flat = "
server: {listenAddress: ':8080'}
mail:
  host: smtp.example.com
  port: 587
  user: breakglass@example.com
  password: secret-password
  senderAddress: noreply@example.com
  senderName: Breakglass
  retryCount: 3
  retryBackoffMs: 100
";
    assert_eq!(printed(flat), AFTER);
    let rest = printed(&format!("{flat}  insecureSkipVerify: true\n  queueSize: 500\n"));
    assert!(
        rest.contains("      key: password\n    insecureSkipVerify: true\n  sender:"),
        "{rest}"
    );
    assert!(rest.contains("    initialBackoffMs: 100\n    queueSize: 500\n---"), "{rest}");
}

#[test]
fn only_what_was_given_is_printed_and_the_names_can_be_chosen() {
    let config = "mail: {host: relay.internal, port: 25, senderAddress: a@example.com, user: ''}";
    let ended = migrate(config, &["--name", "null", "--secret-name", "unused"]);
    insta::assert_snapshot!(ended.out, @r#"
    apiVersion: breakglass.t-caas.telekom.com/v1alpha1
    kind: MailProvider
    metadata:
      name: "null"
    spec:
      default: true
      smtp:
        host: relay.internal
        port: 25
      sender:
        address: a@example.com
    "#);
    insta::assert_snapshot!(ended.err, @"warning: standard input:1: mail: No SMTP authentication configured");
    assert_eq!(migrate(config, &["--name", "No Name"]).code, 2);
}

#[test]
fn what_is_left_out_is_named_and_the_rest_of_the_config_is_not_looked_at() {
    let config =
        BEFORE.replace("  retry:\n    count: 3", "  retryCount: 0\n  tls: hunter2\n  retry:");
    let config =
        format!("keycloak: {{clientSecret: x}}\n{config}    jitter: 1\n  sender.name: x\n");
    let ended = migrate(&config, &[]);
    assert!(!ended.out.contains("count:"), "{}", ended.out);
    insta::assert_snapshot!(ended.err, @"
    warning: standard input:10: mail.retryCount: 0 meant the default, so it is left out
    warning: standard input:11: mail.tls: not known, so it is left out
    warning: standard input:14: mail.retry.jitter: not known, so it is left out
    warning: standard input:15: mail.sender.name: not known, so it is left out
    ");
}

#[test]
fn everything_wrong_is_named_with_its_line_and_nothing_is_printed() {
    let config = "mail:
  host: smtp.example.com:25
  port: 0
  user: ada
  username: grace
  senderAddress: nobody
  sender: {name: \"x\\ty\"}
  retry: {count: 11}
";
    insta::assert_snapshot!(refused(config), @r#"
    breakglass-mailer: standard input:1: mail.password: Required value: there is a username
    standard input:2: mail.host: Invalid value: "smtp.example.com:25": must be a DNS name or an IP address, without port, user or zone
    standard input:3: mail.port: Invalid value: 0: mail.port in body should be greater than or equal to 1
    standard input:4: mail.user: differs from mail.username on line 5: keep one of them
    standard input:6: mail.senderAddress: Invalid value: "nobody": mail.senderAddress in body should match '^[^@\s]+@([^@\s.]+(\.[^@\s.]+)+|localhost)$'
    standard input:7: mail.sender.name: Invalid value: "x\ty": must not contain control characters
    standard input:8: mail.retry.count: Invalid value: 11: mail.retry.count in body should be less than or equal to 10
    "#);
}

#[test]
fn what_is_missing_or_of_another_shape_is_said() {
    let said: String = [
        "",
        "frontend: {}\n---\nmail: {}",
        "frontend: {}",
        "mail:",
        "mail: smtp.example.com",
        "mail: {sender: ada}",
        "mail: {host: 1, port: '25', password: 271828, insecureSkipVerify: maybe, retryCount: [1]}",
        "mail: {host: h, port: 25, senderAddress: a@b.example, user: ada}",
        "mail: {host: h, port: 25, senderAddress: a@b.example, password: x}",
        "mail: {host: h, host: i",
    ]
    .map(refused)
    .concat();
    assert!(!said.contains("271828"), "{said}");
    insta::assert_snapshot!(said, @r#"
    breakglass-mailer: standard input:1: mail: Required value: the file is empty
    breakglass-mailer: standard input:3: a config.yaml is one document
    breakglass-mailer: standard input:1: mail: Required value: there is no mail section to migrate
    breakglass-mailer: standard input:1: mail: Required value: there is no mail section to migrate
    breakglass-mailer: standard input:1: mail: Invalid value: must be a mapping
    breakglass-mailer: standard input:1: mail.host: Required value
    standard input:1: mail.port: Required value
    standard input:1: mail.sender.address: Required value
    standard input:1: mail.sender: Invalid value: must be a mapping
    breakglass-mailer: standard input:1: mail.host: Invalid value: "integer": mail.host in body must be of type string: "integer"
    standard input:1: mail.insecureSkipVerify: Invalid value: "string": mail.insecureSkipVerify in body must be of type boolean: "string"
    standard input:1: mail.password: Invalid value: must be a string: put it in quotes
    standard input:1: mail.port: Invalid value: "string": mail.port in body must be of type integer: "string"
    standard input:1: mail.retryCount: Invalid value: "array": mail.retryCount in body must be of type integer: "array"
    standard input:1: mail.sender.address: Required value
    standard input:1: mail.username: Required value: there is a password
    breakglass-mailer: standard input:1: mail.password: Required value: there is a username
    breakglass-mailer: standard input:1: mail.username: Required value: there is a password
    breakglass-mailer: standard input:1: the key "host" is already on line 1
    standard input:2: not YAML: while parsing a flow mapping, did not find expected ',' or '}'
    "#);
}

#[test]
fn hostile_values_are_read_back_as_they_were() {
    let long = "long ".repeat(400);
    let passwords = [
        "it's \"quoted\" \\ back",
        "a: b",
        "# no comment",
        "  leading",
        "trailing ",
        "yes",
        "0123",
        "1e3",
        "null",
        "~",
        "-",
        "---",
        "...",
        "- a",
        "{a: b}",
        "[",
        "&a",
        "*a",
        "!!int 3",
        "%x",
        "@x",
        "`x`",
        "|",
        ">",
        "\r\ntwo\nlines",
        "\ttab",
        "пароль",
        "🔑é",
        "\u{0}\u{1b}\u{7f}",
        "\u{85}\u{2028}\u{feff}",
        "=",
        "<<",
        "0x1F",
        "1_000",
        "12:30:45",
        "2030-01-01",
        ".inf",
        "y",
        &long,
    ];
    let mut all = String::new();
    let mut wanted = Vec::new();
    for text in passwords {
        let name: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        let user = format!("u{name}");
        let mail = json!({"host": "10.0.0.1", "port": 25, "user": user, "password": text,
            "sender": {"address": "a@example.com", "name": name}});
        let manifests = printed(&json!({"mail": mail}).to_string());
        let provider = provider(&manifests);
        assert_eq!(password(&provider).as_deref(), Some(text));
        let username = provider.smtp.credentials.expect("a login").username;
        assert_eq!((username, provider.smtp.host), (user.clone(), "10.0.0.1".into()));
        assert_eq!(provider.sender.name, Some(name.clone()).filter(|name| !name.is_empty()));
        all += &format!("---\n{manifests}");
        wanted.push((text, user, name));
    }
    let with_line_break = json!({"mail": {"host": "10.0.0.1", "port": 25, "user": "ada",
        "password": "hunter2\n", "sender": {"address": "a@example.com"}}});
    let provider = provider(&printed(&with_line_break.to_string()));
    assert_eq!(password(&provider).as_deref(), Some("hunter2"), "it is not part of the password");
    let Some(read) = read_by_python(&all) else { return };
    for (index, (text, user, name)) in wanted.iter().enumerate() {
        let (provider, secret) = (&read[2 * index]["spec"], &read[2 * index + 1]);
        assert_eq!(secret["stringData"]["password"], *text);
        assert_eq!(provider["smtp"]["username"], *user);
        assert_eq!(provider["sender"]["name"].as_str().unwrap_or_default(), name);
    }
}

#[tokio::test]
async fn serve_takes_what_is_printed() {
    let home = Home::new(&[]);
    home.write(&printed(&BEFORE.replace("smtp.example.com", "127.0.0.1")));
    let app = home.start().await;
    let shown = app.provider_is("default-smtp", |_| true).await;
    let conditions = shown["conditions"].as_array().expect("conditions");
    let is_loaded = |c: &Value| c["type"] == "PasswordLoaded" && c["status"] == "True";
    assert!(conditions.iter().any(is_loaded), "{shown}");
    app.stop().await;
}
