//! Policies: the knobs of a pool, a rule or a service, with their defaults. SEMANTICS.md argues each number.
//! Durations are milliseconds; shares are parts per million.

use serde::{Deserialize, Serialize};

use super::label::Text;

/// One whole (100 %) in parts per million.
pub const WHOLE: u32 = 1_000_000;

/// Time limits towards an instance, in milliseconds. 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To establish a connection (TCP and TLS). Default 1 s.
    pub connect: u64,
    /// From the request's last byte sent to the answer's head. Default 15 s.
    pub first_byte: u64,
    /// Between two pieces of a body. Default 60 s.
    pub idle: u64,
    /// For the whole exchange, all tries. Default none.
    pub total: u64,
    /// In place of `idle` for tunnels, server-sent events and gRPC streams. Default 5 min.
    pub stream_idle: u64,
    /// The age at which a tunnel, an event stream or a gRPC stream is ended. Default none.
    pub max_stream_age: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: 1_000, first_byte: 15_000, idle: 60_000, total: 0, stream_idle: 300_000, max_stream_age: 0 }
    }
}

/// What an instance is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    H2,
}

impl Protocol {
    /// What the value of an instance's protocol label (`proto` unless configured) means: `h2`, `h2c` and `grpc` are
    /// HTTP/2, whatever the case; everything else, and none, is HTTP/1.1.
    #[must_use]
    pub fn of_label(value: Option<&str>) -> Self {
        let is_h2 = |value: &str| ["h2", "h2c", "grpc"].iter().any(|word| value.eq_ignore_ascii_case(word));
        if value.is_some_and(is_h2) { Self::H2 } else { Self::Http1 }
    }

    /// The word in a rule file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2 => "h2",
        }
    }
}

/// When a request may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// All tries together, the first one included. Default 3; 1 never retries.
    pub attempts: u32,
    /// Connecting failed: nothing was sent.
    pub connect: bool,
    /// The connection broke before an answer's head.
    pub reset: bool,
    /// No head within `first_byte`. Default off.
    pub timeout: bool,
    /// Statuses that are tried again. Default 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Statuses of gRPC that are tried again, a bit each. Default none.
    #[serde(default)]
    pub grpc: u32,
    /// Retries as a share of requests, parts per million. Default 20 %.
    pub budget: u32,
    /// For one try, from its connecting to the answer's head, in ms; 0: none. Default none.
    pub per_try: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            connect: true,
            reset: true,
            timeout: false,
            statuses: vec![502, 503, 504],
            grpc: 0,
            budget: 200_000,
            per_try: 0,
        }
    }
}

/// A second try beside a slow first one, at another endpoint; the first good answer wins (Dean, Barroso: "The Tail at
/// Scale", 2013). Idempotent requests without a body only; spends the retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hedge {
    /// After so many milliseconds without an answer.
    After(u64),
    /// After the 95th percentile of the pool's latency at this worker; not before 50 answers are known.
    P95,
}

/// How much goes on at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// Without a limit.
    #[default]
    Unlimited,
    /// So much.
    Fixed(u32),
    /// As latency allows (`engine::limit::gradient`).
    Adaptive,
}

/// What a service and its instances carry at once. Belongs to the service, as health does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Overload {
    /// Requests at once at one instance, over all workers. Default: no limit.
    pub instance: Concurrency,
    /// Requests that wait for a place at one instance. Default 16.
    pub queue: u32,
    /// How long they wait, ms. Default 100 ms.
    pub wait: u64,
    /// Requests at once in the whole service. Default: no limit.
    pub service: Concurrency,
}

impl Default for Overload {
    fn default() -> Self {
        Self { instance: Concurrency::Unlimited, queue: 16, wait: 100, service: Concurrency::Unlimited }
    }
}

/// How one endpoint of a pool is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The better of two by requests in flight per weight.
    #[default]
    Least,
    /// Peak EWMA of latency times in-flight.
    Ewma,
    /// Static stride.
    RoundRobin,
    /// Weighted alias table.
    Random,
    /// Maglev over the value of a key (a request field, as written).
    Hash(Text),
}

impl Balance {
    /// The word in a rule file.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Least => "least",
            Self::Ewma => "ewma",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Hash(_) => "hash",
        }
    }
}

/// Passive ejection (SEMANTICS.md). A threshold of 0 is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eject {
    /// Failures in a row, of any kind (5xx answers and local failures). Default 5.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 and local failures in a row. Default off.
    pub consecutive_gateway_failure: u32,
    /// Connect failures, resets and timeouts in a row. Default off.
    pub consecutive_local_origin_failure: u32,
    /// The sliding window for rates. Default 10 s.
    pub window: u64,
    /// Requests in the window before a rate counts. Default 5.
    pub min_requests: u32,
    /// Success rate, parts per million, below which (Wilson upper bound) it trips. Default 80 %. 0 is off.
    pub success_rate: u32,
    /// First ejection. Default 30 s; doubled on each repeat.
    pub base_ejection_time: u64,
    /// The longest ejection. Default 300 s.
    pub max_ejection_time: u64,
    /// Share of a pool that may be ejected, parts per million; `None`: 50 %, 100 % where the pool is backed.
    pub max_ejection_percent: Option<u32>,
    /// Endpoints of a pool kept whatever their health; `None`: 1, 0 where the pool is backed.
    pub min_routable: Option<u32>,
    /// Standard deviations below the pool's mean success rate that make an outlier, in thousandths (Envoy). 0 is off.
    pub stdev_factor: u32,
    /// Share of failures in the window, parts per million, at which it trips (Envoy). 0 is off.
    pub failure_percentage: u32,
    /// p90 latency above this many thousandths of the pool's median for `window` trips. 0 is off.
    pub latency_factor: u32,
    /// Off: verdicts are only reported.
    pub enforce: bool,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 0,
            window: 10_000,
            min_requests: 5,
            success_rate: 800_000,
            base_ejection_time: 30_000,
            max_ejection_time: 300_000,
            max_ejection_percent: None,
            min_routable: None,
            stdev_factor: 0,
            failure_percentage: 0,
            latency_factor: 0,
            enforce: true,
        }
    }
}

