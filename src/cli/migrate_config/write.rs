//! Writes a manifest as YAML that every reader of YAML 1.1 or 1.2 takes for the same values.

use std::fmt::Write;

use serde_json::Value;

/// The reference puts this one in quotes even where it needs none.
const ALWAYS_QUOTED: &str = "spec.sender.name";

/// One document: each field by its path, as `spec.smtp.host`. Fields of one parent stand together.
pub(super) fn document(fields: &[(&str, Value)]) -> String {
    let mut out = String::new();
    let mut before: Vec<&str> = Vec::new();
    for (path, value) in fields {
        let names: Vec<&str> = path.split('.').collect();
        let same = names.iter().zip(&before).take_while(|(name, before)| name == before).count();
        for (depth, name) in names.iter().enumerate().skip(same) {
            let end = if depth + 1 < names.len() { "\n" } else { " " };
            let _ = write!(out, "{:indent$}{name}:{end}", "", indent = 2 * depth);
        }
        let _ = writeln!(out, "{}", scalar(value, *path == ALWAYS_QUOTED));
        before = names;
    }
    out
}

fn scalar(value: &Value, is_quoted: bool) -> String {
    match value {
        Value::String(text) if is_quoted || !is_plain(text) => quoted(text),
        Value::String(text) => text.clone(),
        // Numbers and booleans are the same in JSON.
        other => other.to_string(),
    }
}

/// Whether `text` means itself without quotes, to readers of YAML 1.1 too.
fn is_plain(text: &str) -> bool {
    const OTHER_THAN_TEXT: [&str; 9] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_word = |word: &&str| word.eq_ignore_ascii_case(text);
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._@/+-".contains(c))
        && !OTHER_THAN_TEXT.iter().any(is_word)
}

/// `text` in double quotes, in one line, with everything that might not be printable escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            ' '..='~' => out.push(c),
            _ if !c.is_ascii() && c.is_alphanumeric() => out.push(c),
            _ => drop(write!(out, "\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::yaml::parse;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_parent_is_named_once() {
        let fields = [("a.b.c", json!(1)), ("a.b.d", json!(true)), ("a.e", json!("x"))];
        assert_eq!(document(&fields), "a:\n  b:\n    c: 1\n    d: true\n  e: x\n");
    }

    #[test]
    fn only_what_means_itself_everywhere_stands_without_quotes() {
        for plain in ["smtp.example.com", "a@b.example", "secret-password", "v1", "a/b"] {
            assert_eq!(scalar(&json!(plain), false), plain);
        }
        for text in
            ["yes", "Null", "~", "0123", "1e3", "-", "", " a", "a ", "a: b", "a#", "=", ".nan"]
        {
            assert_eq!(scalar(&json!(text), false), format!("\"{text}\""));
        }
        assert_eq!(
            scalar(&json!("a\"\\\n\t\0ü🔑"), false),
            r#""a\"\\\n\U00000009\U00000000ü\U0001F511""#
        );
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_it_was(text in any::<String>()) {
            let parsed = parse(&document(&[("a.b", json!(text))]));
            prop_assert_eq!(&parsed.errors, &[]);
            prop_assert_eq!(parsed.documents[0].to_value(), json!({"a": {"b": text}}));
        }
    }
}
