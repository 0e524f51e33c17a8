//! Listens for canaries: in any case, and in the encodings that text passes through on its way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{LISTED, PASSWORD, ROTATED, SECRETS, USERNAME};

/// What must keep its secrets, and where each piece of it is from.
#[derive(Default)]
pub(super) struct Shown {
    /// Logs, metrics, errors and the like.
    strict: Vec<(String, String)>,
    /// Where a person looks for a notification.
    pub(super) lists: Vec<(String, String)>,
}

impl Shown {
    pub(super) fn strict(&mut self, from: &str, text: String) {
        self.strict.push((from.to_owned(), text));
    }

    /// # Panics
    /// When a canary is in it.
    pub(super) fn check(&self) {
        let mut found = Vec::new();
        let everything = [SECRETS.as_slice(), LISTED.as_slice()].concat();
        for (texts, canaries) in [(&self.strict, &everything[..]), (&self.lists, &SECRETS[..])] {
            for (from, text) in texts {
                for line in text.lines() {
                    let names = canaries.iter().filter(|canary| sings(line, canary));
                    found.extend(names.map(|canary| format!("{canary} in {from}: {line}")));
                }
            }
        }
        found.sort();
        found.dedup();
        assert!(found.is_empty(), "{} canaries sing:\n{}", found.len(), found.join("\n"));
    }
}

/// Whether `line` holds `canary`, plain in any case or in an encoding.
fn sings(line: &str, canary: &str) -> bool {
    let folded = line.to_ascii_lowercase();
    let each = |form: fn(u8) -> String, between: &str| {
        canary.bytes().map(form).collect::<Vec<_>>().join(between)
    };
    let forms = [
        canary.to_owned(),
        each(|byte| format!("{byte:02x}"), ""),
        each(|byte| format!("%{byte:02x}"), ""),
        each(|byte| format!("={byte:02x}"), ""),
        each(|byte| format!("+{byte:02x}"), ""),
        // A list of bytes, as `Debug` shows it.
        each(|byte| byte.to_string(), ", "),
    ];
    forms.iter().any(|form| folded.contains(form)) || is_in_base64(line, canary)
}

/// Whether `line` holds `canary` within something in base64, wherever it begins there.
pub(super) fn is_in_base64(line: &str, canary: &str) -> bool {
    (0..3).any(|shift| {
        let encoded = STANDARD.encode([vec![0; shift], canary.into()].concat());
        // Only those characters that no neighbour has a share in.
        let (begin, end) = ((shift * 8).div_ceil(6), (shift + canary.len()) * 8 / 6);
        line.contains(&encoded[begin..end])
    })
}

#[test]
fn a_canary_is_heard_in_every_encoding() {
    let inside = STANDARD.encode(format!("\0{USERNAME}\0{PASSWORD}"));
    for line in [
        "x CanaryPasswordOne x",
        "63616e61727970617373776f72646f6e65",
        "%63%61%6E%61%72%79%70%61%73%73%77%6F%72%64%6F%6E%65",
        "[99, 97, 110, 97, 114, 121, 112, 97, 115, 115, 119, 111, 114, 100, 111, 110, 101]",
        &format!("AUTH PLAIN {inside}"),
    ] {
        assert!(sings(line, PASSWORD), "{line}");
        assert!(!sings(line, ROTATED), "{line}");
    }
}
