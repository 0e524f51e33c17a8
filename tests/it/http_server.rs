//! The server on a real socket: what is not HTTP, what is too much, and what is too slow.

use std::time::Duration;

use breakglass_mailer::http::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::served::{GOOD, Served, kept_post, raw_post as post, read_to_end};

#[tokio::test]
async fn what_is_not_a_request_is_refused_and_makes_no_job() {
    let server = Served::start(Limits::default()).await;
    let bodies_of_two_lengths = post("Content-Length: 57\r\nContent-Length: 5\r\n", GOOD);
    let overflow = post("Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n");
    let no_chunk = post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\n");
    let mut client_hello = vec![0x16, 0x03, 0x01, 0x00, 0xa5, 0x01, 0x00, 0x00, 0xa1, 0x03, 0x03];
    client_hello.extend([0x11; 64]);
    for (bytes, title) in [
        (bodies_of_two_lengths, "two lengths"),
        (overflow, "a chunk size that overflows"),
        (no_chunk, "both framings and an empty body"),
        (client_hello, "TLS"),
        (b"EHLO evil\r\nMAIL FROM:<a@example.com>\r\n\r\n".to_vec(), "SMTP"),
        (post("Host: y\r\nContent-Length: 2\r\n", "{}"), "two hosts"),
        (
            b"POST /notify HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".to_vec(),
            "no host",
        ),
    ] {
        let answer = server.exchange(&bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{title}: {answer}");
    }
    let answer = server.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("/bad-request"), "{answer}");
    assert_eq!(server.api.store.notifications_count(), 0);
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    let answer = server.exchange(&post(&length, GOOD)).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let server = Served::start(Limits::default()).await;
    let mut stream = server.connect().await;
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    stream.write_all(&post(&length, GOOD)).await.expect("open");
    stream.shutdown().await.expect("open");
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 202 "));
}

/// They come at once, so only the first one finds a connection that has paused: the others are served
/// on other threads.
#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let server = Served::start(Limits::default()).await;
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    let mut bytes = [&kept_post(&length, GOOD), LIVEZ].concat().repeat(5);
    bytes.extend(post(&length, GOOD));
    let answers = server.exchange(&bytes).await;
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|it| &it[..3]).collect();
    assert_eq!(statuses, [["202", "200"].repeat(5), vec!["202"]].concat());
    assert_eq!(server.api.store.notifications_count(), 6);
}

#[tokio::test]
async fn too_much_is_answered_although_the_client_still_sends() {
    let server = Served::start(Limits::default()).await;
    let header = format!("X-A: {}\r\n", "a".repeat(1_000_000));
    let answer = server.exchange(&post(&header, "")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer = server.exchange(&post(&many, "")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let chunk = format!("200000\r\n{}\r\n0\r\n\r\n", "a".repeat(0x20_0000));
    let answer = server.exchange(&post("Transfer-Encoding: chunked\r\n", &chunk)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let body = "a".repeat(0x20_0000);
    let length = format!("Content-Length: {}\r\n", body.len());
    let answer = server.exchange(&post(&length, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn slow_headers_and_idle_connections_are_ended() {
    let limits = Limits { header_time_max: Duration::from_millis(200), ..Limits::default() };
    let server = Served::start(limits).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: b").await.expect("open");
    let answer = read_to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("/request-timeout"), "{answer}");
    let mut silent = server.connect().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    assert!(read_to_end(&mut idle).await.starts_with("HTTP/1.1 200 "));
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

async fn only_place() -> Served {
    Served::start(Limits { connections_count_max: 1, ..Limits::default() }).await
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let server = only_place().await;
    let mut first = server.connect().await;
    let (head, body) = GOOD.split_at(10);
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    first.write_all(&post(&length, head)).await.expect("open");
    let mut second = server.connect().await;
    second.write_all(LIVEZ).await.expect("in the backlog");
    let mut answer = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut answer)).await;
    assert!(early.is_err(), "answered although the only place is taken");
    first.write_all(body.as_bytes()).await.expect("open");
    assert!(read_to_end(&mut first).await.starts_with("HTTP/1.1 202 "));
    second.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_kept_connection_gives_its_place_to_those_that_wait() {
    let server = only_place().await;
    let mut callers = Vec::new();
    for _ in 0..20 {
        let mut caller = server.connect().await;
        caller.write_all(LIVEZ).await.expect("open");
        callers.push(caller);
    }
    for mut caller in callers.drain(..19) {
        assert!(read_to_end(&mut caller).await.starts_with("HTTP/1.1 200 "));
    }
    let mut answer = [0; 12];
    callers[0].read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_answers_what_is_under_way() {
    let server = Served::start(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.expect("an answer");
    let mut busy = server.connect().await;
    let length = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", GOOD.len());
    busy.write_all(&post(&length, "")).await.expect("open");
    // The handler asks for the body: the request is under way.
    let mut go_on = [0; 25];
    busy.read_exact(&mut go_on).await.expect("100 Continue");
    server.stop.cancel();
    read_to_end(&mut idle).await;
    busy.write_all(GOOD.as_bytes()).await.expect("open");
    assert!(read_to_end(&mut busy).await.starts_with("HTTP/1.1 202 "));
    drop((idle, busy));
    tokio::time::timeout(Duration::from_secs(10), server.ended).await.expect("ends").expect("ok");
    assert!(TcpStream::connect(server.address).await.is_err());
}
