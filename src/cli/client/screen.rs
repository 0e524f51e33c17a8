//! All that a client command writes, and the only place that writes it.
//!
//! What came from a server may hold what a terminal obeys: escapes, control characters, marks that
//! turn the direction of the text. None of that is written. A reader that went away (`| head`) is
//! no failure.

use std::io::{self, Write};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::failure::Failure;

/// A table: a header, the rows, each cell on one line. On a terminal it is no wider than that:
/// the widest columns are cut, never the first. A table without rows says `empty` on stderr.
///
/// # Errors
/// When stdout cannot be written.
pub(in crate::cli) fn table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    empty: &str,
) -> Result<(), Failure> {
    if rows.is_empty() {
        note(empty);
        return Ok(());
    }
    write(&layout(header, rows, terminal_width()))
}

/// Names and values below each other, as far as there is a value.
///
/// # Errors
/// As `table`.
pub(in crate::cli) fn fields(fields: &[(&str, Option<String>)]) -> Result<(), Failure> {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |name: &str, value: &String| format!("{name:width$}  {}\n", one_line(value));
    let lines = fields.iter().filter_map(|(name, value)| Some(line(name, value.as_ref()?)));
    write(&lines.collect::<String>())
}

/// A text of several lines under a title.
///
/// # Errors
/// As `table`.
pub(in crate::cli) fn text(title: &str, text: &str) -> Result<(), Failure> {
    let lines: String = text.lines().map(|line| one_line(line) + "\n").collect();
    write(&format!("\n{title}\n{lines}"))
}

/// One line.
///
/// # Errors
/// As `table`.
pub(in crate::cli) fn line(text: &str) -> Result<(), Failure> {
    write(&(one_line(text) + "\n"))
}

/// A document. What a terminal would obey is written as an escape of JSON, so nothing is lost.
///
/// # Errors
/// As `table`.
pub(in crate::cli) fn json(document: &Value) -> Result<(), Failure> {
    let mut text = String::new();
    // Outside of strings JSON has no such characters but its line ends.
    for c in format!("{document:#}\n").chars() {
        if c != '\n' && is_obeyed(c) {
            let mut units = [0; 2];
            let escape = |unit: &mut u16| format!("\\u{unit:04x}");
            text.extend(c.encode_utf16(&mut units).iter_mut().map(escape));
        } else {
            text.push(c);
        }
    }
    write(&text)
}

/// Bytes that we made ourselves.
///
/// # Errors
/// As `table`.
pub(in crate::cli) fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::here(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// One line on stderr. There is nobody to tell when that fails.
pub(in crate::cli) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}

/// Columns narrower than this are not cut.
const CUT_WIDTH_MIN: usize = 10;
const GAP: &str = "  ";

fn layout<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    width_max: Option<usize>,
) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| one_line(&cell))));
    let widest = |column: usize| lines.iter().map(|line| line[column].width()).max();
    let mut widths: [usize; N] = std::array::from_fn(|column| widest(column).unwrap_or_default());
    if let Some(max) = width_max {
        while max < widths.iter().sum::<usize>() + GAP.len() * (N - 1) {
            let widest = widths[1..].iter_mut().max().filter(|width| CUT_WIDTH_MIN < **width);
            let Some(width) = widest else { break };
            *width -= 1;
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let cell = cut(cell, width);
            padded += &cell;
            padded += &" ".repeat(width - cell.width());
            padded += GAP;
        }
        let line = padded.trim_end();
        text += &width_max.map_or_else(|| line.to_owned(), |max| cut(line, max));
        text.push('\n');
    }
    text
}

/// The text where it fits, else its beginning and an ellipsis.
fn cut(text: &str, width_max: usize) -> String {
    if text.width() <= width_max {
        return text.to_owned();
    }
    let mut width = 1;
    let fits = |c: &char| {
        width += c.width().unwrap_or_default();
        width <= width_max
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The columns of the terminal that stdout is, if it is one.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| 0 < *columns)
}

/// White space as a space, and U+FFFD for whatever else a terminal would obey.
fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_obeyed(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Control characters (C0, DEL and C1), line separators, and the marks that turn or hide text.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 3]) -> [String; 3] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let rows = vec![row(["a", "日本", "x"]), row(["bcd", "e\u{301}", "y"])];
        let text = layout(["ID", "WHAT", "END"], rows, None);
        assert_eq!(text, "ID   WHAT  END\na    日本  x\nbcd  e\u{301}     y\n");
    }

    #[test]
    fn the_widest_columns_are_cut_to_the_terminal_and_the_first_never() {
        let long = "s".repeat(300);
        let id = "01a205c3-2dd0-7680-b861-77841a510462";
        let rows = || vec![row([id, "ada@example.com", &long])];
        let text = layout(["ID", "TO", "SUBJECT"], rows(), Some(70));
        assert!(text.lines().all(|line| line.width() <= 70), "{text}");
        assert!(text.contains(&format!("{id}  ada@example.com  ss")) && text.ends_with("s…\n"));
        let text = layout(["ID", "TO", "SUBJECT"], rows(), Some(40));
        assert!(text.lines().all(|line| line.width() <= 40) && text.contains(id), "{text}");
        let text = layout(["ID", "TO", "SUBJECT"], rows(), None);
        assert!(text.contains(&long));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let evil = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{2066}e\u{7f}f\r\ng\u{e0041}\0";
        let shown = one_line(evil);
        assert_eq!(shown.chars().filter(char::is_ascii_alphanumeric).count(), 12);
        assert!(!shown.chars().any(is_obeyed), "{shown:?}");
        assert_eq!(one_line("Grüße, 日本, 👩\u{200d}🚒"), "Grüße, 日本, 👩\u{200d}🚒");
    }
}
