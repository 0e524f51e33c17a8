//! A TCP port of loopback that stays ours while nobody listens on it: in between another test's
//! server would find it free.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Refuses connections, but for those of its listeners.
pub struct Port {
    pub address: SocketAddr,
    /// Never listens. The kernel gives its port to no one who does not share it as we do.
    _holder: TcpSocket,
}

impl Port {
    /// Takes this one; port 0 is a free one.
    ///
    /// # Panics
    /// When another has it that does not share it.
    pub fn take(address: impl Into<SocketAddr>) -> Self {
        let holder = bound(address.into());
        Self { address: holder.local_addr().expect("it is bound"), _holder: holder }
    }

    /// Takes connections as long as the listener lives.
    ///
    /// # Panics
    /// When it does not let us.
    pub fn listen(&self) -> TcpListener {
        bound(self.address).listen(256).expect("listen")
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.expect("a socket");
    // The first lets connections of the last listener be; the second is for the holder.
    socket.set_reuseaddr(true).expect("reuse the address");
    socket.set_reuseport(true).expect("share the port");
    socket.bind(address).expect("the port is free or ours");
    socket
}
