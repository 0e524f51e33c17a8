//! `migrate-config`: the `mail:` section of an old config.yaml as a MailProvider and its Secret.
//!
//! Two shapes are read: the reference's, and the flat one of the breakglass controller before it
//! (`user`, `senderAddress`, `retryCount`). All or nothing is printed, and what is printed was read
//! back by the same code as `serve --providers`. The password is in the printed Secret alone, never
//! in an error or a warning.

mod fields;
mod write;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use fields::{FIELDS, Field, PASSWORD, USERNAME, ZERO_IS_NOTHING};

use crate::config::MigrateConfig;
use crate::core::provider::{Login, Password};
use crate::k8s::convert::{self, SecretNamespaces};
use crate::k8s::crd::API_VERSION;
use crate::k8s::field::FieldError;
use crate::k8s::schema::{UnknownFields, join};
use crate::manifests::yaml::{self, Node};
use crate::manifests::{self, Source};

/// Prints the manifests to standard output, and warnings to standard error.
///
/// # Errors
/// When anything is wrong with the file; all of it is named, each with line and rule.
pub fn run(command: &MigrateConfig) -> anyhow::Result<()> {
    let (file, text) = if command.file == Path::new("-") {
        ("standard input".to_owned(), manifests::read_bounded(io::stdin()))
    } else {
        let text = File::open(&command.file).and_then(manifests::read_bounded);
        (command.file.display().to_string(), text)
    };
    let text = text.with_context(|| format!("{file} cannot be read"))?;
    let migrated = migrate(&text, &command.name, &command.secret_name).map_err(|notes| {
        let lines: Vec<_> = notes.into_iter().map(|note| note.of(&file)).collect();
        anyhow::Error::msg(lines.join("\n"))
    })?;
    check(&migrated)?;
    for warning in &migrated.warnings {
        eprintln!("warning: {}", warning.of(&file));
    }
    io::stdout().write_all(migrated.manifests.as_bytes()).context("cannot write the manifests")
}

struct Migrated {
    manifests: String,
    warnings: Vec<Note>,
    password: Option<String>,
}

/// What is to be said of a line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    line: usize,
    text: String,
}

impl Note {
    fn of(&self, file: &str) -> String {
        format!("{file}:{}: {}", self.line, self.text)
    }
}

fn migrate(text: &str, name: &str, secret_name: &str) -> Result<Migrated, Vec<Note>> {
    let parsed = yaml::parse(text);
    if !parsed.errors.is_empty() {
        let note = |(line, text)| Note { line, text };
        return Err(parsed.errors.into_iter().map(note).collect());
    }
    let refuse = |line, text: &str| Err(vec![Note { line, text: text.to_owned() }]);
    let root = match &parsed.documents[..] {
        [] => return refuse(1, "mail: Required value: the file is empty"),
        [root] => root,
        [_, second, ..] => return refuse(second.line, "a config.yaml is one document"),
    };
    let mail = root.fields().into_iter().flatten().find(|(name, ..)| *name == "mail");
    let Some((_, _, mail)) = mail.filter(|(.., mail)| !mail.to_value().is_null()) else {
        let line = root.line_of("mail");
        return refuse(line, "mail: Required value: there is no mail section to migrate");
    };
    let mut config = OldConfig {
        root,
        value: root.to_value(),
        names: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut provider = vec![
        ("apiVersion", json!(API_VERSION)),
        ("kind", json!("MailProvider")),
        ("metadata.name", json!(name)),
        ("spec.default", json!(true)),
    ];
    let password = config.password();
    for field in &FIELDS {
        let Some(value) = config.take(field) else { continue };
        provider.push((field.path, value));
        if field.path == USERNAME && password.is_some() {
            provider.push(("spec.smtp.passwordRef.name", json!(secret_name)));
            provider.push(("spec.smtp.passwordRef.key", json!("password")));
        }
    }
    config.check_names("mail", mail);
    if mail.fields().is_some() {
        config.check_values(name, &provider, password.is_some());
    }
    let OldConfig { mut problems, mut warnings, .. } = config;
    if !problems.is_empty() {
        problems.sort();
        return Err(problems);
    }
    warnings.sort();
    let mut manifests = write::document(&provider);
    if let Some(password) = &password {
        manifests += "---\n";
        manifests += &write::document(&[
            ("apiVersion", json!("v1")),
            ("kind", json!("Secret")),
            ("metadata.name", json!(secret_name)),
            ("type", json!("Opaque")),
            ("stringData.password", json!(password)),
        ]);
    }
    Ok(Migrated { manifests, warnings, password })
}

struct OldConfig<'a> {
    root: &'a Node,
    value: Value,
    /// The fields that were given, and under which name.
    names: Vec<(&'static str, &'static str)>,
    problems: Vec<Note>,
    warnings: Vec<Note>,
}

