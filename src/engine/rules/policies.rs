//! `timeout`, `retry`, `balance`, `locality`: the knobs of routing. Defaults stand in `engine::policy`.

use super::file::Names;
use super::messages;
use super::overload;
use super::read::Reader;
use super::rule;
use super::ruleset::Policies;
use crate::engine::diagnostic::Span;
use crate::engine::grpc;
use crate::engine::label::Text;
use crate::engine::policy::{Balance, Locality, Retry, Timeouts};
use crate::engine::yaml::{Fields, Node, Value};

const DAY: u64 = 86_400_000;

/// The policies that stand at a file's top or in a rule.
pub(super) fn policies(r: &mut Reader<'_>, fields: &mut Fields<'_>, names: &Names) -> Policies {
    Policies {
        timeout: fields.take("timeout").map(|node| timeouts(r, node)),
        retry: fields.take("retry").map(|node| retry(r, node)),
        balance: fields.take("balance").and_then(|node| balance(r, node, names)),
        hedge: fields.take("hedge").and_then(|node| overload::hedge(r, node)),
        message: messages::messages(r, fields, names),
    }
}

/// `timeout: {connect, first_byte, idle, total, stream_idle, max_stream_age}`; `none` where there may be no limit.
fn timeouts(r: &mut Reader<'_>, node: &Node) -> Timeouts {
    let mut found = Timeouts::default();
    let Some(mut fields) = r.fields(node, "`timeout`") else { return found };
    for (key, slot) in [("connect", &mut found.connect), ("first_byte", &mut found.first_byte)] {
        set(slot, fields.take(key).and_then(|node| r.duration(node, 1..=DAY)));
    }
    for (key, slot) in [
        ("idle", &mut found.idle),
        ("total", &mut found.total),
        ("stream_idle", &mut found.stream_idle),
        ("max_stream_age", &mut found.max_stream_age),
    ] {
        let value = fields.take(key).and_then(|node| match node.text() {
            Some("none") => Some(0),
            _ => r.duration(node, 1..=7 * DAY),
        });
        set(slot, value);
    }
    r.close(fields);
    found
}

/// `retry: {attempts, on: […], budget: 20%, per_try: 2s}`. Whoever bounds a try wants another one after it, so
/// `per_try` adds `timeout` to the default of `on`.
fn retry(r: &mut Reader<'_>, node: &Node) -> Retry {
    let mut found = Retry::default();
    let Some(mut fields) = r.fields(node, "`retry`") else { return found };
    set(&mut found.attempts, fields.take("attempts").and_then(|node| r.integer(node, 1..=10)));
    set(&mut found.budget, fields.take("budget").and_then(|node| r.share(node)));
    set(&mut found.per_try, fields.take("per_try").and_then(|node| r.duration(node, 1..=DAY)));
    found.timeout = found.per_try > 0;
    if let Some(node) = fields.take("on") {
        let none = Retry { connect: false, reset: false, timeout: false, statuses: Vec::new(), grpc: 0, ..found };
        found = none;
        // An empty list is a statement: nothing is tried again.
        let items: &[Node] = if node.list().is_some_and(<[Node]>::is_empty) { &[] } else { r.items(node, "`on`") };
        for item in items {
            match item.text() {
                Some("connect") => found.connect = true,
                Some("reset") => found.reset = true,
                Some("timeout") => found.timeout = true,
                Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                    found.statuses.extend(r.status(item, 400..=599));
                }
                // `ok` is no reason to try again.
                Some(name) if grpc::named(name).is_some_and(|status| status > 0) => {
                    found.grpc |= grpc::named(name).map_or(0, |status| 1 << status);
                }
                _ => {
                    let known = ["connect", "reset", "timeout", "a status", "a status of gRPC by its name"];
                    let known = known.map(|word| (word, ()));
                    let _: Option<()> = r.word(item, &known);
                }
            }
        }
        found.statuses.sort_unstable();
        found.statuses.dedup();
    }
    r.close(fields);
    found
}

/// `least | ewma | round_robin | random | hash(KEY)`.
pub(super) fn balance(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Balance> {
    let known = [
        ("least", Some(Balance::Least)),
        ("ewma", Some(Balance::Ewma)),
        ("round_robin", Some(Balance::RoundRobin)),
        ("random", Some(Balance::Random)),
        ("hash(KEY)", None),
    ];
    let text = node.text().unwrap_or("");
    if let Some(key) = text.strip_prefix("hash(").and_then(|rest| rest.strip_suffix(')')) {
        let inner =
            Node { value: Value::Scalar { text: key.to_owned(), plain: true }, span: inside(r, node.span, key) };
        return rule::key(r, &inner, names).map(|_| Balance::Hash(key.into()));
    }
    let words: Vec<(&'static str, usize)> = known.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
    match r.word(node, &words).map(|at| known[at].1.clone()) {
        Some(Some(found)) => Some(found),
        Some(None) => r.malformed(node, "`hash(...)` with a field of the request, such as `hash(cookie.uid)`"),
        None => None,
    }
}

fn inside(r: &Reader<'_>, span: Span, part: &str) -> Span {
    let raw = r.source.text.get(span.start..span.end).unwrap_or("");
    raw.find(part).map_or(span, |at| Span::new(span.start + at, span.start + at + part.len()))
}

/// `locality: {prefer: [region, zone], spill: 1.4, failback: 10s, min_local: 0}`.
pub(super) fn locality(r: &mut Reader<'_>, node: &Node) -> Locality {
    let mut found = Locality::default();
    let Some(mut fields) = r.fields(node, "`locality`") else { return found };
    match fields.take("prefer") {
        Some(node) => {
            let items = r.items(node, "`prefer`");
            found.prefer = items.iter().filter_map(|item| r.text(item, "a label")).map(Text::from).collect();
        }
        None => r.missing(node.span, "`locality`", "prefer"),
    }
    set(&mut found.spill, fields.take("spill").and_then(|node| r.thousandths(node, 1_000..=100_000)));
    set(&mut found.failback, fields.take("failback").and_then(|node| r.duration(node, 0..=DAY)));
    set(&mut found.min_local, fields.take("min_local").and_then(|node| r.integer(node, 0..=1_000_000)));
    r.close(fields);
    found
}

/// Keeps the default when nothing, or nothing sound, was written.
pub(super) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}
