//! The manual: a page for each command, as `man` and `mandoc` want them, where a reader looks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use breakglass_mailer::config::Cli;
use clap::CommandFactory;

use crate::support::cli::Shell;
use crate::support::need;

/// The names of all commands, as their pages are called.
fn commands() -> BTreeSet<String> {
    let mut left = vec![(String::new(), Cli::command())];
    let mut names = BTreeSet::new();
    while let Some((above, command)) = left.pop() {
        let name = format!("{above}{}", command.get_name());
        left.extend(command.get_subcommands().map(|sub| (format!("{name}-"), sub.clone())));
        names.insert(name);
    }
    names
}

async fn pages(folder: &Path) -> BTreeSet<String> {
    let path = folder.to_str().expect("UTF-8");
    let ran = Shell::default().run(&["man", "--output-dir", path]).await.ended(0);
    assert!(ran.out.is_empty() && ran.err.is_empty(), "{ran:?}");
    let files = fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file"));
    files.map(|file| file.file_name().into_string().expect("UTF-8")).collect()
}

/// A page as its reader sees it.
fn shown(page: &Path) -> String {
    let ran = Command::new("mandoc").args(["-Tascii", "-Owidth=100"]).arg(page).output();
    let text = String::from_utf8(ran.expect("run mandoc").stdout).expect("ASCII");
    // Bold and underlined letters are overstruck.
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '\u{8}' => plain.truncate(plain.len().saturating_sub(1)),
            letter => plain.push(letter),
        }
    }
    plain
}

fn headings(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

#[tokio::test]
async fn every_command_has_a_page_that_everybody_may_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("man1");
    let expected = commands().into_iter().map(|name| format!("{name}.1")).collect();
    assert_eq!(pages(&folder).await, expected);
    let mode = fs::metadata(folder.join("breakglass-mailer.1")).expect("a page").permissions();
    let other = fs::metadata(env!("CARGO_BIN_EXE_breakglass-mailer")).expect("it").permissions();
    assert_eq!(mode.mode() & 0o004, other.mode() & 0o004, "the umask of the caller counts");
}

#[tokio::test]
async fn mandoc_has_no_complaint() {
    if !need("mandoc") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for page in pages(folder.path()).await {
        let mut mandoc = Command::new("mandoc");
        mandoc.args(["-Tlint", "-Wwarning"]).arg(folder.path().join(&page));
        let told = String::from_utf8(mandoc.output().expect("run mandoc").stdout).expect("UTF-8");
        assert_eq!(told, "", "{page}");
    }
}

#[tokio::test]
async fn variables_exit_codes_and_files_are_where_a_reader_looks() {
    if !need("mandoc") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    pages(folder.path()).await;
    let page = |name: &str| shown(&folder.path().join(format!("{name}.1")));

    let main = page("breakglass-mailer");
    let of_main = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS"];
    assert!(headings(&main).windows(5).any(|some| some == of_main), "{main}");
    let then = ["EXIT STATUS", "ENVIRONMENT", "FILES"];
    assert!(headings(&main).windows(3).any(|some| some == then), "{main}");
    for line in ["BREAKGLASS_MAILER_MAX_AGE", "SSL_CERT_FILE", "breakglass-mailer-notify(1)"] {
        assert!(main.contains(line), "{line}: {main}");
    }

    let retry = page("breakglass-mailer-deadletters-retry");
    assert!(retry.contains("\nSEE ALSO\n"), "{retry}");
    assert!(retry.contains("breakglass-mailer(1), breakglass-mailer-deadletters(1)"), "{retry}");
    // No heading of --help is one of the manual.
    assert!(!retry.contains("\nSERVER\n") && retry.contains("--token-file"), "{retry}");
    assert!(retry.contains("\n       3      the server was not reached"), "{retry}");
    assert!(retry.contains("BREAKGLASS_MAILER_TOKEN_FILE"), "{retry}");
}

#[tokio::test]
async fn a_page_is_printed_by_the_name_of_its_command() {
    let shell = Shell::default();
    let folder = tempfile::tempdir().expect("a folder");
    pages(folder.path()).await;
    for words in [&[][..], &["serve"], &["deadletters", "retry"]] {
        let name = [&["breakglass-mailer"], words].concat().join("-");
        let file = fs::read_to_string(folder.path().join(format!("{name}.1"))).expect("a page");
        let printed = shell.run(&[&["man"], words].concat()).await.ended(0).out;
        // The title has the day on which the page was made.
        let without_title =
            |page: &str| page.lines().skip(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(without_title(&printed), without_title(&file));
    }
    let ran = shell.run(&["man", "deadletters", "burn"]).await.ended(1);
    assert!(ran.out.is_empty() && ran.err.contains("no command deadletters burn"), "{ran:?}");
    shell.run(&["man", "serve", "--output-dir", "x"]).await.ended(2);
}