/// What an active check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A request that must answer with an expected status.
    Http {
        /// Origin-form target.
        path: String,
        /// Default GET.
        method: String,
        /// The Host field; default the instance's address.
        host: Option<String>,
        /// Accepted statuses, inclusive ranges. Default 200–399.
        statuses: Vec<(u16, u16)>,
        /// A header that must be there with this value.
        header: Option<(String, String)>,
        /// Text that the body's first 64 KiB must contain.
        body: Option<String>,
    },
    /// A connection that must open.
    Tcp {
        /// Sent once it is open. Default nothing.
        send: Option<String>,
        /// Text that the first 64 KiB of what comes must contain. Default none: the open connection is enough.
        expect: Option<String>,
    },
    /// The gRPC health checking protocol v1 (`grpc.health.v1.Health/Check`): SERVING passes.
    Grpc {
        /// The service whose health is asked. Default "": the server's as a whole.
        service: String,
        /// The `:authority`; default the instance's address.
        authority: Option<String>,
    },
    /// A program on the proxy's own machine: exit status 0 passes.
    Command {
        /// Program and arguments, given as they are, without a shell; `{address}` and `{port}` are the instance's.
        argv: Vec<String>,
    },
}

/// An active check. Durations in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Between checks. Default 5 s, jitter 20 %.
    pub interval: u64,
    /// Between checks of a passing endpoint that had no request for this long. Default 60 s; at least `interval`.
    pub idle_interval: u64,
    /// For one check. Default 2 s.
    pub timeout: u64,
    /// Passes in a row that make it healthy. Default 2 (the very first verdict needs one).
    pub rise: u32,
    /// Failures in a row that make it unhealthy. Default 3.
    pub fall: u32,
    /// Not routable before the first pass. Default off.
    pub hold_new: bool,
    /// A pass ends a passive ejection before its time. Default off.
    pub check_readmits: bool,
    /// The DNS name that the instance's certificate must be for, whoever it was issued by. Default none.
    /// In braces: `{service}`, and the instance's `{label.KEY}`.
    pub tls_name: Option<Text>,
    /// Whether a check of HTTP or gRPC may be made on the connection of the one before. Default on.
    pub reuse: bool,
}

impl Check {
    /// A check with the defaults of everything else.
    #[must_use]
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: 5_000,
            idle_interval: 60_000,
            timeout: 2_000,
            rise: 2,
            fall: 3,
            hold_new: false,
            check_readmits: false,
            tls_name: None,
            reuse: true,
        }
    }

    /// An open connection is all that is asked.
    pub const CONNECTS: Probe = Probe::Tcp { send: None, expect: None };
}

/// How a new endpoint beside old ones gets its share (Envoy's slow start mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowStart {
    /// How long it takes, in milliseconds. 0: off, the default.
    pub window: u64,
    /// How early it gets most of it, in thousandths: after the part *t* of the window its share is `t^(1/aggression)` of a
    /// whole one, and a tenth at least. Default 1: as its age. Above 1 it grows faster at first, below 1 more slowly.
    pub aggression: u32,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: 0, aggression: 1_000 }
    }
}

impl SlowStart {
    /// Whether there is any.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.window > 0
    }
}

/// Region- and zone-local routing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Locality {
    /// Label keys, widest first. Empty: everybody is level 0.
    pub prefer: Vec<Text>,
    /// Over-provisioning in thousandths: 1400 keeps a level full down to 72 % of it routable.
    pub spill: u32,
    /// Health this long before traffic returns to a better level, ms. Default 10 s.
    pub failback: u64,
    /// A level counts only with at least this many routable. Default 0.
    pub min_local: u32,
}

impl Default for Locality {
    fn default() -> Self {
        Self { prefer: Vec::new(), spill: 1_400, failback: 10_000, min_local: 0 }
    }
}

/// A pool's minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Min {
    /// That many routable endpoints.
    Count(u32),
    /// That share of the pool's catalog instances, parts per million, rounded up.
    Share(u32),
}

impl Default for Min {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Min {
    /// The number of routable endpoints needed in a pool of `size` catalog instances; at least 1.
    #[must_use]
    pub fn of(self, size: usize) -> usize {
        match self {
            Self::Count(count) => (count as usize).max(1),
            Self::Share(ppm) => (size as u64 * u64::from(ppm)).div_ceil(u64::from(WHOLE)).max(1) as usize,
        }
    }
}

/// What a pool does when nobody in it is routable and every fallback was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Panic {
    /// Any endpoint of the pool.
    Any,
    /// 503.
    Fail,
}
