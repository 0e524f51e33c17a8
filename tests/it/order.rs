//! The order of system calls: a job's bytes reach the journal, the journal reaches the disk, and only
//! then does its 202 leave.

use serde_json::json;

use crate::support::app::{Home, Provider};
use crate::support::load::Load;
use crate::support::need;
use crate::support::sink::Sink;
use crate::support::trace::{self, Call, parse};
use crate::support::wait::{LIMIT, eventually};

const POSTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_202_leaves_only_after_a_sync_that_began_after_its_write() {
    if !need("strace") {
        return;
    }
    let sink = Sink::start();
    let home = Home::new(&[Provider::plain("main", sink.port)]);
    let file = home.path("trace");
    let calls = "write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg";
    let home = home.under(&trace::command(calls, 65535, &file));
    let mut app = home.start().await;
    let load = Load::start(
        16,
        |n| json!({"recipients": [format!("to-{n}@example.com")], "text": "Please look."}),
    );
    load.serve(Some(app.client.clone()));
    load.allow(POSTS);
    eventually("all posts have ended", async || (load.ended_count() == POSTS).then_some(())).await;
    let posts = load.finish().await;
    app.process.term();
    app.process.exit(LIMIT).await;

    let text = trace::read(&file, &app.process).await;
    let calls = parse(&text);
    for post in &posts {
        let (id, _) = post.accepted().expect("a 202");
        assert_eq!(out_of_order(&calls, &post.token, id), None, "{} {id}", post.token);
    }
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
