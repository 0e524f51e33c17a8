//! The guard over a stream in memory.

use super::*;
use crate::core::outcome::Stage;
use tokio::io::{AsyncReadExt, DuplexStream};

fn guarded() -> (Guard<DuplexStream>, DuplexStream, Transcript) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let transcript = Transcript::new(Stage::Greeting);
    let peer = SocketAddr::from(([127, 0, 0, 1], 25));
    (Guard::new(ours, peer, transcript.clone()), theirs, transcript)
}

/// The first thing that was heard.
fn taken(transcript: &Transcript) -> Option<Result<RawReply, Fault>> {
    let (replies, fault) = transcript.take_all();
    replies.into_iter().map(Ok).chain(fault.map(Err)).next()
}

/// What the guard makes of `bytes` when they are the first that a server sends.
async fn heard(bytes: &[u8]) -> Option<Result<RawReply, Fault>> {
    let (mut guard, mut server, transcript) = guarded();
    server.write_all(bytes).await.unwrap();
    drop(server);
    let _ = guard.exchange(None).await;
    taken(&transcript)
}

#[tokio::test]
async fn a_reply_is_heard_once_it_is_complete() {
    let reply = heard(b"250-one\r\n250-two\r\n250 three\r\n").await.unwrap().unwrap();
    assert_eq!((reply.code, reply.lines.len()), (250, 3));
    assert_eq!(heard(b"250-one\r\n250-t").await, Some(Err(Fault::Lost)));
    assert_eq!(heard(b"").await, Some(Err(Fault::Lost)));
    assert_eq!(heard(b"SSH-2.0-x\r\n").await, Some(Err(Fault::NotSmtp)));
}

#[tokio::test]
async fn a_reply_that_agrees_and_refuses_at_once_is_none() {
    assert_eq!(heard(b"250-ok\r\n550 no\r\n").await, Some(Err(Fault::NotSmtp)));
    assert_eq!(heard(b"550-no\r\n250 ok\r\n").await, Some(Err(Fault::NotSmtp)));
    assert_eq!(heard(b"250-ok\r\n251 ok\r\n").await.unwrap().unwrap().code, 251);
}

#[tokio::test]
async fn a_line_a_count_and_a_total_without_end_are_cut_off() {
    assert_eq!(heard(&vec![b'2'; 100_000]).await, Some(Err(Fault::TooLong)));
    assert_eq!(heard(&b"250-x\r\n".repeat(257)).await, Some(Err(Fault::TooLong)));
    let wide = format!("250-{}\r\n", "x".repeat(2000));
    assert_eq!(heard(wide.repeat(100).as_bytes()).await, Some(Err(Fault::TooLong)));
}

#[tokio::test]
async fn no_more_than_a_few_kilobytes_of_a_flood_are_kept() {
    let (mut guard, mut server, _) = guarded();
    server.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    assert!(guard.exchange(None).await.is_err());
    assert!(guard.received.capacity() <= 16 * 1024);
}

#[tokio::test]
async fn a_reply_that_came_early_never_answers_the_next_command() {
    let (mut guard, mut server, transcript) = guarded();
    server.write_all(b"220 hi\r\n250 early\r\n").await.unwrap();
    guard.exchange(None).await.unwrap();
    assert!(!transcript.is_in_step());
    transcript.enter(Stage::Ehlo);
    assert!(guard.exchange(Some("EHLO x\r\n")).await.is_err());
    assert_eq!(taken(&transcript), Some(Err(Fault::Unasked)));
    assert_eq!(guard.into_stream().map(drop), Err(Fault::Unasked));
}

#[tokio::test]
async fn an_unasked_421_is_heard_as_the_announcement_that_it_is() {
    let (mut guard, mut server, transcript) = guarded();
    server.write_all(b"220 hi\r\n").await.unwrap();
    guard.exchange(None).await.unwrap();
    server.write_all(b"421 going down\r\n").await.unwrap();
    transcript.enter(Stage::Mail);
    assert!(guard.exchange(Some("MAIL FROM:<>\r\n")).await.is_err());
    assert_eq!(taken(&transcript).unwrap().unwrap().code, 421);
}

#[tokio::test]
async fn within_a_message_a_refusal_is_heard_and_an_acceptance_is_not() {
    let table = [
        (&["552 5.3.4 too big\r\n"][..], Ok(552)),
        (&["552-5.3.4 to", "o big\r\n", "552 5.3.4 really\r\n"], Ok(552)),
        (&["250 ok\r\n"], Err(Fault::Unasked)),
        (&["250-o", "k\r\n", "250 ok\r\n"], Err(Fault::Unasked)),
        (&["55"], Err(Fault::Unasked)),
    ];
    let lengths = [20, 2 * HELD_BYTES_MAX];
    for ((early, heard), length) in table.into_iter().flat_map(|t| lengths.map(|n| (t, n))) {
        let (guard, mut server, transcript) = guarded();
        let mut guard = guard.at_our_turn();
        transcript.enter_message();
        guard.write_all(&vec![b'x'; length]).await.unwrap();
        guard.flush().await.unwrap();
        let mut said = early.iter();
        server.write_all(said.next().unwrap().as_bytes()).await.unwrap();
        let say_the_rest = async {
            for piece in said {
                tokio::task::yield_now().await;
                server.write_all(piece.as_bytes()).await.unwrap();
            }
            drop(server);
        };
        let send_the_rest = async {
            guard.write_all(b"\r\n.\r\n").await?;
            guard.flush().await
        };
        let (sent, ()) = tokio::join!(send_the_rest, say_the_rest);
        assert!(sent.is_err(), "{early:?}");
        assert_eq!(taken(&transcript).unwrap().map(|reply| reply.code), heard, "{early:?}");
    }
}

