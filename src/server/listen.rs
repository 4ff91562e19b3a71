//! Listening sockets: one for each address and worker, so that the system spreads connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds `address` once for each of `workers`. A port 0 is chosen by the system, the same for all of them. `backlog`:
/// connections that wait to be accepted. `unsent`: bytes that the system takes for a client beyond what is on its way to
/// it, so that one that does not read costs the system that and not megabytes; 0: as the system likes.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(
    address: SocketAddr,
    workers: usize,
    backlog: i32,
    unsent: u32,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = listener(address, backlog, unsent)?;
    let bound = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..workers {
        all.push(listener(bound, backlog, unsent)?);
    }
    Ok((bound, all))
}

fn listener(address: SocketAddr, backlog: i32, unsent: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit both, which saves system calls.
    socket.set_tcp_nodelay(true)?;
    if unsent > 0 {
        socket.set_tcp_notsent_lowat(unsent)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_that_was_chosen() {
        let (bound, sockets) = bind("127.0.0.1:0".parse().unwrap(), 3, 16, 0).unwrap();
        assert_ne!(bound.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == bound));
    }
}
