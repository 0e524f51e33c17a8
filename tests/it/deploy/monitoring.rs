//! The dashboard and the alerts, held against the metrics that the program registers.

use std::collections::BTreeMap;
use std::process::Command;

use regex_lite::Regex;

use super::{deploy, read, run};
use crate::support::need;

/// The metrics that the program registers, with their labels.
fn registered() -> BTreeMap<String, Vec<String>> {
    let source = include_str!("../../../src/metrics.rs");
    let declared = Regex::new(r#"=\s+"(breakglass_\w+)" \[([^\]]*)\]"#).expect("a pattern");
    let labels =
        |list: &str| list.split(", ").map(|label| label.trim_matches('"').into()).collect();
    declared.captures_iter(source).map(|found| (found[1].to_owned(), labels(&found[2]))).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_and_labels_that_there_are() {
    let registered = registered();
    assert!(20 < registered.len(), "{registered:?}");
    let used =
        Regex::new(r"(breakglass_mail(?:er|provider)_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    let label = Regex::new(r"(\w+)\s*(?:=~|!~|!=|=)").expect("a pattern");
    let scraped = ["namespace", "pod", "le"];
    for file in [
        "dashboards/breakglass-mailer.json",
        "alerts/breakglass-mailer.yaml",
        "alerts/breakglass-mailer.test.yaml",
    ] {
        let text = read(file);
        let mut uses_count = 0;
        for found in used.captures_iter(&text) {
            let name = &found[1];
            let of_histogram = ["_bucket", "_sum", "_count"];
            let family = of_histogram.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let Some(labels) = registered.get(family) else { panic!("{file}: no metric {name}") };
            for found in label.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
                let is_known =
                    scraped.contains(&&found[1]) || labels.iter().any(|l| *l == found[1]);
                assert!(is_known, "{file}: {name} has no label {}", &found[1]);
            }
            uses_count += 1;
        }
        assert!(5 < uses_count, "{file} uses metrics");
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    if !need("promtool") {
        return;
    }
    for (what, file) in
        [("check", "breakglass-mailer.yaml"), ("test", "breakglass-mailer.test.yaml")]
    {
        let mut promtool = Command::new("/usr/bin/promtool");
        run(promtool.current_dir(deploy("alerts")).args([what, "rules", file])).expect(file);
    }
}
