//! `man`: the manual, a page for each command, made of the definitions of the command line.
//!
//! What a reader looks for under a heading of its own stands there: exit codes under EXIT STATUS,
//! variables under ENVIRONMENT, files under FILES.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff, bold, roman};
use jiff::Timestamp;

use super::client::screen;
use crate::config::{Cli, Man};

const NAME: &str = "breakglass-mailer";
const SOURCE: &str = concat!("breakglass-mailer ", env!("CARGO_PKG_VERSION"));

/// The variables that are no flag's.
const OTHER_VARIABLES: [(&str, &str); 3] = [
    ("KUBECONFIG", "The API server of serve --kubernetes outside of a pod."),
    ("POD_NAMESPACE", "The own namespace where --namespace is not given."),
    ("SSL_CERT_FILE", "Trusted authorities, in place of those of the machine."),
];

/// What is in a data folder, and whose it is.
const FILES: [(&str, &str); 6] = [
    ("breakglass-mailer-data/", "The data folder of serve, unless --data-dir names another."),
    ("breakglass-mailer-dev/", "The folder of dev: the data folder store/, and the mailbox."),
    ("journal/*.seg", "In a data folder: every record, append-only. The truth."),
    ("index/, index.clean", "Made of the journal; may be removed while no server is running."),
    ("identity, lock", "Whose store it is, and which process works on it."),
    ("aside/", "Bytes that could not be read. Nothing deletes them."),
];

/// Prints the page of a command, or writes all pages into a folder.
///
/// # Errors
/// When there is no such command, or the pages cannot be written.
pub fn run(man: &Man) -> anyhow::Result<()> {
    let root = definitions();
    if let Some(folder) = &man.output_dir {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        return write_all(&root, &[], folder);
    }
    let (mut command, mut above) = (&root, Vec::new());
    for name in &man.command {
        let Some(found) = command.find_subcommand(name) else {
            bail!("there is no command {}", man.command.join(" "));
        };
        above.push(page_name(command));
        command = found;
    }
    Ok(screen::write(&page(command, &above)?)?)
}

/// The commands as `--help` has them, but for its headings: a manual has all options in one place.
fn definitions() -> Command {
    fn without_headings(command: Command) -> Command {
        command
            .mut_args(|arg| arg.help_heading(Resettable::Reset))
            .mut_subcommands(without_headings)
    }
    let mut root = without_headings(Cli::command()).disable_help_subcommand(true);
    root.build();
    root
}

fn write_all(command: &Command, above: &[&str], folder: &Path) -> anyhow::Result<()> {
    for sub in command.get_subcommands() {
        write_all(sub, &[above, &[page_name(command)]].concat(), folder)?;
    }
    let file = folder.join(format!("{}.1", page_name(command)));
    fs::write(&file, page(command, above)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(NAME)
}

/// The page of a command that belongs to those `above` it.
fn page(command: &Command, above: &[&str]) -> anyhow::Result<String> {
    // These two have places of their own, below and in the header.
    let plain = command.clone().after_help(Resettable::Reset).version(Resettable::Reset);
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut begin = Vec::new();
    let man = clap_mangen::Man::new(plain).date(today).source(SOURCE).manual("User Commands");
    man.render(&mut begin)?;
    // It puts a break before and after an empty line, which mandoc warns of.
    let begin = String::from_utf8(begin)?.replace(".br\n\n.br\n", ".sp\n");
    let mut end = Roff::new();
    exit_status(&mut end, command);
    environment(&mut end, command);
    if above.is_empty() {
        list(&mut end, "FILES", FILES);
    } else {
        see_also(&mut end, above);
    }
    Ok(begin + &end.to_roff())
}

/// What `--help` says at its end, as a list.
fn exit_status(roff: &mut Roff, command: &Command) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(codes) = text.strip_prefix("Exit codes: ") {
        list(roff, "EXIT STATUS", codes.split("; ").filter_map(|code| code.trim().split_once(' ')));
    }
}

/// The variables of the command's flags and of those of the commands below it.
fn environment(roff: &mut Roff, command: &Command) {
    let mut flags = BTreeMap::<String, Vec<String>>::new();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands());
        for arg in command.get_arguments() {
            if let (Some(name), Some(long)) = (arg.get_env(), arg.get_long()) {
                flags.entry(name.to_string_lossy().into()).or_default().push(long.to_owned());
            }
        }
    }
    let variables = flags.iter_mut().map(|(name, flags)| {
        flags.sort();
        flags.dedup();
        (name.as_str(), format!("The same as --{}.", flags.join(", --")))
    });
    let others = OTHER_VARIABLES.map(|(name, text)| (name, text.to_owned()));
    let is_root = page_name(command) == NAME;
    list(roff, "ENVIRONMENT", variables.chain(others.into_iter().filter(|_| is_root)));
}

fn see_also(roff: &mut Roff, pages: &[&str]) {
    let mut line = Vec::new();
    for page in pages {
        line.extend((!line.is_empty()).then(|| roman(", ")));
        line.extend([bold(*page), roman("(1)")]);
    }
    roff.control("SH", ["SEE ALSO"]).text(line);
}

/// A section of terms and what is said of each; no section without a term.
fn list<T: Into<Inline>>(
    roff: &mut Roff,
    title: &str,
    items: impl IntoIterator<Item = (impl Into<String>, T)>,
) {
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return;
    }
    roff.control("SH", [title]);
    for (term, text) in items {
        roff.control("TP", []).text([bold(term)]).text([text.into()]);
    }
}
