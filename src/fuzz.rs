//! What holds for any bytes from outside: of a disk, a mail server, a caller, or a file.
//!
//! `tests/fuzz` searches for bytes that break it; the test below tries those that are kept there, on
//! any machine.

/// Takes any bytes, and panics when they break what it holds.
pub type Target = fn(&[u8]);

/// Every target and its name, which is also that of its folder in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 4] = [
    ("journal", crate::store::fuzz::segment),
    ("manifests", crate::manifests::fuzz::manifests),
    ("replies", crate::smtp::fuzz::replies),
    ("requests", requests),
];

/// Takes `bytes` as the body of a request, and makes the messages that it asks for.
fn requests(bytes: &[u8]) {
    let Some((recipients, content)) = crate::http::fuzz::request(bytes) else { return };
    for recipient in recipients {
        crate::smtp::fuzz::message(recipient, &content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn what_was_found_by_fuzzing_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let mut inputs_count = 0;
            for entry in fs::read_dir(corpus.join(name)).expect("the corpus of each target") {
                let path = entry.expect("an input").path();
                // Shown when it fails.
                println!("{}", path.display());
                target(&fs::read(path).expect("an input"));
                inputs_count += 1;
            }
            assert!(inputs_count > 0, "the corpus of {name} is empty");
        }
    }
}
