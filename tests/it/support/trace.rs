//! A trace of a server's system calls, as `strace -f -yy` writes it.

use std::collections::HashMap;
use std::path::Path;

use super::app::Process;
use super::wait::eventually;

/// What is put before the server so that `calls` are appended to `file`, with strings of up to
/// `bytes_max`. With `-D` the server is the child of the test, and strace looks on from aside.
pub fn command(calls: &str, bytes_max: usize, file: &Path) -> Vec<String> {
    let file = file.to_str().expect("UTF-8");
    let (calls, bytes) = (format!("trace={calls}"), bytes_max.to_string());
    let command = ["strace", "-D", "-f", "-yy", "-s", &bytes, "-e", &calls, "-A", "-o", file];
    command.map(str::to_owned).into()
}

/// The whole trace of a server that has exited.
///
/// # Panics
/// When it is not complete after the limit.
pub async fn read(file: &Path, process: &Process) -> String {
    // strace pads the number of the process.
    let pid = process.id().to_string();
    let is_end = |line: &str| line.split_whitespace().take(2).eq([&pid, "+++"]);
    eventually("the trace is complete", async || {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().any(is_end).then_some(text)
    })
    .await
}

/// One system call that came to its end.
pub struct Call {
    pub name: String,
    /// The path or socket behind its first argument, when that is a file descriptor.
    pub target: String,
    /// Its arguments and its result.
    pub text: String,
    /// The lines of the trace at which it began and ended.
    pub began: usize,
    pub ended: usize,
    pub ok: bool,
}

/// Reads a trace, in which a call may be cut in two by those of other threads.
pub fn parse(trace: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (line_no, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let (began, whole) = if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread, (line_no, head));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((began, head)) = open.remove(thread) else { continue };
            let tail = rest.split_once("resumed>").map_or("", |(_, tail)| tail);
            (began, format!("{head}{tail}"))
        } else {
            (line_no, rest.to_owned())
        };
        // Signals and exits have no arguments.
        let Some((name, text)) = whole.split_once('(') else { continue };
        calls.push(Call {
            name: name.to_owned(),
            target: target(text).to_owned(),
            ok: succeeded(text),
            text: text.to_owned(),
            began,
            ended: line_no,
        });
    }
    calls
}

/// Whether the result is a number that is not negative; any number of blanks is before it.
fn succeeded(text: &str) -> bool {
    let result = text.rsplit_once(") ").and_then(|(_, end)| end.trim_start().strip_prefix("= "));
    result.is_some_and(|result| result.starts_with(|c: char| c.is_ascii_digit()))
}

/// `/a` of `5</a>, …`, and `TCP:[…->…` of `6<TCP:[…->…]>, …`.
fn target(arguments: &str) -> &str {
    let Some((descriptor, behind)) = arguments.split_once('<') else { return "" };
    let is_number = descriptor.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number && descriptor != "AT_FDCWD" {
        return "";
    }
    let close = if behind.starts_with("TCP") { "]>" } else { ">" };
    behind.split(close).next().unwrap_or_default()
}

impl Call {
    /// The first argument as a number: mostly a file descriptor.
    pub fn descriptor(&self) -> Option<u64> {
        self.text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// What is behind the last `=`: the result, and the path behind it when it is a descriptor.
    pub fn result(&self) -> (u64, &str) {
        let (_, result) = self.text.rsplit_once(" = ").expect("it came to its end");
        let number = result.split(|c: char| !c.is_ascii_digit()).next();
        let number = number.and_then(|number| number.parse().ok()).expect("it succeeded");
        let path = result.split_once('<').map_or("", |(_, path)| path.trim_end_matches('>'));
        (number, path)
    }

    /// All strings among the arguments, and the arguments without them.
    ///
    /// # Panics
    /// When the trace holds only the beginning of one.
    pub fn strings(&self) -> (Vec<Vec<u8>>, String) {
        let (mut strings, mut others) = (Vec::new(), String::new());
        let mut left = &*self.text;
        while let Some((before, behind)) = left.split_once('"') {
            others.push_str(before);
            let (string, length) = unescape(behind.as_bytes());
            strings.push(string);
            left = &behind[length..];
            assert!(!left.starts_with("..."), "strace cut a string of {}", self.name);
        }
        others.push_str(left);
        (strings, others)
    }

    /// The numbers among the arguments, without those behind another letter.
    pub fn numbers(&self) -> Vec<u64> {
        let (_, others) = self.strings();
        let (arguments, _) = others.rsplit_once(')').expect("it came to its end");
        arguments.split(", ").filter_map(|argument| argument.trim().parse().ok()).collect()
    }
}

/// The string up to its closing quote, and how long it and the quote are in the text.
fn unescape(text: &[u8]) -> (Vec<u8>, usize) {
    let mut string = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => {
                let octal =
                    text[at..].iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte));
                let digits = octal.count();
                if digits == 0 {
                    let control = [(b'n', 10), (b't', 9), (b'r', 13), (b'v', 11), (b'f', 12)];
                    let named = control.iter().find(|(name, _)| *name == text[at]);
                    string.push(named.map_or(text[at], |(_, control)| *control));
                    at += 1;
                } else {
                    let digits = std::str::from_utf8(&text[at..at + digits]).expect("ASCII");
                    string.push(u8::from_str_radix(digits, 8).expect("at most 377"));
                    at += digits.len();
                }
            }
            other => string.push(other),
        }
    }
    (string, at)
}

#[test]
fn strings_paths_and_results_are_read_as_strace_writes_them() {
    let trace = "\
        10 mkdir(\"/d/a\", 0777)     = 0\n\
        11 pwrite64(5</d/a/b>, \"\\1\\0012\\n\\\"\\\\x\\377\" <unfinished ...>\n\
        10 openat(AT_FDCWD</w>, \"/d/a/c\", O_WRONLY|O_CREAT, 0666) = 7</d/a/c>\n\
        11 <... pwrite64 resumed>, 8, 4096) = 8\n\
        11 ftruncate(5</d/a/b>, 36 <unfinished ...>\n\
        11 <... ftruncate resumed>)        = 0\n\
        10 writev(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base=\"a\", iov_len=1}], 1) = 1\n\
        10 fsync(5</d/a/b>)     = -1 EIO (Input/output error)\n\
        10 +++ exited with 0 +++\n";
    let calls = parse(trace);
    let names: Vec<_> = calls.iter().map(|call| (&*call.name, &*call.target, call.ok)).collect();
    assert_eq!(
        names,
        [
            ("mkdir", "", true),
            ("openat", "/w", true),
            ("pwrite64", "/d/a/b", true),
            ("ftruncate", "/d/a/b", true),
            ("writev", "TCP:[127.0.0.1:1->127.0.0.1:2", true),
            ("fsync", "/d/a/b", false),
        ]
    );
    assert_eq!(calls[0].strings().0, [b"/d/a"]);
    assert_eq!(calls[1].result(), (7, "/d/a/c"));
    let write = &calls[2];
    assert_eq!((write.began, write.ended, write.descriptor()), (1, 3, Some(5)));
    assert_eq!(write.strings().0, [b"\x01\x012\n\"\\x\xff"]);
    assert_eq!(write.numbers(), [8, 4096]);
    assert_eq!(write.result().0, 8);
    assert_eq!((calls[3].numbers(), calls[3].result().0), (vec![36], 0));
    assert_eq!(calls[4].strings().0, [b"a"]);
}
