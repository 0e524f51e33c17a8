//! A client that posts notifications, as light as may be: it shares the machine with what it measures.
//!
//! `bench-load ADDRESS NAME=VALUE…` prints `name=value…` on one line: `begin` (s since 1970), `posts`
//! that were answered 202, `refused` ones, `seconds`, `rate` (of those 202, per second), and the
//! latencies of those in µs as `p50`, `p99` and `max`. It takes
//!
//! * `callers` (64): each has a connection of its own, and posts again when it was answered;
//! * `seconds` or `posts`: how long, or how many in all;
//! * `rate` (none): so many per second, of all callers together;
//! * `bytes` (4096) of text;
//! * `first` (0) and `providers` (1): `pFIRST` and so on take the posts in turn.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

struct Run {
    address: String,
    requests: Vec<Vec<u8>>,
    /// How many posts may still begin.
    left: Cell<u64>,
    end: Option<Instant>,
    next: Cell<usize>,
    /// In µs, of those that were answered 202.
    took: RefCell<Vec<u32>>,
    refused: Cell<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let address = args.next().expect("an address");
    let given: HashMap<String, f64> = args
        .map(|arg| {
            let (name, value) = arg.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    let number = |name: &str, default: f64| given.get(name).copied().unwrap_or(default);
    let callers = number("callers", 64.0) as u32;
    let first = number("first", 0.0) as usize;
    let providers = first..first + number("providers", 1.0) as usize;
    let bytes = number("bytes", 4096.0) as usize;
    let period = given.get("rate").map(|rate| Duration::from_secs_f64(f64::from(callers) / rate));
    let begin = Instant::now();
    let run = Rc::new(Run {
        requests: providers.map(|provider| request(&address, provider, bytes)).collect(),
        address,
        left: Cell::new(given.get("posts").map_or(u64::MAX, |posts| *posts as u64)),
        end: given.get("seconds").map(|seconds| begin + Duration::from_secs_f64(*seconds)),
        next: Cell::new(0),
        took: RefCell::default(),
        refused: Cell::new(0),
    });
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tasks = LocalSet::new();
    for caller in 0..callers {
        let offset = period.unwrap_or_default() * caller / callers;
        let call = call(run.clone(), period, offset);
        tasks.spawn_local(async move { call.await.expect("the server answers") });
    }
    tasks.await;
    let seconds = begin.elapsed().as_secs_f64();
    let mut took = run.took.take();
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "begin={:.3} posts={} refused={} seconds={seconds:.3} rate={:.0} p50={} p99={} max={}",
        since.as_secs_f64(),
        took.len(),
        run.refused.get(),
        took.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        took.last().copied().unwrap_or(0),
    );
}

async fn call(run: Rc<Run>, period: Option<Duration>, offset: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(&run.address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(4096);
    let mut ticks = period.map(|period| {
        let mut ticks = tokio::time::interval_at((Instant::now() + offset).into(), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    });
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let left = run.left.get();
        if left == 0 || run.end.is_some_and(|end| end <= Instant::now()) {
            return Ok(());
        }
        run.left.set(left - 1);
        let next = run.next.get();
        run.next.set((next + 1) % run.requests.len());
        let begin = Instant::now();
        stream.write_all(&run.requests[next]).await?;
        if post(&mut stream, &mut answer).await? {
            let micros = begin.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
            run.took.borrow_mut().push(micros);
        } else {
            run.refused.set(run.refused.get() + 1);
        }
    }
}

/// Reads one answer to its end; whether it was a 202.
async fn post(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<bool> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head_text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let length = head_text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        if head + 4 + length <= answer.len() {
            return Ok(answer.starts_with(b"HTTP/1.1 202"));
        }
    }
}

fn request(address: &str, provider: usize, bytes: usize) -> Vec<u8> {
    const LINE: &str = "Alice asks for cluster-admin on prod-1; please look at it and approve.\n";
    let text: String = LINE.chars().cycle().take(bytes).collect();
    let text = text.replace('\n', "\\n");
    let body = format!(
        r#"{{"recipients":["oncall@example.com"],"subject":"Breakglass request on prod-1","mailProvider":"p{provider}","text":"{text}"}}"#
    );
    format!(
        "POST /notify HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
