use super::*;
use proptest::prelude::*;
use serde_json::json;

fn values(text: &str) -> Vec<Value> {
    let parsed = parse(text);
    assert_eq!(parsed.errors, [], "{text}");
    parsed.documents.iter().map(|node| node.to_value()).collect()
}

fn errors(text: &str) -> Vec<(usize, String)> {
    parse(text).errors
}

#[test]
fn yaml_and_json_become_the_same_values() {
    let value = json!({"a": 1, "b": [true, null, "x", 0.5], "c": {"d": "01"}});
    let json = serde_json::to_string_pretty(&value).expect("it is JSON");
    let yaml = "a: 1\nb: [true, ~, x, .5]\nc:\n  d: \"01\" # a comment\n";
    for text in [yaml, &json, &yaml.replace('\n', "\r\n"), &format!("\u{feff}{yaml}")] {
        assert_eq!(values(text), std::slice::from_ref(&value), "{text:?}");
    }
}

#[test]
fn empty_documents_and_comments_are_no_documents() {
    assert_eq!(values(""), [Value::Null; 0]);
    assert_eq!(values("# nothing\n---\n---\n# nothing\n---\na: 1\n---\n"), [json!({"a": 1})]);
}

#[test]
fn a_line_is_found_by_path_and_a_missing_field_is_at_its_parent() {
    let parsed = parse("# first\nspec:\n  smtp:\n    port: 1\n  mails:\n  - a\n  - b\n  x.y: 1\n");
    let root = &parsed.documents[0];
    for (path, line) in [
        ("spec.smtp.port", 4),
        ("spec.smtp.host", 3),
        ("spec.sender.name", 2),
        ("spec.mails[1]", 7),
        ("spec.mails[7]", 5),
        ("spec.x.y", 8),
        ("metadata.name", 2),
        ("", 2),
    ] {
        assert_eq!(root.line_of(path), line, "{path}");
    }
}

#[test]
fn an_error_of_syntax_names_its_line_and_earlier_documents_stay() {
    let parsed = parse("a: 1\n---\nb: [1, 2\n---\nc: 3\n");
    assert_eq!(parsed.documents.len(), 1);
    assert_eq!(parsed.errors.len(), 1);
    assert!(parsed.errors[0].1.starts_with("not YAML: "), "{:?}", parsed.errors);
    assert_eq!(errors("a: 1\nb: }\n")[0].0, 2);
}

#[test]
fn a_key_is_written_once_and_is_a_string() {
    assert_eq!(
        errors("a: 1\nb:\n  c: hunter2\n  c: hunter3\na: 2\n"),
        [
            (4, "the key \"c\" is already on line 3".to_owned()),
            (5, "the key \"a\" is already on line 1".to_owned()),
        ]
    );
    assert_eq!(errors("1: a\n"), [(1, "a key must be a string".to_owned())]);
    assert_eq!(errors("? [a]\n: b\n"), [(1, "a key must be a string".to_owned())]);
}

#[test]
fn an_alias_stands_for_its_anchor_of_the_same_document() {
    assert_eq!(values("a: &x [1]\nb: *x\n"), [json!({"a": [1], "b": [1]})]);
    assert_eq!(errors("a: &x [*x]\n").len(), 1);
    assert_eq!(errors("a: &x 1\n---\nb: *x\n").len(), 1);
    assert_eq!(errors("a: &x {b: 1}\nc:\n  <<: *x\n")[0].0, 3);
}

#[test]
fn aliases_that_multiply_are_refused_before_they_take_memory() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    assert!(errors(&bomb)[0].1.contains("aliases expand"), "{:?}", errors(&bomb));
    let text = "x".repeat(1 << 20);
    let bomb = format!("a: &a {text}\nb: [{}]\n", ["*a"; 20].join(", "));
    assert_eq!(errors(&bomb).len(), 1);
}

#[test]
fn depth_is_bounded_also_through_aliases() {
    assert!(errors(&"- ".repeat(200_000))[0].1.contains("levels deep"));
    assert!(errors(&"[".repeat(100))[0].1.contains("levels deep"));
    let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(40), "]".repeat(40));
    let text = format!("a: &a {}\nb: {}\n", nest("x"), nest("*a"));
    assert_eq!(errors(&text), [(2, "nested more than 64 levels deep".to_owned())]);
}

#[test]
fn a_tag_that_is_not_known_is_refused_and_a_known_one_is_followed() {
    assert_eq!(values("a: !!str 587\n"), [json!({"a": "587"})]);
    assert_eq!(errors("a: !Ref x\n").len(), 1);
    assert_eq!(errors("a: !!int hunter2\n").len(), 1);
    assert_eq!(errors("a: .nan\n").len(), 1);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        text in "[ \\n\\t\\r:,\\[\\]{}&*!|>'\"%@`#?a0~<.\\\\-]{0,60}",
    ) {
        let parsed = parse(&text);
        for root in parsed.documents {
            root.to_value();
            prop_assert!(root.line_of("a.b[0]") >= 1);
        }
    }
}
