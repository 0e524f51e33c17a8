//! A port at which connecting never ends.

use std::io;
use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A listener that accepts nothing and whose backlog is full: Linux drops whoever knocks then.
pub struct Blackhole {
    pub port: u16,
    _listener: TcpListener,
    _backlog: Vec<JoinHandle<io::Result<TcpStream>>>,
}

impl Blackhole {
    pub async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("it listens");
        let address = listener.local_addr().expect("an address");
        // A backlog of 0 takes one.
        let first = TcpStream::connect(address).await;
        let mut backlog = vec![tokio::spawn(async { first })];
        backlog.extend((0..3).map(|_| tokio::spawn(TcpStream::connect(address))));
        Self { port: address.port(), _listener: listener, _backlog: backlog }
    }
}
