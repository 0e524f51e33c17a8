//! The order of system calls: a job's bytes reach the journal, the journal reaches the disk, and only
//! then does its 202 leave.

use std::collections::HashMap;

use serde_json::json;

use crate::support::app::{Home, Provider};
use crate::support::load::Load;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::wait::{LIMIT, eventually};

const POSTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_202_leaves_only_after_a_sync_that_began_after_its_write() {
    if !need("strace") {
        return;
    }
    let sink = Sink::start();
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let trace = home.path("trace");
    let calls = "trace=write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg";
    let file = trace.to_str().expect("UTF-8");
    // With -D the server is the child of this test, and strace looks on from aside.
    let home = home.under(&["strace", "-D", "-f", "-yy", "-s", "65535", "-e", calls, "-o", file]);
    let mut app = home.start().await;
    let load = Load::start(
        16,
        |n| json!({"recipients": [format!("to-{n}@example.com")], "text": "Please look."}),
    );
    load.serve(Some(app.client.clone()));
    load.allow(POSTS);
    eventually("all posts have ended", async || (load.ended_count() == POSTS).then_some(())).await;
    let posts = load.finish().await;
    // strace pads the number of the process.
    let pid = app.process.id().to_string();
    let is_end = |line: &str| line.split_whitespace().take(3).eq([&pid, "+++", "exited"]);
    app.process.term();
    app.process.exit(LIMIT).await;
    let text = eventually("the trace is complete", async || {
        let text = std::fs::read_to_string(&trace).ok()?;
        text.lines().any(is_end).then_some(text)
    })
    .await;

    let calls = parse(&text);
    for post in &posts {
        let (id, _) = post.accepted().expect("a 202");
        assert_eq!(out_of_order(&calls, &post.token, id), None, "{} {id}", post.token);
    }
}

/// One system call that came to its end.
struct Call {
    name: String,
    /// The path or socket behind its file descriptor.
    target: String,
    text: String,
    /// The lines of the trace at which it began and ended.
    began: usize,
    ended: usize,
    ok: bool,
}

/// Reads a trace of `strace -f -yy`, in which a call may be cut in two by those of other threads.
fn parse(trace: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (line_no, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let (began, whole) = if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            open.insert(thread, (line_no, head.to_owned()));
            continue;
        } else if rest.starts_with("<... ") {
            let Some((began, head)) = open.remove(thread) else { continue };
            let tail = rest.split_once("resumed>").map_or("", |(_, tail)| tail);
            (began, head + tail)
        } else {
            (line_no, rest.to_owned())
        };
        // Signals and exits have no arguments.
        let Some((name, text)) = whole.split_once('(') else { continue };
        let Some((_, behind)) = text.split_once('<') else { continue };
        let close = if behind.starts_with("TCP") { "]>" } else { ">" };
        calls.push(Call {
            name: name.to_owned(),
            target: behind.split(close).next().unwrap_or_default().to_owned(),
            ok: !text.contains(") = -1 "),
            text: text.to_owned(),
            began,
            ended: line_no,
        });
    }
    calls
}

/// Why the answer with `id` to the post with `token` was not entitled to leave; `None` when it was.
fn out_of_order(calls: &[Call], token: &str, id: &str) -> Option<&'static str> {
    let is_sync = |call: &&Call| call.name == "fdatasync" || call.name == "fsync";
    let has = |call: &Call, what: &str| !is_sync(&call) && call.text.contains(what);
    let Some(write) =
        calls.iter().find(|call| call.target.contains("/journal/") && has(call, token))
    else {
        return Some("it was never written to the journal");
    };
    let Some(answer) = calls.iter().find(|call| call.target.starts_with("TCP") && has(call, id))
    else {
        return Some("its answer is not in the trace");
    };
    let covered = calls.iter().filter(is_sync).any(|sync| {
        sync.ok
            && sync.target == write.target
            && write.ended < sync.began
            && sync.ended < answer.began
    });
    (!covered).then_some("no sync lies between its write and its answer")
}

#[test]
fn an_answer_that_overtakes_its_sync_is_found() {
    let write = "10  pwrite64(5</d/journal/1.seg>, \"..token..\", 9, 0) = 9\n";
    let begin = "10  fdatasync(5</d/journal/1.seg> <unfinished ...>\n";
    let end = "10  <... fdatasync resumed>) = 0\n";
    let failed = "10  <... fdatasync resumed>) = -1 EIO (Input/output error)\n";
    let answer = "11  sendto(7<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"202 id\", 6, 0, NULL, 0) = 6\n";
    let verdict = |lines: &[&str]| out_of_order(&parse(&lines.concat()), "token", "id");
    let no_sync = Some("no sync lies between its write and its answer");

    assert_eq!(verdict(&[write, begin, end, answer]), None);
    assert_eq!(verdict(&[write, begin, answer, end]), no_sync);
    assert_eq!(verdict(&[begin, write, end, answer]), no_sync);
    assert_eq!(verdict(&[write, begin, failed, answer]), no_sync);
    assert_eq!(verdict(&[begin, end, answer]), Some("it was never written to the journal"));
}
