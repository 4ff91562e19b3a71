//! Letting a request in: the limits of its rule, its file and its service; and what the client is told of them.

use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer::Refusal;
use super::edit::Changes;
use super::error::Detail;
use super::exchange::Exchange;
use super::view::View;
use super::worker::Worker;
use crate::engine::limit::rate::{Rate, SECOND};
use crate::engine::limit::{Limiter, Over, Place};
pub use crate::engine::route::limit_key as key;
use crate::engine::route::{Decision, RouterFile, RulePolicies};
use crate::observe::limit_book::Book;
use crate::observe::memory::Pressure;
use crate::observe::names;

/// draft-ietf-httpapi-ratelimit-headers-10: what is left now.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The same: what is granted.
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A `limit` in force at a worker.
#[derive(Debug)]
pub struct Limiting {
    limiter: Arc<Limiter>,
    /// The policy's name as a quoted string, and the whole `RateLimit-Policy`.
    named: Option<(Box<str>, HeaderValue)>,
}

/// A request's way past the limits.
#[derive(Debug, Default)]
pub struct Admission {
    /// The seeded hash of what its limit counts by.
    pub key: u64,
    /// It goes past every limit: a path that is always let in.
    pub exempt: bool,
    /// Of its rule or file, of the service, of the process, of the listener.
    places: [Option<Place>; 4],
    told: Option<Box<Told>>,
}

/// What the client is told.
#[derive(Debug)]
struct Told {
    /// `RateLimit-Policy`, unless the rules have a word on it.
    policy: Option<HeaderValue>,
    /// `RateLimit`, the same.
    left: Option<HeaderValue>,
    /// Seconds; `None`: it was let in.
    retry_after: Option<u64>,
}

/// Sheds what the process or the listener does not carry, before any work on it. Notes whether the path is always let
/// in.
///
/// # Errors
/// Over the number of requests at once, or over most of the memory: 503.
pub fn enter(worker: &Worker, exchange: &mut Exchange, path: &str) -> Result<(), Refusal> {
    let settings = &worker.settings;
    exchange.admission.exempt = settings.exempt_paths.iter().any(|exempt| is_under(path, exempt));
    if exchange.admission.exempt {
        return Ok(());
    }
    if worker.account.memory().pressure() >= Pressure::Refuse {
        return shed(worker, "memory");
    }
    let entrance = &exchange.connection().entrance;
    if entrance.requests > 0 {
        let place = entrance.places.take(entrance.requests);
        if place.is_none() {
            return shed(worker, "listener");
        }
        exchange.admission.places[3] = place;
    }
    if settings.requests == 0 {
        return Ok(());
    }
    let place = worker.limits.book.process().take(settings.requests);
    if place.is_none() {
        return shed(worker, "requests");
    }
    exchange.admission.places[2] = place;
    Ok(())
}

fn shed(worker: &Worker, limit: &'static str) -> Result<(), Refusal> {
    worker.metrics.word(&names::SHED, limit);
    Err(Detail::Overloaded.into())
}

/// By segment: `/health` and `/health/…`, never `/healthy`.
fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Lets a request in, or says why not. One branch where there are no limits.
///
/// # Errors
/// Over a rate: 429. Over a number of requests at once: 503.
pub fn admit(
    exchange: &mut Exchange,
    view: &View,
    decision: &Decision,
    changes: Option<&Changes>,
) -> Result<(), Refusal> {
    let Some(file) = decision.file.map(|file| view.file(file)) else { return Ok(()) };
    let limit = file.limit(decision.rule);
    if (limit.is_none() && file.load.is_none()) || exchange.admission.exempt {
        return Ok(());
    }
    let refuse = |exchange: &Exchange, detail: Detail, limit| {
        exchange.count(&names::LIMITED, limit);
        Err(detail.into())
    };
    if let Some(limit) = limit {
        let now = exchange.connection().clock.micros().saturating_mul(1_000);
        let (entered, wait) = match limit.limiter.enter(exchange.admission.key, now) {
            Ok(entered) => (entered, None),
            Err(Over::Rate(wait)) => ((None, None), Some(wait)),
            Err(Over::Concurrency) => return refuse(exchange, Detail::Overloaded, "concurrency"),
        };
        let (place, within) = entered;
        exchange.admission.places[0] = place;
        exchange.admission.told = limit.told(within.map_or(0, |w| w.left), within.map_or(0, |w| w.full_in), wait);
        if let (Some(told), Some(changes)) = (&mut exchange.admission.told, changes) {
            told.policy.take_if(|_| changes.rule_on(&RATELIMIT_POLICY));
            told.left.take_if(|_| changes.rule_on(&RATELIMIT));
        }
        if wait.is_some() {
            return refuse(exchange, Detail::RateLimited, "rate");
        }
    }
    if let Some(load) = &file.load {
        match load.enter() {
            Ok(place) => exchange.admission.places[1] = place,
            Err(_) => return refuse(exchange, Detail::Overloaded, "service"),
        }
    }
    Ok(())
}

impl Admission {
    /// Adds the fields that tell of a rate. Nothing where there is none.
    pub fn tell(&mut self, headers: &mut HeaderMap) {
        let Some(Told { policy, left, retry_after }) = self.told.take().map(|told| *told) else { return };
        for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, left)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

impl Limiting {
    /// The limit in force by these policies, if there is one.
    #[must_use]
    pub fn of(file: &RouterFile, policies: &RulePolicies, book: &Book) -> Option<Self> {
        let limit = policies.message.limit.as_ref()?;
        let limiter = book.limiter(&file.service, &file.ruleset.source.name, &policies.limit_of, limit);
        let name = if policies.limit_of.is_empty() { &file.service } else { &policies.limit_of };
        let named = limiter.rate().and_then(|rate| named(name, rate));
        Some(Self { limiter, named })
    }

    fn told(&self, left: u64, full_in: u64, wait: Option<u64>) -> Option<Box<Told>> {
        let (name, policy) = self.named.as_ref()?;
        let reset = wait.unwrap_or(full_in).div_ceil(SECOND);
        let left = HeaderValue::try_from(format!("{name};r={left};t={reset}")).ok()?;
        let retry_after = wait.map(|wait| wait.div_ceil(SECOND).max(1));
        Some(Box::new(Told { policy: Some(policy.clone()), left: Some(left), retry_after }))
    }
}

/// `"name";q=burst;w=seconds`. A name that cannot stand in a structured field (RFC 9651) is left out.
fn named(name: &str, rate: Rate) -> Option<(Box<str>, HeaderValue)> {
    let plain = name.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\');
    let name: Box<str> = if plain { format!("\"{name}\"") } else { "\"limit\"".to_owned() }.into();
    let policy = format!("{name};q={};w={}", rate.burst, rate.window().div_ceil(SECOND));
    HeaderValue::try_from(policy).ok().map(|policy| (name, policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_as_the_draft_writes_it() {
        let (name, policy) = named("all", Rate::new(100_000, 0)).unwrap();
        assert_eq!((&*name, policy.to_str().unwrap()), ("\"all\"", "\"all\";q=100;w=1"));
        let (_, policy) = named("a\"b", Rate::new(500, 3)).unwrap();
        assert_eq!(policy.to_str().unwrap(), "\"limit\";q=3;w=6");
    }
}
