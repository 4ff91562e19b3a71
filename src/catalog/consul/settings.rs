//! Settings of the Consul source: every number of CATALOGS.md section 2, with its default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::instance::Status;

/// The Consul source's settings. `config` reads them; the literal tokens in here are never logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `http://`, `https://` or `unix://` addresses, one or a list; the first that works is used, the next one after
    /// `move_after` transport errors in a row. Default `http://127.0.0.1:8500`.
    pub address: Vec<String>,
    /// The ACL token. Prefer `token_file`. Never logged.
    pub token: Option<String>,
    /// A file with the ACL token; read again when it changes and on every 403.
    pub token_file: Option<PathBuf>,
    /// `user:password` for a proxy in front of Consul (HTTP Basic). Never logged.
    pub http_auth: Option<String>,
    /// TLS towards `https://` addresses.
    pub tls: Tls,
    /// Datacenters to subscribe to, one or a list; each is a subscription of its own, and one's failure marks only
    /// that one stale. Empty: the agent's own.
    pub dc: Vec<String>,
    /// Enterprise namespace; sent only when set.
    pub namespace: Option<String>,
    /// Enterprise partition; sent only when set.
    pub partition: Option<String>,
    /// Cluster peer; sent only when set.
    pub peer: Option<String>,
    /// Sameness group; sent only when set.
    pub sameness_group: Option<String>,
    /// Services besides those that the rules name.
    pub select: Select,
    /// Which of an instance's addresses is used: `service`, or a name of `TaggedAddresses` such as `lan` or `wan`.
    pub address_from: String,
    /// Catalog states that may take traffic. Default passing and warning.
    pub ok_states: Vec<Status>,
    /// How long the last routable instances of a service that all turn critical together keep their traffic (an agent
    /// that restarts makes its HTTP checks critical for a moment); applied where tables are published. 0: off.
    /// Default 2 s.
    pub last_instance_grace: Duration,
    /// Text between key and value in a tag. Default `=`.
    pub tag_separator: String,
    /// Other spellings of label keys, first present one wins: `version: [ver, app-version]`. Default none.
    pub label_keys: BTreeMap<String, Vec<String>>,
    /// Whether instances whose `Kind` is not empty (Connect proxies and gateways) are read. Default no.
    pub proxies: bool,
    /// How long Consul may hold a query. 1 s to 10 min; default 55 s, so that with Consul's own sixteenth on top it stays
    /// under the usual 60 s of proxies.
    pub wait: Duration,
    /// Whether any server may answer (`stale`). Default yes.
    pub stale: bool,
    /// The age of a stale answer above which it is read again from the leader. Default 5 s.
    pub max_stale: Duration,
    /// Time for connecting and the TLS handshake. Default 3 s.
    pub connect_timeout: Duration,
    /// Time for the head of an answer on top of what the query may be held. Default 10 s (7.3 s is what Consul takes
    /// to notice that it has no leader).
    pub head_timeout: Duration,
    /// Time between parts of a body. Default 10 s.
    pub body_idle: Duration,
    /// Bytes of a body, as sent and inflated. Default 64 MiB (50,000 instances are 55).
    pub max_body: usize,
    /// Connections to one address at most. Default 64: twice that plus company stays under Consul's 200 a client.
    pub max_connections: usize,
    /// Transport errors in a row after which the next address is tried. Default 3.
    pub move_after: u32,
    /// Whether answers may be compressed: `auto` (not on loopback or a socket), `always`, `never`.
    pub gzip: Gzip,
    /// Requests a second to one address. Default 50.
    pub requests_per_second: u32,
    /// Requests that one watch may make in a row before it is held to one a second. Default 5.
    pub burst: u32,
    /// Between full readings of a service, give or take a fifth. Default 5 min.
    pub resync: Duration,
    /// First fetches at once at start. Default 16.
    pub initial_fetches: usize,
    /// Changes within this time of the first one go together. Default 100 ms.
    pub gather: Duration,
    /// How long an untrusted loss is held before it is accepted with a warning; 0: until an operator accepts it.
    /// Default 60 s.
    pub hold_max: Duration,
    /// The same where the loss looks like a withdrawn permission. Default 0, for ever.
    pub hold_acl: Duration,
    /// Between the two equal readings that confirm a small loss. Default 2 s.
    pub confirm_after: Duration,
    /// The guard against mass removal.
    pub mass_guard: MassGuard,
    /// The copy on disk for a warm start.
    pub disk: Disk,
    /// Age of the last good answer after which a service's state is dropped although the catalog is unreachable.
    /// Default 0: never.
    pub max_stale_age: Duration,
    /// Between resolutions of an instance's host name. Default 30 s.
    pub resolve_interval: Duration,
    /// Time for one resolution. Default 5 s.
    pub resolve_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            address: Vec::new(),
            token: None,
            token_file: None,
            http_auth: None,
            tls: Tls::default(),
            dc: Vec::new(),
            namespace: None,
            partition: None,
            peer: None,
            sameness_group: None,
            select: Select::default(),
            address_from: "service".to_owned(),
            ok_states: vec![Status::Passing, Status::Warning],
            last_instance_grace: secs(2),
            tag_separator: "=".to_owned(),
            label_keys: BTreeMap::new(),
            proxies: false,
            wait: secs(55),
            stale: true,
            max_stale: secs(5),
            connect_timeout: secs(3),
            head_timeout: secs(10),
            body_idle: secs(10),
            max_body: 64 << 20,
            max_connections: 64,
            move_after: 3,
            gzip: Gzip::Auto,
            requests_per_second: 50,
            burst: 5,
            resync: secs(300),
            initial_fetches: 16,
            gather: Duration::from_millis(100),
            hold_max: secs(60),
            hold_acl: Duration::ZERO,
            confirm_after: secs(2),
            mass_guard: MassGuard::default(),
            disk: Disk::default(),
            max_stale_age: Duration::ZERO,
            resolve_interval: secs(30),
            resolve_timeout: secs(5),
        }
    }
}

