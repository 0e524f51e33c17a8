//! Secrets from files: where a `passwordRef` leads in standalone mode.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::core::provider::Password;
use crate::k8s::field::FieldError;
use crate::k8s::schema::{self, UnknownFields};

/// The fields of a Secret that are read; its `type` and labels say nothing about a password.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// All Secrets, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Secrets(BTreeMap<(String, String), BTreeMap<String, SecretString>>);

impl Secrets {
    /// Takes one Secret in; a later one of the same name replaces it. No error shows a value.
    pub(super) fn add(
        &mut self,
        namespace: &str,
        name: &str,
        manifest: &Value,
    ) -> Result<(), Vec<FieldError>> {
        let read = schema::read::<Fields>(manifest, "", UnknownFields::Ignored);
        let (Some(fields), true) = (read.value, read.errors.is_empty()) else {
            return Err(read.errors);
        };
        let mut errors = Vec::new();
        let mut values = BTreeMap::new();
        for (key, text) in fields.data {
            // Line breaks are allowed, as in Go, which makes folded YAML text work.
            let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            match STANDARD.decode(text) {
                // What is not text can't be a password, so it counts as missing.
                Ok(bytes) => values.extend(String::from_utf8(bytes).ok().map(|text| (key, text))),
                Err(_) => {
                    let path = schema::join("data", &key);
                    errors.push(FieldError::invalid_hidden(&path, "must be base64"));
                }
            }
        }
        values.extend(fields.string_data);
        if !errors.is_empty() {
            return Err(errors);
        }
        let values = values.into_iter().map(|(key, text)| (key, text.into())).collect();
        self.0.insert((namespace.to_owned(), name.to_owned()), values);
        Ok(())
    }

    /// What a `passwordRef` leads to. An empty value is a missing key.
    pub(super) fn password(&self, namespace: &str, name: &str, key: &str) -> Password {
        let full_name = format!("{namespace}/{name}");
        let Some(values) = self.0.get(&(namespace.to_owned(), name.to_owned())) else {
            return Password::SecretNotFound(full_name);
        };
        let value = values.get(key).map(ExposeSecret::expose_secret);
        Password::of(value.unwrap_or_default(), &full_name, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(manifest: &Value, key: &str) -> Option<String> {
        let mut secrets = Secrets::default();
        secrets.add("default", "smtp", manifest).expect("it is valid");
        match secrets.password("default", "smtp", key) {
            Password::Loaded(password) => Some(password.expose_secret().to_owned()),
            Password::KeyNotFound(name, _) => {
                assert_eq!(name, "default/smtp");
                None
            }
            Password::SecretNotFound(name) | Password::SecretUnreadable(name) => {
                panic!("{name} was added")
            }
        }
    }

    #[test]
    fn string_data_wins_over_data() {
        let both = json!({"data": {"a": "b25l", "b": "dHdv\n"}, "stringData": {"a": "three"}});
        assert_eq!(found(&both, "a").as_deref(), Some("three"));
        assert_eq!(found(&both, "b").as_deref(), Some("two"));
    }

    #[test]
    fn an_empty_null_or_binary_value_is_a_missing_key() {
        let secret = json!({"data": {"a": "", "b": "//79"}, "stringData": {"c": null, "d": ""}});
        for key in ["a", "b", "c", "d", "e"] {
            assert_eq!(found(&secret, key), None, "{key}");
        }
    }

    #[test]
    fn a_line_break_at_the_end_of_a_value_is_not_part_of_the_password() {
        let secret = json!({"stringData": {"a": "hunter2\n", "b": " hunter\n2 \r\n", "c": "\n"}});
        assert_eq!(found(&secret, "a").as_deref(), Some("hunter2"));
        assert_eq!(found(&secret, "b").as_deref(), Some(" hunter\n2 "));
        assert_eq!(found(&secret, "c"), None);
    }

    #[test]
    fn a_secret_is_looked_up_in_its_namespace() {
        let mut secrets = Secrets::default();
        secrets.add("mail", "smtp", &json!({"stringData": {"password": "x"}})).expect("valid");
        assert!(matches!(secrets.password("mail", "smtp", "password"), Password::Loaded(_)));
        let missing = secrets.password("default", "smtp", "password");
        assert!(matches!(missing, Password::SecretNotFound(name) if name == "default/smtp"));
    }

    #[test]
    fn an_error_never_shows_a_value() {
        let secret = json!({"data": {"a": "hunter2!"}, "stringData": {"b": 1234567}});
        let mut texts = String::new();
        for part in ["data", "stringData"] {
            let manifest = json!({part: secret[part]});
            let errors = Secrets::default().add("default", "smtp", &manifest).expect_err("bad");
            texts += &errors.iter().map(|error| format!("{error}\n")).collect::<String>();
        }
        insta::assert_snapshot!(texts, @r#"
        data.a: Invalid value: must be base64
        stringData.b: Invalid value: "integer": stringData.b in body must be of type string: "integer"
        "#);
    }
}