impl OldConfig<'_> {
    fn note(&self, path: &str, text: &str) -> Note {
        Note { line: self.root.line_of(path), text: format!("{path}: {text}") }
    }

    /// The value of a field, under whichever of its names. What is empty is not given: the
    /// controller could not tell the two apart.
    fn take(&mut self, field: &Field) -> Option<Value> {
        let mut found: Option<(&str, Value)> = None;
        for old in field.old {
            let given = self.value.pointer(&format!("/{}", old.replace('.', "/"))).cloned();
            let Some(value) = given.filter(|value| !value.is_null() && value != "") else {
                continue;
            };
            if value == 0 && ZERO_IS_NOTHING.contains(old) {
                let text = "0 meant the default, so it is left out";
                self.warnings.push(self.note(old, text));
                continue;
            }
            match &found {
                Some((first, earlier)) if *earlier != value => {
                    let line = self.root.line_of(first);
                    let text = format!("differs from {first} on line {line}: keep one of them");
                    self.problems.push(self.note(old, &text));
                }
                Some(_) => {}
                None => {
                    self.names.push((field.path, old));
                    found = Some((old, value));
                }
            }
        }
        found.map(|(_, value)| value)
    }

    fn password(&mut self) -> Option<String> {
        match self.take(&PASSWORD)? {
            Value::String(password) => Some(Password::text_of(&password).to_owned())
                .filter(|password| !password.is_empty()),
            _ => {
                let text = "Invalid value: must be a string: put it in quotes";
                self.problems.push(self.note("mail.password", text));
                // So that nobody is told that there is none.
                Some(String::new())
            }
        }
    }

    /// Warns of what is left out below `parent`.
    fn check_names(&mut self, parent: &str, node: &Node) {
        let Some(fields) = node.fields() else {
            if !node.to_value().is_null() {
                self.problems.push(self.note(parent, "Invalid value: must be a mapping"));
            }
            return;
        };
        for (name, line, node) in fields {
            let path = join(parent, name);
            let inner = format!("{path}.");
            let mut known = FIELDS.iter().chain([&PASSWORD]).flat_map(|field| field.old);
            // A name with a dot in it is no path.
            let is_name = !name.contains('.');
            if is_name && known.clone().any(|old| old.starts_with(&inner)) {
                self.check_names(&path, node);
            } else if !is_name || !known.any(|old| *old == path) {
                let text = format!("{path}: not known, so it is left out");
                self.warnings.push(Note { line, text });
            }
        }
    }

    /// Holds the new fields against the rules of a MailProvider.
    fn check_values(&mut self, name: &str, provider: &[(&str, Value)], has_password: bool) {
        let mut manifest = json!({"spec": {"smtp": {}, "sender": {}}});
        for (path, value) in provider {
            let mut parent = &mut manifest;
            for name in path.split('.') {
                parent = &mut parent[name];
            }
            *parent = value.clone();
        }
        let mut errors = Vec::new();
        let has_username = provider.iter().any(|(path, _)| *path == USERNAME);
        match (has_username, has_password) {
            (true, false) => {
                errors.push(FieldError::required(PASSWORD.path, "there is a username"))
            }
            (false, true) => errors.push(FieldError::required(USERNAME, "there is a password")),
            (true, true) | (false, false) => {}
        }
        if has_username {
            manifest["spec"]["smtp"]["passwordRef"] = json!({"name": name});
        }
        let namespaces = SecretNamespaces { own: "default", allowed: &[] };
        let password = |_: &str, _: &str, _: &str| Password::Loaded("any".into());
        match convert::mail_provider(
            name,
            &manifest["spec"],
            UnknownFields::Refused,
            namespaces,
            &password,
        ) {
            Ok(converted) => {
                for text in converted.warnings {
                    let path = text.split(": ").next().unwrap_or_default();
                    self.warnings.push(self.renamed(path, &text));
                }
            }
            Err(mut more) => {
                more.retain(|error| errors.iter().all(|told| told.path != error.path));
                errors.extend(more);
            }
        }
        for error in errors {
            self.problems.push(self.renamed(&error.path, &error.message));
        }
    }

    /// What is said of the new field at `path`, said of the old one.
    fn renamed(&self, path: &str, text: &str) -> Note {
        let given = self.names.iter().find(|(new, _)| *new == path).map(|(_, old)| *old);
        let mut fields = FIELDS.iter().chain([&PASSWORD]);
        let usual = || fields.find(|field| field.path == path).map(|field| field.old[0]);
        let old = given.or_else(usual).unwrap_or("mail");
        Note { line: self.root.line_of(old), text: text.replace(path, old) }
    }
}

/// Reads the manifests as `serve` would.
fn check(migrated: &Migrated) -> anyhow::Result<()> {
    let source = Source {
        path: "the manifests".into(),
        namespace: "default".to_owned(),
        secret_namespaces: vec![],
    };
    let loaded = manifests::load_text(&source, migrated.manifests.clone())
        .context("the manifests would be refused, so they are not printed: this is a bug")?;
    let provider = loaded.catalog.providers.values().next();
    let credentials = provider.and_then(|provider| provider.smtp.credentials.as_ref());
    let read = credentials.and_then(|credentials| match &credentials.login {
        Login::Password(password) => Some(password.loaded()?.expose_secret()),
        Login::OAuth2(_) => None,
    });
    if provider.is_none() || read != migrated.password.as_deref() {
        bail!("the manifests would be misread, so they are not printed: this is a bug");
    }
    Ok(())
}
