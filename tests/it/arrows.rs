//! Who may name whom: the sources against the arrows of the architecture.

use std::fs;
use std::path::{Path, PathBuf};

/// Each component and what it may name of ours, besides itself. `a::b` allows that path alone, `*` all.
const ARROWS: &[(&str, &[&str])] = &[
    ("app", &["*"]),
    ("cli", &["config", "core", "https", "k8s", "manifests", "store"]),
    ("clock", &["core"]),
    ("config", &["core"]),
    ("core", &[]),
    ("delivery", &["clock", "core", "metrics", "queue", "registry", "tracer"]),
    ("file_watch", &[]),
    ("fuzz", &["http", "manifests", "smtp", "store"]),
    ("http", &["clock", "core", "file_watch", "metrics", "queue", "registry", "tracer"]),
    ("https", &[]),
    ("k8s", &["clock", "core", "file_watch", "registry"]),
    ("main", &["app", "cli", "config", "telemetry"]),
    ("manifests", &["clock", "core", "file_watch", "k8s", "registry"]),
    ("metrics", &["core"]),
    ("migrations", &[]),
    ("oauth2", &["core", "https"]),
    ("queue", &["clock", "core"]),
    ("registry", &["clock", "core"]),
    ("smtp", &["core", "delivery::transport", "oauth2", "registry::same_server"]),
    ("store", &["core", "migrations", "queue"]),
    ("telemetry", &["config"]),
    ("tracer", &["core", "https"]),
];

/// The crates that only some components may name.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("axum", &["http"]),
    ("bincode", &["migrations", "store"]),
    ("k8s_openapi", &["k8s"]),
    ("kube", &["cli", "k8s"]),
    ("lettre", &["smtp"]),
    ("opentelemetry", &["tracer"]),
    ("opentelemetry_http", &["tracer"]),
    ("opentelemetry_otlp", &["tracer"]),
    ("opentelemetry_sdk", &["tracer"]),
    ("sled", &["migrations", "store"]),
    ("ureq", &["cli", "config", "https", "oauth2", "tracer"]),
];

#[test]
fn every_component_names_only_what_its_arrows_allow() {
    let mut wrong = Vec::new();
    for (component, file, source) in sources() {
        if component == "lib" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == component) else {
            wrong.push(format!("{}: {component} is not in the table", file.display()));
            continue;
        };
        let root = ["crate", "breakglass_mailer"];
        for path in root.iter().flat_map(|root| paths_below(&source, root)) {
            let is_below = |allowed: &&str| {
                path.strip_prefix(*allowed)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            let fine = is_below(&&*component) || allowed.contains(&"*");
            if !fine && !allowed.iter().any(is_below) {
                wrong.push(format!("{}: {component} may not name {path}", file.display()));
            }
        }
        for (outside, homes) in OUTSIDE {
            if !homes.contains(&&*component) && !paths_below(&source, outside).is_empty() {
                wrong.push(format!("{}: {component} may not name {outside}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} arrows point the wrong way:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_tree_of_uses_is_read_as_its_paths() {
    let source = "use crate::{a, b::{self, c as d}, e::*};\n// crate::no\nlet x = crate::f::g(1);";
    let found = paths_below(&without_comments(source), "crate");
    assert_eq!(found, ["a", "b::self", "b::c", "e::*", "f::g"]);
    assert!(paths_below("mycrate::x", "crate").is_empty());
}

/// Every source file: its component, its path, and its text without comments.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut left = vec![root.join("src"), root.join("migrations")];
    while let Some(folder) = left.pop() {
        // There is no migrations/ before the first schema.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("read a folder").path()) {
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let path_below = path.strip_prefix(root).expect("below the root");
                let source = fs::read_to_string(&path).expect("read a source file");
                files.push((component(path_below), path_below.into(), without_comments(&source)));
            }
        }
    }
    assert!(!files.is_empty(), "no sources below {}", root.display());
    files
}

/// The name of the folder or file below `src`, or `migrations`.
fn component(path: &Path) -> String {
    let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    let top = parts.next().unwrap_or_default();
    if top == "src" {
        parts.next().unwrap_or_default().trim_end_matches(".rs").to_owned()
    } else {
        top
    }
}

fn without_comments(source: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    source.lines().map(code).collect()
}

/// All paths in `source` that begin with `root::`, without it, with groups written out.
fn paths_below(source: &str, root: &str) -> Vec<String> {
    let start = format!("{root}::");
    let begins = source.match_indices(&start).filter(|(at, _)| {
        !source[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    });
    begins
        .flat_map(|(at, _)| {
            let mut paths = Vec::new();
            expand("", &mut &source[at + start.len()..], &mut paths);
            paths
        })
        .collect()
}

/// Reads one tree of a `use` off the front of `rest`.
fn expand(prefix: &str, rest: &mut &str, paths: &mut Vec<String>) {
    *rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        *rest = group;
        loop {
            *rest = rest.trim_start_matches([',', ' ', '\n']);
            match rest.strip_prefix('}') {
                Some(behind) => return *rest = behind,
                None if rest.is_empty() => return,
                None => expand(prefix, rest, paths),
            }
        }
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
    let (name, behind) = rest.split_at(word.unwrap_or(rest.len()));
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    *rest = behind;
    match behind.strip_prefix("::") {
        Some(deeper) => {
            *rest = deeper;
            expand(&path, rest, paths);
        }
        None => {
            paths.push(path);
            // The rest is an alias, or not of the path any more.
            let end = rest.find([',', '}', ';', '(']).unwrap_or(rest.len());
            *rest = &rest[end..];
        }
    }
}
