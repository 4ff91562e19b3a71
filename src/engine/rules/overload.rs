//! `overload` and `hedge`: what a service carries at once, and second tries beside slow first ones.

use super::policies::set;
use super::read::Reader;
use crate::engine::policy::{Concurrency, Hedge, Overload};
use crate::engine::yaml::Node;

/// The longest wait for a place: a client that waits longer is better told.
const LONGEST_WAIT: u64 = 10_000;
/// The longest delay of a hedge.
const LONGEST_DELAY: u64 = 3_600_000;

/// `overload: {instance: 64 | adaptive, queue: 16, wait: 100ms, service: 1000 | adaptive}`.
pub(super) fn overload(r: &mut Reader<'_>, node: &Node) -> Overload {
    let mut found = Overload::default();
    let Some(mut fields) = r.fields(node, "`overload`") else { return found };
    set(&mut found.instance, fields.take("instance").and_then(|node| concurrency(r, node)));
    set(&mut found.queue, fields.take("queue").and_then(|node| r.integer(node, 0..=100_000)));
    set(&mut found.wait, fields.take("wait").and_then(|node| r.duration(node, 1..=LONGEST_WAIT)));
    set(&mut found.service, fields.take("service").and_then(|node| concurrency(r, node)));
    if fields.key_span("instance").is_none() {
        for key in ["queue", "wait"] {
            if let Some(at) = fields.key_span(key) {
                let problem = r.error("E006", at, format!("`{key}` means nothing without `instance`"));
                r.push(problem.label("nobody waits for a place where there is no limit"));
            }
        }
    }
    r.close(fields);
    found
}

fn concurrency(r: &mut Reader<'_>, node: &Node) -> Option<Concurrency> {
    if node.text() == Some("adaptive") {
        return Some(Concurrency::Adaptive);
    }
    match node.text().and_then(|text| text.parse().ok()) {
        Some(most @ 1..=10_000_000) => Some(Concurrency::Fixed(most)),
        _ => r.malformed(node, "`adaptive` or a whole number from 1 to 10000000"),
    }
}

/// `hedge: {after: 50ms}` or `hedge: {after: p95}`.
pub(super) fn hedge(r: &mut Reader<'_>, node: &Node) -> Option<Hedge> {
    let mut fields = r.fields(node, "`hedge`")?;
    let found = match fields.take("after") {
        Some(node) if node.text() == Some("p95") => Some(Hedge::P95),
        Some(node) => r.duration(node, 1..=LONGEST_DELAY).map(Hedge::After),
        None => {
            r.missing(node.span, "`hedge`", "after");
            None
        }
    };
    r.close(fields);
    found
}