/// TLS towards Consul. Files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that sign Consul's (PEM). Default: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// The name that Consul's certificate must carry. Default: the address's host.
    pub server_name: Option<String>,
    /// Accepts any certificate. For tests on a bench; a warning is logged.
    pub insecure: bool,
}

/// Services besides those that the rules name, chosen over the catalog's list. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Services with one of these tags on some instance.
    pub tags: Vec<String>,
    /// Services whose name starts with one of these.
    pub prefixes: Vec<String>,
    /// Services whose whole name matches.
    pub matches: Option<String>,
}

/// When answers may be compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gzip {
    /// Not on loopback or a socket.
    #[default]
    Auto,
    /// On every address.
    Always,
    /// On none.
    Never,
}

/// Holds everything back when too much of the catalog would go at once.
#[derive(Clone, Debug, PartialEq)]
pub struct MassGuard {
    /// Percent of all instances above which a removal is held; 100 switches the guard off. Default 50.
    pub percent: u32,
    /// And at least so many instances. Default 10.
    pub at_least: usize,
    /// Removals within this time are counted together. Default 5 s.
    pub within: Duration,
}

impl Default for MassGuard {
    fn default() -> Self {
        Self { percent: 50, at_least: 10, within: Duration::from_secs(5) }
    }
}

/// The copy on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file. `None`: no copy is kept.
    pub path: Option<PathBuf>,
    /// A copy older than this is ignored. Default 24 h.
    pub max_age: Duration,
    /// How long Consul may take to answer at start before the copy is loaded. Default 2 s.
    pub load_after: Duration,
    /// Between two writes at least. Default 1 s.
    pub min_interval: Duration,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            path: None,
            max_age: Duration::from_secs(24 * 3600),
            load_after: Duration::from_secs(2),
            min_interval: Duration::from_secs(1),
        }
    }
}
