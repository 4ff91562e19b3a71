//! What the data plane is told about requests. Durations in milliseconds, sizes in bytes.

use http::HeaderValue;
use ipnet::IpNet;

use super::patience::Patience;
use crate::engine::paths::Paths;

/// Settings of the forwarding side; the same for every worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Peers whose X-Forwarded-* are kept and extended. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// `x-request-id` is kept, or made where it is missing. Default on.
    pub request_id: bool,
    /// `Forwarded` (RFC 7239) is added beside X-Forwarded-*. Default off.
    pub forwarded: bool,
    /// `Via` is added both ways. Default off.
    pub via: bool,
    /// Our own errors carry `x-pointsman-error`. Default on.
    pub error_header: bool,
    /// Answers carry `x-pointsman-rule`, `-pool`, `-level`, `-instance`, `-draw`. Default off.
    pub debug_headers: bool,
    /// The instance sees its own address as Host, not the client's. Default off.
    pub host_of_instance: bool,
    /// Field names with an underscore are passed on. Default off.
    pub underscores: bool,
    /// How paths are read. HARDENING.md argues the defaults.
    pub paths: Paths,
    /// A request's target. Default 8 KiB; above it 414.
    pub target_size: usize,
    /// Fields in a request's head. Default 100; above it 431. HTTP/1's are counted as they are read.
    pub fields: usize,
    /// How long a client is waited for that sends a request's body. Default 30 s between two pieces, 300 s in all, and a
    /// second more for each 16 KiB; past it 408.
    pub patience: Patience,
    /// An answer's head. Default 64 KiB; above it 502.
    pub answer_head: usize,
    /// Streams at once on one HTTP/2 connection to an instance. Default 100.
    pub upstream_streams: u32,
    /// Protocols that `Upgrade` may name, lower case. Default `websocket`.
    pub upgrades: Vec<String>,
    /// The key of the label that names an instance's protocol: `h2c`, `h2` and `grpc` are HTTP/2. Default `proto`.
    pub protocol_label: String,
    /// How long an idle connection to an instance is kept at most, ms. Default `None`: 30 s, over HTTP/2 60 s. What an
    /// instance shows of its own limit makes it less.
    pub upstream_idle: Option<u64>,
    /// Connections to one instance over all workers. Default 0: no limit.
    pub max_connections: u32,
    /// Bytes of a request's body kept for a second try. Default 64 KiB.
    pub replay_size: usize,
    /// Requests at once in the whole process; those above it get 503 before they are decided. Default 0: no limit.
    pub requests: u32,
    /// Paths, by segment, that go past every limit. Default none.
    pub exempt_paths: Vec<String>,
    /// What `Retry-After` says on a 503 for want of instances. Default 1 s.
    pub retry_after: HeaderValue,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            request_id: true,
            forwarded: false,
            via: false,
            error_header: true,
            debug_headers: false,
            host_of_instance: false,
            underscores: false,
            paths: Paths::default(),
            target_size: 8 * 1024,
            fields: 100,
            patience: Patience::default(),
            answer_head: 64 * 1024,
            upstream_streams: 100,
            upgrades: vec!["websocket".to_owned()],
            protocol_label: "proto".to_owned(),
            upstream_idle: None,
            max_connections: 0,
            replay_size: 64 * 1024,
            requests: 0,
            exempt_paths: Vec::new(),
            retry_after: HeaderValue::from_static("1"),
        }
    }
}
