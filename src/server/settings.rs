//! Where clients connect, and limits on their connections. Durations in milliseconds, sizes in bytes; HARDENING.md
//! argues the defaults.

use std::net::SocketAddr;
use std::sync::Arc;

use super::passthrough::Passes;
use super::tls::Terminator;
use crate::forward::connection::Entrance;

/// One listening address.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Port 0: chosen by the system.
    pub address: SocketAddr,
    /// `None`: plain.
    pub tls: Option<Arc<Terminator>>,
    /// Connections begin with a PROXY protocol head, and come from trusted proxies only. Default off.
    pub proxy_protocol: bool,
    /// Bytes are passed on unread, and no HTTP is spoken. Default `None`.
    pub passes: Option<Passes>,
    /// What holds for every request that comes in here.
    pub entrance: Entrance,
}

impl Listen {
    /// Plain HTTP.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, proxy_protocol: false, passes: None, entrance: Entrance::default() }
    }
}

/// Limits on client connections; the same for every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a request's head, from its first byte. Default 10 s; then 408.
    pub head: u64,
    /// For a TLS handshake. Default 10 s; then the connection is cut.
    pub tls_handshake: u64,
    /// A request's head. Default 64 KiB; above it 431.
    pub head_size: usize,
    /// Fields of a head. Default 100; above it 431.
    pub fields: usize,
    /// Between two requests, and before the first. Default 60 s, with 10 % jitter.
    pub keep_alive: u64,
    /// For a write that makes no progress. Default 30 s, and by connection up to half of it more; then it is cut.
    pub write_idle: u64,
    /// After which a connection's next answer is its last. Default 1 h, with 10 % jitter. 0: never.
    pub connection_age: u64,
    /// Idle for this long, a connection gives its buffers back. Default 1 s.
    pub rest_after: u64,
    /// Client connections at once, over all workers.
    pub connections: usize,
    /// Connections from one address, over all workers; those above it are closed. Trusted proxies have no limit. Default 0: no
    /// limit.
    pub per_address: u32,
    /// Bytes in the account of memory, over all workers. Default 0: no limit.
    pub memory: u64,
    /// The listen queue. Default 4,096.
    pub backlog: i32,
    /// Bytes that the system takes for a client beyond what is on its way to it. Default 128 KiB; 0: as the system likes,
    /// which may be 4 MiB for each one that does not read.
    pub unsent: u32,
    /// Over HTTP/2.
    pub h2: H2Limits,
}

/// Limits on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Limits {
    /// Streams at once. Default 100.
    pub streams: u32,
    /// Bytes that a client may send on a stream before they are taken. Default 64 KiB; for a client that uploads while memory
    /// is ample 256 KiB, within the connection's.
    pub stream_window: u32,
    /// The same over all streams. Default 1 MiB.
    pub connection_window: u32,
    /// A request's head, decoded. Default 64 KiB; above it 431.
    pub header_list: u32,
    /// Bytes of an answer that wait for the client, on each stream. Default 32 KiB.
    pub send_buffer: usize,
    /// Requests that the client takes back within 10 s, before it is given up if they are also most of what it asked.
    /// Default 50.
    pub resets: u32,
    /// Streams that we reset for the client's errors before it is given up (MadeYouReset). Default 256.
    pub own_resets: u32,
    /// Frames within 10 s that carry nothing (PING, SETTINGS, PRIORITY, RST_STREAM, empty DATA, unknown ones), and as many that
    /// open windows, before the client is given up. What is asked and sent meanwhile adds to them. Default 10,000.
    pub frames: u32,
}

impl Default for H2Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            header_list: 64 * 1024,
            send_buffer: 32 * 1024,
            resets: 50,
            own_resets: 256,
            frames: 10_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 10_000,
            tls_handshake: 10_000,
            head_size: 64 * 1024,
            fields: 100,
            keep_alive: 60_000,
            write_idle: 30_000,
            connection_age: 3_600_000,
            rest_after: 1_000,
            connections: 65_536,
            per_address: 0,
            memory: 0,
            backlog: 4_096,
            unsent: 128 * 1024,
            h2: H2Limits::default(),
        }
    }
}