/// What the server hears before it says anything.
async fn heard_by(server: &mut DuplexStream) -> String {
    let mut bytes = vec![0; 1 << 20];
    let bytes_count = server.read(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..bytes_count].to_vec()).unwrap()
}

#[tokio::test]
async fn commands_that_were_announced_together_go_out_together_and_are_answered_in_order() {
    let (guard, mut server, transcript) = guarded();
    let mut guard = guard.at_our_turn();
    transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
    for command in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n"] {
        guard.write_all(command.as_bytes()).await.unwrap();
        guard.flush().await.unwrap();
        let mut answer = [0; 7];
        guard.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"250 -\r\n", "the guard's own");
    }
    guard.write_all(b"DATA\r\n").await.unwrap();
    guard.flush().await.unwrap();
    let group = "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n";
    assert_eq!(heard_by(&mut server).await, group);
    server.write_all(b"250 one\r\n250-two\r\n250 two\r\n").await.unwrap();
    assert!(poll_once(&mut guard).await.is_none(), "the third is missing");
    assert_eq!(transcript.stage(), Stage::Data);
    server.write_all(b"354 three\r\n").await.unwrap();
    assert!(poll_once(&mut guard).await.unwrap().starts_with(b"354"));
    let (replies, fault) = transcript.take_all();
    let codes: Vec<_> = replies.iter().map(|reply| reply.code).collect();
    assert_eq!((codes, fault), (vec![250, 250, 354], None));
    assert!(transcript.is_in_step());
}

/// What can be read now.
async fn poll_once(guard: &mut Guard<DuplexStream>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 100];
    let read = tokio::time::timeout(std::time::Duration::ZERO, guard.read(&mut bytes)).await;
    read.ok().map(|bytes_count| bytes[..bytes_count.unwrap()].to_vec())
}

#[tokio::test]
async fn a_reply_more_than_there_were_commands_answers_none_of_them() {
    let (guard, mut server, transcript) = guarded();
    let mut guard = guard.at_our_turn();
    transcript.enter_group(Stage::Mail, &[Stage::Rcpt, Stage::Data]);
    for command in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n", "DATA\r\n"] {
        guard.write_all(command.as_bytes()).await.unwrap();
        guard.flush().await.unwrap();
        guard.released.clear();
    }
    server.write_all(b"250 one\r\n250 two\r\n354 three\r\n250 four\r\n").await.unwrap();
    assert!(poll_once(&mut guard).await.unwrap().starts_with(b"354"));
    assert_eq!(transcript.take_all().0.len(), 3);
    assert!(!transcript.is_in_step());
    transcript.enter_message();
    let sent = async {
        guard.write_all(b"message\r\n.\r\n").await?;
        guard.flush().await
    };
    assert!(sent.await.is_err());
    assert_eq!(transcript.take_all(), (Vec::new(), Some(Fault::Unasked)));
    assert!(!heard_by(&mut server).await.contains("message"));
}

#[tokio::test]
async fn all_bytes_arrive_in_order_however_few_the_stream_takes_at_once() {
    for length in [10, HELD_BYTES_MAX, HELD_BYTES_MAX + 1] {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let transcript = Transcript::new(Stage::Mail);
        let peer = SocketAddr::from(([127, 0, 0, 1], 25));
        let mut guard = Guard::new(ours, peer, transcript.clone()).at_our_turn();
        let message: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        let group: [&[u8]; 2] = [b"MAIL FROM:<somebody@example.com>\r\n", b"DATA\r\n"];
        let speak = async {
            transcript.enter_group(Stage::Mail, &[Stage::Data]);
            for command in group {
                guard.write_all(command).await.unwrap();
                guard.flush().await.unwrap();
                guard.released.clear();
            }
            guard.read_exact(&mut [0; 5]).await.unwrap();
            transcript.enter_message();
            for part in [&message[..], b"\r\n.\r\n"] {
                guard.write_all(part).await.unwrap();
                guard.flush().await.unwrap();
            }
        };
        let expected = [group[0], group[1], &message, b"\r\n.\r\n"].concat();
        let listen = async {
            let mut heard = vec![0; expected.len()];
            let commands_bytes = group.concat().len();
            theirs.read_exact(&mut heard[..commands_bytes]).await.unwrap();
            theirs.write_all(b"250 a\r\n354 b\r\n").await.unwrap();
            theirs.read_exact(&mut heard[commands_bytes..]).await.unwrap();
            heard
        };
        let ((), heard) = tokio::join!(speak, listen);
        assert!(heard == expected, "{length}");
    }
}

#[tokio::test]
async fn a_message_goes_out_with_its_final_dot() {
    let (guard, mut server, transcript) = guarded();
    let mut guard = guard.at_our_turn();
    transcript.enter_message();
    guard.write_all(b"message").await.unwrap();
    guard.flush().await.unwrap();
    guard.write_all(b"\r\n.\r\n").await.unwrap();
    guard.flush().await.unwrap();
    assert_eq!(heard_by(&mut server).await, "message\r\n.\r\n");
}

#[tokio::test]
async fn a_command_that_was_not_announced_does_not_go_out() {
    let (guard, mut server, transcript) = guarded();
    let mut guard = guard.at_our_turn();
    assert!(guard.write_all(b"QUIT\r\n").await.is_err());
    assert_eq!(taken(&transcript), None);
    drop(guard);
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"");
}
