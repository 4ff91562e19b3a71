//! `eject` and `slow_start`: they belong to the instances, not to a route.

use super::policies::set;
use super::read::Reader;
use crate::engine::policy::{Eject, SlowStart};
use crate::engine::yaml::Node;

pub(super) const DAY: u64 = 86_400_000;

/// `eject: {…}`, with Envoy's names.
pub(super) fn eject(r: &mut Reader<'_>, node: &Node) -> Eject {
    let mut found = Eject::default();
    let Some(mut fields) = r.fields(node, "`eject`") else { return found };
    for (key, slot) in [
        ("consecutive_5xx", &mut found.consecutive_5xx),
        ("consecutive_gateway_failure", &mut found.consecutive_gateway_failure),
        ("consecutive_local_origin_failure", &mut found.consecutive_local_origin_failure),
        ("min_requests", &mut found.min_requests),
    ] {
        set(slot, fields.take(key).and_then(|node| r.integer(node, 0..=1_000_000)));
    }
    for (key, slot) in
        [("success_rate", &mut found.success_rate), ("failure_percentage", &mut found.failure_percentage)]
    {
        set(slot, fields.take(key).and_then(|node| r.share(node)));
    }
    for (key, slot) in [("stdev_factor", &mut found.stdev_factor), ("latency_factor", &mut found.latency_factor)] {
        set(slot, fields.take(key).and_then(|node| r.thousandths(node, 0..=1_000_000)));
    }
    for (key, slot) in [
        ("window", &mut found.window),
        ("base_ejection_time", &mut found.base_ejection_time),
        ("max_ejection_time", &mut found.max_ejection_time),
    ] {
        set(slot, fields.take(key).and_then(|node| r.duration(node, 100..=DAY)));
    }
    if found.max_ejection_time < found.base_ejection_time {
        let at = fields.key_span("max_ejection_time").or(fields.key_span("base_ejection_time")).unwrap_or(node.span);
        let problem = r.error("E006", at, "`max_ejection_time` must not be shorter than `base_ejection_time`");
        r.push(problem);
    }
    found.max_ejection_percent = fields.take("max_ejection_percent").and_then(|node| r.share(node));
    found.min_routable = fields.take("min_routable").and_then(|node| r.integer(node, 0..=1_000_000));
    set(&mut found.enforce, fields.take("enforce").and_then(|node| r.boolean(node)));
    r.close(fields);
    found
}

/// `slow_start: 30s`, or `slow_start: {window: 30s, aggression: 2}`.
pub(super) fn slow_start(r: &mut Reader<'_>, node: &Node) -> SlowStart {
    let mut found = SlowStart::default();
    if node.map().is_none() {
        set(&mut found.window, r.duration(node, 0..=DAY));
        return found;
    }
    let Some(mut fields) = r.fields(node, "`slow_start`") else { return found };
    match fields.take("window") {
        Some(node) => set(&mut found.window, r.duration(node, 0..=DAY)),
        None => r.missing(node.span, "`slow_start`", "window"),
    }
    set(&mut found.aggression, fields.take("aggression").and_then(|node| r.thousandths(node, 100..=10_000)));
    r.close(fields);
    found
}
