//! What an explanation tells of limits: those in force, and, of a live proxy, what is left.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::engine::limit::rate::Rate;
use crate::engine::policy::{Concurrency, Hedge, Overload};
use crate::engine::route::{RouterFile, RulePolicies};

/// Limits in force for a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitsNote {
    /// `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitNote>,
    /// `hedge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// `overload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// Live: retries and hedges that the service's budget still allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_left: Option<u64>,
    /// Live: requests of the service that go on, and the most of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<(u32, u32)>,
    /// Live: requests that wait for a place at one of the service's instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Live: bytes in the process's account of memory, and the most of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<(u64, u64)>,
}

/// A `limit`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitNote {
    /// The rule that it stands in; empty: at the file's top.
    pub of: String,
    /// Requests at once; 0: no limit.
    pub concurrency: u32,
    /// Requests a second in thousandths; 0: no limit.
    pub rate_milli: u64,
    /// Requests that may come at once after a pause.
    pub burst: u64,
    /// What it counts by; `None`: all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Live: requests that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u32>,
    /// Live: tokens left; where it counts by a key, for the request that is explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

impl LimitsNote {
    /// As the rules say.
    #[must_use]
    pub fn of(file: &RouterFile, policies: &RulePolicies) -> Self {
        let limit = policies.message.limit.as_ref().map(|limit| LimitNote {
            of: policies.limit_of.to_string(),
            concurrency: limit.concurrency,
            rate_milli: limit.rate_milli,
            burst: if limit.rate_milli > 0 { Rate::new(limit.rate_milli, u64::from(limit.burst)).burst } else { 0 },
            key: limit.key.as_ref().map(ToString::to_string),
            ..LimitNote::default()
        });
        Self { limit, hedge: policies.hedge, overload: file.overload, ..Self::default() }
    }

    /// As lines of an explanation.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut String) -> fmt::Result {
        if let Some(limit) = &self.limit {
            write!(out, "limit    {}:", if limit.of.is_empty() { "the file's" } else { &limit.of })?;
            if limit.rate_milli > 0 {
                let key = limit.key.as_ref().map_or(String::new(), |key| format!(" for each {key}"));
                write!(out, " {}/s{key}, {} at once after a pause", Thousandths(limit.rate_milli), limit.burst)?;
                let whose = if limit.key.is_some() { " for this one" } else { "" };
                limit.left.map_or(Ok(()), |left| write!(out, " ({left} left{whose})"))?;
            }
            if limit.concurrency > 0 {
                let comma = if limit.rate_milli > 0 { ";" } else { "" };
                write!(out, "{comma} {} going on", limit.concurrency)?;
                limit.held.map_or(Ok(()), |held| write!(out, " ({held} now)"))?;
            }
            writeln!(out)?;
        }
        match self.hedge {
            Some(Hedge::After(ms)) => writeln!(out, "hedge    a second try after {ms}ms")?,
            Some(Hedge::P95) => writeln!(out, "hedge    a second try after the pool's 95th percentile")?,
            None => {}
        }
        if let Some(Overload { instance, queue, wait, service }) = self.overload {
            write!(out, "overload instance {}", Most(instance))?;
            if instance != Concurrency::Unlimited {
                write!(out, " ({queue} wait at most {wait}ms")?;
                self.waiting.map_or(Ok(()), |waiting| write!(out, "; {waiting} now"))?;
                out.push(')');
            }
            write!(out, ", service {}", Most(service))?;
            self.service.map_or(Ok(()), |(held, most)| write!(out, " ({held} of {most} now)"))?;
            writeln!(out)?;
        }
        self.budget_left.map_or(Ok(()), |left| writeln!(out, "budget   {left} retries left"))?;
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        self.memory.map_or(Ok(()), |(held, most)| writeln!(out, "memory   {} of {} MiB held", mib(held), mib(most)))
    }
}

struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000 {
            0 => write!(f, "{}", self.0 / 1_000),
            rest => write!(f, "{}.{}", self.0 / 1_000, format!("{rest:03}").trim_end_matches('0')),
        }
    }
}

struct Most(Concurrency);

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Concurrency::Unlimited => f.write_str("without a limit"),
            Concurrency::Fixed(most) => write!(f, "{most} at once"),
            Concurrency::Adaptive => f.write_str("as latency allows"),
        }
    }
}
