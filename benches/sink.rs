//! Follows the counter that `smtp-sink -c` writes into a file.
//!
//! `bench-sink FILE COUNT SECONDS` waits until so many messages came, or for so long, and prints
//! `first=… count_at_first=… last=… count=…`: when the first was seen and how many they were then, and
//! the same of the last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PAUSE: Duration = Duration::from_millis(10);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted: u64 = args[1].parse().expect("a count");
    let end = Instant::now() + Duration::from_secs(args[2].parse().expect("seconds"));
    let file = File::open(&args[0])?;
    let (mut first, mut last) = ((0.0, 0), (0.0, 0));
    loop {
        let count = count(&file)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if count != last.1 {
            last = (since.as_secs_f64(), count);
        }
        if first.1 == 0 {
            first = last;
        }
        if wanted <= count || end <= Instant::now() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    let ((first, count_at_first), (last, count)) = (first, last);
    println!("first={first:.3} count_at_first={count_at_first} last={last:.3} count={count}");
    Ok(())
}

/// The last whole counter in the file: `mesg=1234`, which a CR ends.
fn count(file: &File) -> io::Result<u64> {
    let mut tail = [0; 256];
    let begin = file.metadata()?.len().saturating_sub(tail.len() as u64);
    let length = file.read_at(&mut tail, begin)?;
    let text = String::from_utf8_lossy(&tail[..length]);
    let whole = text.rfind('\r').map_or("", |end| &text[..end]);
    let number = whole.rsplit_once("mesg=").map_or("", |(_, number)| number);
    Ok(number.parse().unwrap_or(0))
}
