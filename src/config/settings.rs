//! Settings as used. Durations in milliseconds, sizes in bytes, shares in parts per million. Plain: other parts
//! translate them into their own types and destructure them whole.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::consul::Consul;
use super::listen::Listen;
use crate::engine::paths::Paths;

/// A path as written.
pub type PathText = String;

/// Chosen by the proxy, or by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// By the proxy.
    Auto,
    /// By the operator.
    Set(T),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Everything that `run` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where clients connect; never empty. Default 0.0.0.0:8080.
    pub listen: Vec<Listen>,
    /// The operators' listener.
    pub admin: Admin,
    /// Where instances come from.
    pub catalog: Catalog,
    /// The rule files: a folder or a file.
    pub rules: Option<PathText>,
    /// The proxy's own region.
    pub region: Option<String>,
    /// The proxy's own zone.
    pub zone: Option<String>,
    /// Data-plane threads; auto: one a core.
    pub workers: Auto<usize>,
    /// Towards clients.
    pub limits: Limits,
    /// How a request's path is read before rules match it.
    pub paths: Paths,
    /// Towards instances.
    pub upstream: Upstream,
    /// Active checks.
    pub checks: Checks,
    /// Stopping.
    pub drain: Drain,
    /// Who may send X-Forwarded-*, Forwarded and PROXY protocol.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `x-request-id` is kept or made. Default true.
    pub request_id: bool,
    /// Whether `Forwarded` (RFC 7239) is added beside X-Forwarded-*. Default false.
    pub forwarded: bool,
    /// Whether `Via` is added. Default false.
    pub via: bool,
    /// Protocols that a client may ask to change to, lower case. Default `websocket`.
    pub upgrades: Vec<String>,
    /// Whether field names with an underscore are passed on. Default false.
    pub underscores: bool,
    /// Whether `x-pointsman-error` is added to our own errors. Default true.
    pub error_header: bool,
    /// Whose Host the instance sees.
    pub host_header: HostHeader,
    /// `None`: off.
    pub access_log: Option<AccessLog>,
    /// What a change of the rule files may move before it is held against it.
    pub guard: Guard,
    /// Rules that are evaluated beside those in force; `None`: none.
    pub shadow: Option<Shadow>,
    /// A label's spellings in the catalog, first one present wins; in written order.
    pub label_keys: Vec<(String, Vec<String>)>,
    /// Whether answers carry x-pointsman-rule, -pool, -instance, -draw. Default false.
    pub debug_headers: bool,
    /// Who may see how one request was decided; `None`: nobody.
    pub debug_token: Option<DebugToken>,
    /// The process's own log.
    pub log: Log,
    /// Bounds on metrics.
    pub metrics: Metrics,
    /// What the whole process carries.
    pub overload: Overload,
}

/// Tokens for the trace of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugToken {
    /// The key that they are made with: at least 16 bytes. Read again when it changes.
    pub key_file: PathText,
}

/// The operators' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Default 127.0.0.1:9900. `None`: no admin listener (`admin: {address: off}`).
    pub address: Option<SocketAddr>,
    /// Holds the token that actions need off loopback.
    pub token_file: Option<PathText>,
    /// Host names that requests may name beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Descriptors kept for it. Default 8.
    pub reserve: usize,
}

/// Where instances come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// The source.
    pub source: CatalogSource,
    /// Changes within this time go together. Default 100 ms.
    pub debounce: u64,
}

/// The kinds of catalog.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogSource {
    /// Consul, by blocking queries.
    Consul(Box<Consul>),
    /// A catalog file, watched.
    File(PathText),
}

