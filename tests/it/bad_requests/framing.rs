//! Bytes on a socket that are no request, or could be two: each is refused and makes no job, and
//! what may be left of it is never taken for another request.

use breakglass_mailer::http::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::served::{GOOD, Served, kept_post as kept, raw_post, read_to_end};

/// A second request, hidden behind or inside another one.
const HIDDEN: &str = "POST /notify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
    Content-Length: 57\r\n\r\n{\"recipients\":[\"e@example.net\"],\"subject\":\"x\",\"text\":\"y\"}";

#[tokio::test]
async fn a_body_whose_end_is_in_doubt_is_400_and_ends_the_connection() {
    let server = Served::start(Limits::default()).await;
    let length = GOOD.len();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunk = format!("{length:x}\r\n{GOOD}\r\n0\r\n\r\n");
    for (title, bytes) in [
        ("two lengths", kept(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n"), GOOD)),
        ("two lengths in one", kept(&format!("Content-Length: {length}, 5\r\n"), GOOD)),
        ("a negative length", kept("Content-Length: -1\r\n", GOOD)),
        ("a signed length", kept(&format!("Content-Length: +{length}\r\n"), GOOD)),
        ("a hexadecimal length", kept("Content-Length: 0x39\r\n", GOOD)),
        ("a length with a fraction", kept("Content-Length: 57.0\r\n", GOOD)),
        ("an empty length", kept("Content-Length: \r\n", GOOD)),
        ("a length that overflows", kept("Content-Length: 18446744073709551616\r\n", GOOD)),
        ("two words as a length", kept("Content-Length: 5 7\r\n", GOOD)),
        ("an unknown coding", kept("Transfer-Encoding: gzip\r\n", GOOD)),
        ("chunked and then another", kept("Transfer-Encoding: chunked, identity\r\n", GOOD)),
        ("a coding that only looks chunked", kept("Transfer-Encoding: xchunked\r\n", &chunk)),
        ("no chunk size", kept(chunked, &format!("\r\n{GOOD}\r\n0\r\n\r\n"))),
        ("a chunk size that is none", kept(chunked, &format!("zz\r\n{GOOD}\r\n0\r\n\r\n"))),
        ("a negative chunk size", kept(chunked, &format!("-1\r\n{GOOD}\r\n0\r\n\r\n"))),
        ("a chunk size that overflows", kept(chunked, "FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n")),
        ("a chunk longer than its size", kept(chunked, &format!("5\r\n{GOOD}\r\n0\r\n\r\n"))),
        ("space before a colon", kept(&format!("Content-Length : {length}\r\n"), GOOD)),
        ("a folded header", kept(&format!("X-A: b\r\n Content-Length: {length}\r\n"), GOOD)),
        ("a header without a name", kept(&format!(": b\r\nContent-Length: {length}\r\n"), GOOD)),
        ("a header without a colon", kept(&format!("X\r\nContent-Length: {length}\r\n"), GOOD)),
        ("NUL in a header", kept(&format!("X-A: a\0b\r\nContent-Length: {length}\r\n"), GOOD)),
        ("CR in a header", kept(&format!("X-A: a\rb\r\nContent-Length: {length}\r\n"), GOOD)),
    ] {
        let answer = server.exchange(&[&bytes[..], HIDDEN.as_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{title}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{title}: {answer}");
        assert_eq!(server.api.store.notifications_count(), 0, "{title}");
    }
}

#[tokio::test]
async fn with_both_framings_the_chunks_count_and_the_connection_ends() {
    let server = Served::start(Limits::default()).await;
    let both = "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n";
    let answer = server.exchange(&kept(both, &format!("0\r\n\r\n{HIDDEN}"))).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(server.api.store.notifications_count(), 0);
}

#[tokio::test]
async fn what_is_not_http_1_is_400() {
    let server = Served::start(Limits::default()).await;
    let hello = [&[0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3][..], &[0x11; 64]].concat();
    for (title, bytes) in [
        ("a TLS hello", &hello[..]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SMTP", b"EHLO evil\r\nMAIL FROM:<a@example.com>\r\n"),
        ("HTTP/0.9", b"GET /livez\r\n\r\n"),
        ("HTTP/2 as a version", b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n"),
        ("HTTP/1.2", b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n"),
        ("another protocol", b"GET /livez HTTPS/1.1\r\nHost: x\r\n\r\n"),
        ("no method", b" /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("no path", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("two paths", b"GET /livez /readyz HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a relative path", b"GET livez/x HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("NUL in the path", b"GET /li\0vez HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("no host", b"GET /livez HTTP/1.1\r\n\r\n"),
        ("two hosts", b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n"),
        ("JSON", b"{\"recipients\":[\"a@example.com\"]}\r\n\r\n"),
        ("NULs", &[0; 64]),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.expect("open");
        stream.shutdown().await.expect("open");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{title}: {answer}");
    }
    assert_eq!(server.api.store.notifications_count(), 0);
}

#[tokio::test]
async fn what_is_too_long_is_told_so() {
    let server = Served::start(Limits::default()).await;
    let path = "p".repeat(70_000);
    let headers = |count: usize, length: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "a".repeat(length))).collect()
    };
    for (title, bytes, status) in [
        ("a path", format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        ("a query", format!("GET /jobs?cursor={path} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        (
            "one header",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", headers(1, 1 << 20)),
            "431",
        ),
        (
            "many headers",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", headers(101, 1)),
            "431",
        ),
        (
            "many long headers",
            format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", headers(90, 1000)),
            "431",
        ),
        ("a header's name", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{path}: a\r\n\r\n"), "431"),
    ] {
        let answer = server.exchange(bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{title}: {answer}");
    }
}

#[tokio::test]
async fn the_forms_of_a_request_that_http_allows_are_taken() {
    let server = Served::start(Limits::default()).await;
    let length = GOOD.len();
    let chunks: String = GOOD
        .as_bytes()
        .chunks(7)
        .map(|part| format!("{:X};x=y\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
        .collect();
    let fixed = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    for (title, bytes) in [
        (
            "chunks",
            raw_post("Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\nX: y\r\n\r\n")),
        ),
        (
            "the same length twice",
            raw_post(&format!("Content-Length: {length}\r\n").repeat(2), GOOD),
        ),
        (
            "an absolute path",
            format!(
                "POST http://x/notify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fixed}\r\n{GOOD}"
            )
            .into(),
        ),
        ("HTTP/1.0", format!("POST /notify HTTP/1.0\r\n{fixed}\r\n{GOOD}").into()),
        (
            "empty lines first",
            format!(
                "\r\n\r\nPOST /notify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fixed}\r\n{GOOD}"
            )
            .into(),
        ),
    ] {
        let answer = server.exchange(&bytes).await;
        let version = if title == "HTTP/1.0" { "HTTP/1.0" } else { "HTTP/1.1" };
        assert!(answer.starts_with(&format!("{version} 202 ")), "{title}: {answer}");
    }
}

#[tokio::test]
async fn a_caller_that_asks_first_is_told_to_go_on_or_refused_before_it_sends() {
    let server = Served::start(Limits::default()).await;
    let mut stream = server.connect().await;
    let expect = |length: usize| {
        raw_post(&format!("Content-Length: {length}\r\nExpect: 100-continue\r\n"), "")
    };
    stream.write_all(&expect(GOOD.len())).await.expect("open");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("an answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GOOD.as_bytes()).await.expect("open");
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 202 "));

    let answer = server.exchange(&expect(2 << 20)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn requests_behind_each_other_are_answered_in_their_order() {
    let server = Served::start(Limits::default()).await;
    let bad = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = server.exchange(format!("{HIDDEN}{bad}{HIDDEN}{last}").as_bytes()).await;
    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, start)| answer.get(at + start.len()..at + start.len() + 3))
        .collect();
    assert_eq!(statuses, ["202", "404", "202", "200"], "{answer}");
}

#[tokio::test]
async fn odd_targets_and_methods_are_problems_like_any_other() {
    let server = Served::start(Limits::default()).await;
    for (line, status) in [
        ("OPTIONS * HTTP/1.1", "404"),
        ("CONNECT x:80 HTTP/1.1", "404"),
        ("GET http://other.example/queue HTTP/1.1", "403"),
        ("GET /notify HTTP/1.1", "405"),
        ("get /livez HTTP/1.1", "405"),
        ("PROPFIND /livez HTTP/1.1", "405"),
        ("GET /livez?x HTTP/1.1", "200"),
        ("GET /% HTTP/1.1", "404"),
    ] {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
}
