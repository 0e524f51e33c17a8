//! Durable commits per second: our store, and what a file can do at most.
//!
//! `bench-store FOLDER WHAT CALLERS BYTES SECONDS` prints commits per second, WHAT being
//!
//! * `ours`: each caller commits notifications with a content of so many bytes, one after the other;
//! * `append`: the limit. The same callers over the same kind of channel to one thread, which writes
//!   all that wait into one file, syncs once and answers them all;
//! * `prepared`: the same into room that was allocated before, so that a sync writes no file size.
//!
//! `bench-store FOLDER sync` prints the median time of a sync after 4 KiB were appended, in µs.

mod common;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use breakglass_mailer::queue::store::Store;
use breakglass_mailer::store::{DiskStore, Options};
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use common::{accept, text};

/// As much as our journal writes at once.
const BATCH_BYTES_MAX: usize = 4 << 20;
const PREPARED_BYTES: u64 = 64 << 20;

type Append = (Vec<u8>, oneshot::Sender<()>);

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args[at].parse::<usize>().expect("a number");
    let folder = Path::new(&args[0]);
    std::fs::create_dir_all(folder).expect("create the folder");
    if args[1] == "sync" {
        println!("{}", sync_micros(folder).expect("write and sync"));
        return;
    }
    let (callers, bytes) = (number(2), number(3));
    let seconds = args[4].parse().expect("seconds");
    let begin = Instant::now();
    let count = match args[1].as_str() {
        "ours" => {
            let (store, _) = DiskStore::open(Options::new(folder)).expect("open the store");
            let body = text(bytes);
            let commit = move || {
                let committed = store.commit(vec![accept("bench", "oncall@example.com", &body)]);
                async { committed.await.expect("commit") }
            };
            many(callers, seconds, commit).await
        }
        what => {
            let (requests, appends) = channel::<Append>();
            let file = File::create(folder.join("appended")).expect("create the file");
            let is_prepared = what == "prepared";
            let writer = std::thread::spawn(move || write(&file, &appends, is_prepared));
            let body = text(bytes).into_bytes();
            let append = move || {
                let (done, answer) = oneshot::channel();
                requests.send((body.clone(), done)).expect("the writer is there");
                async { answer.await.expect("written") }
            };
            let count = many(callers, seconds, append).await;
            writer.join().expect("no panic").expect("write and sync");
            count
        }
    };
    println!("{:.0}", count as f64 / begin.elapsed().as_secs_f64());
}

/// So many callers, each of which does it again and again for a time; how often they did it.
async fn many<W: Future<Output = ()> + Send>(
    callers: usize,
    seconds: f64,
    work: impl Fn() -> W + Send + Sync + 'static,
) -> u64 {
    let work = Arc::new(work);
    let (count, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (work, count, is_over) = (work.clone(), count.clone(), is_over.clone());
        tasks.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                work().await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    is_over.store(true, Ordering::Relaxed);
    while tasks.join_next().await.is_some() {}
    count.load(Ordering::Relaxed)
}

fn write(mut file: &File, appends: &Receiver<Append>, is_prepared: bool) -> io::Result<()> {
    let (mut end, mut prepared) = (0, 0);
    let mut buffer = Vec::new();
    while let Ok((first, done)) = appends.recv() {
        buffer.clear();
        buffer.extend_from_slice(&first);
        let mut waiting = vec![done];
        while buffer.len() < BATCH_BYTES_MAX
            && let Ok((next, done)) = appends.try_recv()
        {
            buffer.extend_from_slice(&next);
            waiting.push(done);
        }
        let after = end + buffer.len() as u64;
        if is_prepared {
            if prepared < after {
                fallocate(file, FallocateFlags::empty(), prepared, PREPARED_BYTES)?;
                file.sync_all()?;
                prepared += PREPARED_BYTES;
            }
            file.write_all_at(&buffer, end)?;
        } else {
            file.write_all(&buffer)?;
        }
        end = after;
        file.sync_data()?;
        for done in waiting {
            let _ = done.send(());
        }
    }
    Ok(())
}

fn sync_micros(folder: &Path) -> io::Result<u128> {
    let mut file = File::create(folder.join("synced"))?;
    let mut took = Vec::new();
    for _ in 0..1000 {
        file.write_all(&[b'x'; 4096])?;
        let begin = Instant::now();
        file.sync_data()?;
        took.push(begin.elapsed().as_micros());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}