/// Towards clients (HARDENING.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a request's head. Default 10 s.
    pub head: u64,
    /// For the TLS handshake. Default 10 s.
    pub tls_handshake: u64,
    /// Between two pieces of a request body. Default 30 s.
    pub body_idle: u64,
    /// That a client is waited for in all while it sends one. Default 300 s; 0: no limit.
    pub body: u64,
    /// Bytes that are worth a second more than `body`. Default 16 KiB; 0: none are.
    pub body_rate: u64,
    /// Bytes of a body that are kept for another try. Default 64 KiB.
    pub replay_size: u64,
    /// Without progress in writing. Default 30 s, and by connection up to half of it more.
    pub write_idle: u64,
    /// Idle between requests. Default 60 s.
    pub keep_alive: u64,
    /// A connection's age. Default 1 h.
    pub connection_age: u64,
    /// A request's head, bytes. Default 64 KiB.
    pub head_size: u64,
    /// A request's target, bytes. Default 8 KiB.
    pub target_size: u64,
    /// Fields of a head. Default 100.
    pub fields: u32,
    /// Client connections; auto: from the descriptor limit.
    pub connections: Auto<u32>,
    /// Bytes of buffers; auto: 70 % of what there is.
    pub memory: Auto<u64>,
    /// Connections from one address. Default 0: no limit.
    pub connections_per_address: u32,
    /// Of the listening sockets. Default 4096.
    pub backlog: u32,
    /// Bytes of answers that the system holds for a client beyond what is on its way. Default 128 KiB; 0: as the system
    /// likes.
    pub unsent: u64,
    /// Streams of one HTTP/2 connection. Default 100.
    pub h2_streams: u32,
    /// Bytes that a client may send ahead on a stream. Default 64 KiB.
    pub h2_window: u64,
    /// The same over all streams of a connection. Default 1 MiB.
    pub h2_connection_window: u64,
    /// Requests that a client may take back within 10 s. Default 50.
    pub h2_resets: u32,
    /// Streams that are reset for a client's errors. Default 256.
    pub h2_own_resets: u32,
    /// Frames that carry nothing, within 10 s. Default 10,000.
    pub h2_frames: u32,
    /// Bytes of an answer that wait for the client on a stream. Default 32 KiB.
    pub h2_send_buffer: u64,
}

/// What the whole process carries, over all listeners and workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    /// Requests at once; those above it get 503 before they are decided. Default 0: no limit.
    pub requests: u32,
    /// Paths, by segment, that go past every limit: those by which others judge our health. Default none.
    pub exempt_paths: Vec<String>,
}

/// Towards instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// How long an idle connection is kept; auto: learned per endpoint.
    pub idle: Auto<u64>,
    /// Connections to one endpoint, over all workers; 0: no limit.
    pub max_connections: u32,
    /// The key of the label that names an instance's protocol. Default `proto`.
    pub protocol_label: String,
    /// An answer's head, bytes. Default 64 KiB.
    pub head_size: u64,
    /// Streams at once on one HTTP/2 connection. Default 100.
    pub h2_streams: u32,
}

/// Active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Whether rule files may have programs of this machine run (`check: {command: […]}`). Default false.
    pub allow_commands: bool,
}

/// Stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Accepting goes on for this long after `/ready` turned 503. Default 5 s.
    pub delay: u64,
    /// Then what runs may take this long. Default 30 s.
    pub timeout: u64,
}

/// Whose Host the instance sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Client,
    /// The instance's own address.
    Instance,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// `stdout`, `stderr` or a file.
    pub path: String,
    /// Share of requests. Default 100 %.
    pub sample: u32,
    /// Lines that may wait for the writer. Default 16,384.
    pub queue: usize,
    /// Fields written as a keyed hash.
    pub redact: Vec<String>,
}

/// The guard of rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Default warn.
    pub mode: GuardMode,
    /// Part of the recent requests that may go elsewhere by surprise, per million. Default 30 %.
    pub max_moved: u32,
    /// Recent requests that may be unrouted after and were not before. Default 0.
    pub max_unrouted: u64,
}

/// Rules that are evaluated beside those in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// A folder or a file.
    pub rules: String,
    /// Share of requests. Default 100 %.
    pub sample: u32,
    /// Where disagreements are written: `stdout`, `stderr` or a file. `None` (`off`, the default): only the last few
    /// are kept.
    pub log: Option<String>,
    /// Disagreements that may wait for the writer. Default 1,024.
    pub queue: usize,
    /// Fields written as a keyed hash.
    pub redact: Vec<String>,
}

/// What the guard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardMode {
    /// Nothing; no request is sampled.
    Off,
    /// A change over a limit is applied, and said.
    Warn,
    /// A change over a limit is refused.
    Enforce,
}

/// The process's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Default text.
    pub format: LogFormat,
    /// Filter directives; `POINTSMAN_LOG` wins. Default `info`.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Bounds on metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Distinct values of one catalog label within a service. Default 200.
    pub label_values: usize,
    /// Series of one family. Default 20,000.
    pub series: usize,
}
