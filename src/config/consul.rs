//! `catalog.consul`: every number of the subscriber's specification (CATALOGS.md section 2) as a setting.
//! Durations in milliseconds, sizes in bytes, shares in parts per million, rates in thousandths per second.

use super::scope::{Context, Scope};
use super::settings::{PathText, Secret};
use super::value::{choice, duration, duration_or_never, flag, rate, share, size, text, whole};

/// The Consul source.
#[derive(Clone, Debug, PartialEq)]
pub struct Consul {
    /// Agents, in order: `http://`, `https://` or `unix://`. Default http://127.0.0.1:8500.
    pub address: Vec<String>,
    /// A literal token.
    pub token: Option<Secret>,
    /// A file that holds the token; read again on change and on 403.
    pub token_file: Option<PathText>,
    /// `user:password` for a proxy in front of the agent.
    pub auth: Option<Secret>,
    /// Sent when set.
    pub namespace: Option<String>,
    /// Sent when set.
    pub partition: Option<String>,
    /// Sent when set.
    pub peer: Option<String>,
    /// Datacenters, a subscription each; empty: the agent's own.
    pub dc: Vec<String>,
    /// TLS to the agent.
    pub tls: ConsulTls,
    /// Services by what they are.
    pub select: Select,
    /// Connections and time limits.
    pub transport: Transport,
    /// The loop of a watch.
    pub watch: Subscription,
    /// Limits on requests.
    pub rates: Rates,
    /// When things may vanish.
    pub hold: Hold,
    /// The disk copy; `None`: no copy.
    pub disk: Option<Disk>,
    /// From entry to instance.
    pub mapping: Mapping,
}

/// TLS to the agent (T1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulTls {
    /// Whose certificates are believed; `None`: the system's.
    pub ca_file: Option<PathText>,
    /// Our certificate.
    pub cert_file: Option<PathText>,
    /// Its key.
    pub key_file: Option<PathText>,
    /// The name to expect; `None`: the address's.
    pub server_name: Option<String>,
    /// Default true.
    pub verify: bool,
}

/// Services by what they are (D1); all empty: only the names that rules use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// Any of these tags.
    pub tags: Vec<String>,
    /// Any of these name prefixes.
    pub prefix: Vec<String>,
    /// Names that this matches whole.
    pub regex: Option<String>,
    /// Connect proxies and gateways too. Default false.
    pub kinds: bool,
}

/// Connections and time limits (T1 to T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// To one address. Default 64.
    pub max_connections: u32,
    /// Transport errors in a row before the next address. Default 3.
    pub failover_after: u32,
    /// Of a blocked query. Default 55 s.
    pub wait: u64,
    /// Added to wait × 17/16 for an answer's head. Default 10 s.
    pub head_grace: u64,
    /// Connecting and handshake. Default 3 s.
    pub connect: u64,
    /// Between pieces of a body. Default 10 s.
    pub body_idle: u64,
    /// Of one answer, inflated. Default 64 MiB.
    pub max_body: u64,
    /// Ask for gzip; `None`: unless the agent is on this host.
    pub gzip: Option<bool>,
}

/// The loop of a watch (2.3, D4, D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Full read, default consistency; ± 20 %. Default 5 min.
    pub resync: u64,
    /// Default true.
    pub stale: bool,
    /// `X-Consul-Lastcontact` above it is re-read. Default 5 s.
    pub max_stale: u64,
    /// First fetches at once. Default 16.
    pub initial_fetches: u32,
}

/// Limits on requests (L5, D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one watch, at once. Default 5.
    pub watch_burst: u32,
    /// Of one address. Default 50/s.
    pub address: u64,
}

/// When things may vanish (2.5). `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Repetitions that confirm lie this far apart. Default 2 s.
    pub confirm: u64,
    /// An unconfirmed removal is accepted after this. Default 60 s; 0 in the file is `None`: never.
    pub max: Option<u64>,
    /// A removal that looks like a lost permission. Default never.
    pub acl: Option<u64>,
    /// Mass guard: share of all instances. Default 50 %.
    pub mass_share: u32,
    /// Mass guard: at least so many. Default 10.
    pub mass_count: u32,
    /// Mass guard: within this. Default 5 s.
    pub mass_window: u64,
    /// Older state is given up; 0: never. Default 0.
    pub max_stale_age: u64,
}

/// The disk copy (E7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathText,
    /// Older is ignored. Default 24 h.
    pub max_age: u64,
    /// Loaded at start when the catalog has not answered by then. Default 2 s.
    pub after: u64,
    /// Written at most this often. Default 1 s.
    pub interval: u64,
}

/// From entry to instance (2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `service`, or the name of a tagged address (`lan`, `wan`, …). Default service.
    pub address: String,
    /// Host names are resolved this often. Default 30 s.
    pub resolve_every: u64,
    /// For one resolution. Default 5 s.
    pub resolve_timeout: u64,
    /// Statuses that take traffic: (passing, warning). Default both.
    pub ok_states: (bool, bool),
    /// The last instances of a service stay this long after turning critical together. Default 2 s.
    pub last_instance_grace: u64,
    /// Between key and value in a tag. Default `=`.
    pub tag_separator: String,
}

/// Of a compiled pattern.
const PATTERN_SIZE: usize = 1 << 20;

