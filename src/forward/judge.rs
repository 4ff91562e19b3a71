//! What a try says about the instance: evidence, counters, and what follows from how it was picked.

use super::attempt::Ended;
use super::error::Detail;
use super::exchange::Exchange;
use super::latency;
use super::retry::{Reading, Trouble};
use crate::engine::balance::Picked;
use crate::engine::health::Evidence;
use crate::engine::policy::Retry;
use crate::observe::names;

/// What a try says about the instance, recorded; and whether it is a reason for another one.
pub fn judged(exchange: &Exchange, ended: &Ended, picked: Picked, retry: &Retry) -> Option<Trouble> {
    let Reading { evidence, word, trouble } = Reading::of(ended, retry, picked.probe);
    exchange.timed();
    if let Some(traced) = &mut *exchange.traced.borrow_mut() {
        traced.tried(exchange, picked, ended);
    }
    if let Some(evidence) = evidence {
        exchange.evidence(evidence);
    }
    latency::observe(exchange, ended, evidence);
    exchange.count(&names::ATTEMPTS, word);
    picked_so(exchange, picked, evidence == Some(Evidence::Success));
    trouble
}

/// What connecting says about an instance whose bytes are passed on unread; `failed: None`: it is connected. That alone
/// readmits one that was to prove itself; whether it speaks for any other is seen later, if this returns true.
pub fn judge_bare(exchange: &Exchange, failed: Option<Detail>, picked: Picked) -> bool {
    let proves = failed.is_none() && (picked.probe || picked.last_resort);
    let evidence = if proves { Some(Evidence::Success) } else { failed.and_then(Detail::evidence) };
    if let Some(evidence) = evidence {
        exchange.evidence(evidence);
    }
    exchange.count(&names::ATTEMPTS, failed.map_or("connected", Detail::word));
    picked_so(exchange, picked, failed.is_none());
    failed.is_none() && !proves
}

/// What follows from how an endpoint was picked, once it is known whether it did well.
fn picked_so(exchange: &Exchange, picked: Picked, well: bool) {
    let result = if well { "success" } else { "failure" };
    if picked.probe {
        exchange.count(&names::PROBES, result);
    }
    if picked.last_resort {
        exchange.count(&names::LAST_RESORTS, result);
        if well {
            exchange.proved();
        }
    }
    if picked.panic {
        exchange.count(&names::PANIC_PICKS, "");
    }
}
