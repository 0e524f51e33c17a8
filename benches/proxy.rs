//! `bench-proxy LISTEN TARGET MILLIS`: passes TCP connections on, and lets each byte of an answer
//! arrive so much later. It delays only: as much as comes may be under way.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep_until};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let delay = Duration::from_millis(args[2].parse().expect("milliseconds"));
    let listener = TcpListener::bind(&args[0]).await?;
    loop {
        let (caller, _) = listener.accept().await?;
        let target = args[1].clone();
        tokio::spawn(async move {
            // Whoever hangs up ends it; what is lost then was lost by them.
            let _ = pass_on(caller, &target, delay).await;
        });
    }
}

async fn pass_on(caller: TcpStream, target: &str, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    caller.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_caller, to_caller) = caller.into_split();
    let (from_server, mut to_server) = server.into_split();
    let asked = async {
        copy(&mut from_caller, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(asked, later(from_server, to_caller, delay))?;
    Ok(())
}

async fn later(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, mut arrived) = unbounded_channel();
    let read = async move {
        loop {
            let mut bytes = Vec::with_capacity(4096);
            if from.read_buf(&mut bytes).await? == 0
                || sender.send((Instant::now(), bytes)).is_err()
            {
                return io::Result::Ok(());
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = arrived.recv().await {
            sleep_until(at + delay).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write)?;
    Ok(())
}