/// Reads `catalog.consul`.
pub fn read(mut at: Scope<'_>, cx: &mut Context<'_>) -> Consul {
    let consul = Consul {
        address: at.list("address", "http://127.0.0.1:8500", agent, cx),
        token: at.secret("token", cx).map(Secret),
        token_file: at.optional("token_file", text, cx),
        auth: at.secret("auth", cx).map(Secret),
        namespace: at.optional("namespace", text, cx),
        partition: at.optional("partition", text, cx),
        peer: at.optional("peer", text, cx),
        dc: at.list("dc", "", text, cx),
        tls: tls(at.map("tls", cx), cx),
        select: select(at.map("select", cx), cx),
        transport: transport(at.map("transport", cx), cx),
        watch: watch(at.map("watch", cx), cx),
        rates: rates(at.map("rates", cx), cx),
        hold: hold(at.map("hold", cx), cx),
        disk: disk(at.map("disk", cx), cx),
        mapping: mapping(at.map("mapping", cx), cx),
    };
    at.finish(cx);
    consul
}

fn agent(address: &str) -> Result<String, String> {
    let rest = ["http://", "https://", "unix://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(address.trim_end_matches('/').to_owned()),
        _ => Err(format!("`{address}` is no agent's address; write http://127.0.0.1:8500, https://… or unix:///…")),
    }
}

fn count(max: u64) -> impl Fn(&str) -> Result<u32, String> {
    move |text| whole(1, max)(text).map(|n| n as u32)
}

fn tls(mut at: Scope<'_>, cx: &mut Context<'_>) -> ConsulTls {
    let tls = ConsulTls {
        ca_file: at.optional("ca_file", text, cx),
        cert_file: at.optional("cert_file", text, cx),
        key_file: at.optional("key_file", text, cx),
        server_name: at.optional("server_name", text, cx),
        verify: at.value("verify", "true", flag, cx),
    };
    at.finish(cx);
    tls
}

fn select(mut at: Scope<'_>, cx: &mut Context<'_>) -> Select {
    let pattern = |text: &str| {
        let built = regex::RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
        built.map(|_| text.to_owned()).map_err(|error| format!("`{text}` is no pattern: {error}"))
    };
    let select = Select {
        tags: at.list("tags", "", text, cx),
        prefix: at.list("prefix", "", text, cx),
        regex: at.optional("regex", pattern, cx),
        kinds: at.value("kinds", "false", flag, cx),
    };
    at.finish(cx);
    select
}

fn transport(mut at: Scope<'_>, cx: &mut Context<'_>) -> Transport {
    let gzip = choice(&[("auto", None), ("true", Some(true)), ("false", Some(false))]);
    let transport = Transport {
        max_connections: at.value("max_connections", "64", count(10_000), cx),
        failover_after: at.value("failover_after", "3", count(1_000), cx),
        wait: at.value("wait", "55s", duration, cx),
        head_grace: at.value("head_grace", "10s", duration, cx),
        connect: at.value("connect", "3s", duration, cx),
        body_idle: at.value("body_idle", "10s", duration, cx),
        max_body: at.value("max_body", "64MiB", size, cx),
        gzip: at.value("gzip", "auto", gzip, cx),
    };
    at.finish(cx);
    transport
}

fn watch(mut at: Scope<'_>, cx: &mut Context<'_>) -> Subscription {
    let watch = Subscription {
        resync: at.value("resync", "5m", duration, cx),
        stale: at.value("stale", "true", flag, cx),
        max_stale: at.value("max_stale", "5s", duration, cx),
        initial_fetches: at.value("initial_fetches", "16", count(1_000), cx),
    };
    at.finish(cx);
    watch
}

fn rates(mut at: Scope<'_>, cx: &mut Context<'_>) -> Rates {
    let rates = Rates {
        watch_burst: at.value("watch_burst", "5", count(1_000), cx),
        address: at.value("address", "50/s", rate, cx),
    };
    at.finish(cx);
    rates
}

fn hold(mut at: Scope<'_>, cx: &mut Context<'_>) -> Hold {
    let hold = Hold {
        confirm: at.value("confirm", "2s", duration, cx),
        max: at.value("max", "60s", duration_or_never, cx).filter(|ms| *ms > 0),
        acl: at.value("acl", "never", duration_or_never, cx).filter(|ms| *ms > 0),
        mass_share: at.value("mass_share", "50%", share, cx),
        mass_count: at.value("mass_count", "10", count(1_000_000), cx),
        mass_window: at.value("mass_window", "5s", duration, cx),
        max_stale_age: at.value("max_stale_age", "0", duration, cx),
    };
    at.finish(cx);
    hold
}

fn disk(mut at: Scope<'_>, cx: &mut Context<'_>) -> Option<Disk> {
    let path = at.optional("path", text, cx);
    let max_age = at.value("max_age", "24h", duration, cx);
    let after = at.value("after", "2s", duration, cx);
    let interval = at.value("interval", "1s", duration, cx);
    at.finish(cx);
    Some(Disk { path: path?, max_age, after, interval })
}

fn mapping(mut at: Scope<'_>, cx: &mut Context<'_>) -> Mapping {
    let state = choice(&[("passing", (true, false)), ("warning", (false, true))]);
    let mapping = Mapping {
        address: at.value("address", "service", text, cx),
        resolve_every: at.value("resolve_every", "30s", duration, cx),
        resolve_timeout: at.value("resolve_timeout", "5s", duration, cx),
        ok_states: at
            .list("ok_states", "passing, warning", state, cx)
            .into_iter()
            .fold((false, false), |all, one| (all.0 | one.0, all.1 | one.1)),
        last_instance_grace: at.value("last_instance_grace", "2s", duration, cx),
        tag_separator: at.value("tag_separator", "=", text, cx),
    };
    at.finish(cx);
    mapping
}
