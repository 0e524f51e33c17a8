//! The table of what passed in this run, for the README.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use crate::support::mail_servers::{Door, Fault, MailServer};

static ROWS: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());

/// Writes the table with a row for `server`. `counts` are the messages and the faults of a door.
///
/// # Panics
/// When it cannot be written.
pub fn write(server: &MailServer, counts: impl Fn(Door) -> (usize, usize)) {
    let offer = server.offer;
    let cell = |door: Door| match offer.doors.contains(&door) {
        true => format!("{} + {}", counts(door).0, counts(door).1),
        false => "–".to_owned(),
    };
    let missing = Fault::ALL.iter().filter(|fault| !offer.faults.contains(fault));
    let missing: Vec<_> = missing.map(|fault| fault.title()).collect();
    let missing = match missing.len() {
        0 => "–".to_owned(),
        n if n == Fault::ALL.len() => "all".to_owned(),
        _ => missing.join(", "),
    };
    let mut cells = vec![format!("{} {}", offer.name, server.version)];
    cells.extend(Door::ALL.map(cell));
    cells.push(if offer.has_smtputf8 { "yes" } else { "no" }.to_owned());
    cells.push(missing);

    let mut rows = ROWS.lock().expect("the rows");
    rows.insert(offer.name, format!("| {} |\n", cells.join(" | ")));
    let doors = Door::ALL.map(Door::title).join(" | ");
    let head = format!("| server | {doors} | SMTPUTF8 | cannot play |\n");
    let rule = format!("{}|\n", "|---".repeat(cells.len()));
    let table: String = [head, rule].into_iter().chain(rows.values().cloned()).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mail-servers.md");
    std::fs::write(path, table).expect("write the table");
}
