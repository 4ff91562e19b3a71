//! `check` and `eject`: what belongs to the instances, not to a route.

use super::policies::set;
use super::read::Reader;
use crate::engine::policy::{Check, Eject, Probe};
use crate::engine::yaml::Node;

const DAY: u64 = 86_400_000;

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

/// `check: {http: …, interval, timeout, rise, fall, hold_new, check_readmits}` or with `tcp`.
pub(super) fn check(r: &mut Reader<'_>, node: &Node) -> Option<Check> {
    let mut fields = r.fields(node, "`check`")?;
    let kinds = ["http", "tcp", "grpc", "command"].map(|kind| (kind, fields.take(kind)));
    let written: Vec<_> = kinds.iter().filter_map(|(kind, node)| node.map(|node| (*kind, node))).collect();
    let expect = fields.take("expect");
    let probe = match written.as_slice() {
        [("http", probe)] => http(r, probe, expect),
        [("tcp", probe)] => tcp(r, probe, expect),
        [(kind, _)] => {
            let at = fields.key_span(kind).unwrap_or(node.span);
            let problem = r.error("E033", at, format!("checks by `{kind}` are not part of this version"));
            r.push(problem.label("`http` and `tcp` are"));
            None
        }
        [] => {
            r.missing(node.span, "`check`", "http` or `tcp");
            None
        }
        [_, (second, _), ..] => {
            let at = fields.key_span(second).unwrap_or(node.span);
            r.push(r.error("E006", at, "a check asks in one way only").label("one too many"));
            None
        }
    };
    let (mut interval, mut timeout, mut rise, mut fall) = (5_000, 2_000, 2, 3);
    set(&mut interval, fields.take("interval").and_then(|node| r.duration(node, 100..=DAY)));
    set(&mut timeout, fields.take("timeout").and_then(|node| r.duration(node, 10..=DAY)));
    set(&mut rise, fields.take("rise").and_then(|node| r.integer(node, 1..=1_000)));
    set(&mut fall, fields.take("fall").and_then(|node| r.integer(node, 1..=1_000)));
    let hold_new = fields.take("hold_new").and_then(|node| r.boolean(node)).unwrap_or(false);
    let check_readmits = fields.take("check_readmits").and_then(|node| r.boolean(node)).unwrap_or(false);
    r.close(fields);
    Some(Check { probe: probe?, interval, timeout, rise, fall, hold_new, check_readmits })
}

/// `tcp: true`.
fn tcp(r: &mut Reader<'_>, node: &Node, expect: Option<&Node>) -> Option<Probe> {
    if let Some(expect) = expect {
        r.push(r.error("E006", expect.span, "a `tcp` check has no answer to expect anything of"));
    }
    match r.boolean(node)? {
        true => Some(Probe::Tcp),
        false => r.malformed(node, "`true`; leave `check` out for no check"),
    }
}

/// `http: /health`, or `http: {path, method, host}`, with `expect: {status, header, body}` beside it.
fn http(r: &mut Reader<'_>, node: &Node, expect: Option<&Node>) -> Option<Probe> {
    let (mut path, mut method, mut host) = (None, Some("GET".to_owned()), None);
    if node.map().is_some() {
        let mut fields = r.fields(node, "`http`")?;
        match fields.take("path") {
            Some(node) => path = target(r, node),
            None => r.missing(node.span, "`http`", "path"),
        }
        if let Some(node) = fields.take("method") {
            method = method_name(r, node);
        }
        if let Some(node) = fields.take("host") {
            r.header_value(node)?;
            host = r.text(node, "`host`").map(str::to_owned);
        }
        r.close(fields);
    } else {
        path = target(r, node);
    }
    let (mut statuses, mut header, mut body) = (vec![(200, 399)], None, None);
    if let Some(node) = expect
        && let Some(mut fields) = r.fields(node, "`expect`")
    {
        if let Some(node) = fields.take("status") {
            statuses = r.items(node, "`status`").iter().filter_map(|item| statuses_of(r, item)).collect();
        }
        header = fields.take("header").and_then(|node| expected_header(r, node));
        body = fields.take("body").and_then(|node| r.text(node, "`body`")).map(str::to_owned);
        r.close(fields);
    }
    Some(Probe::Http { path: path?, method: method?, host, statuses, header, body })
}

fn target(r: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = r.text(node, "the path of a check")?;
    if !text.starts_with('/') || !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('#') {
        let problem = r.error("E016", node.span, format!("`{text}` cannot be requested"));
        r.push(problem.label("a path begins with `/`"));
        return None;
    }
    Some(text.to_owned())
}

fn method_name(r: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = r.text(node, "`method`")?;
    match http::Method::from_bytes(text.as_bytes()) {
        Ok(_) if !matches!(text, "CONNECT" | "TRACE") => Some(text.to_owned()),
        _ => r.malformed(node, "a method such as `GET` or `HEAD`"),
    }
}

/// `200` or `200-299`.
fn statuses_of(r: &mut Reader<'_>, node: &Node) -> Option<(u16, u16)> {
    let text = node.text().unwrap_or("");
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if 100 <= low && low <= high && high <= 599 => Some((low, high)),
        _ => r.malformed(node, "a status such as `200`, or a range such as `200-299`"),
    }
}

fn expected_header(r: &mut Reader<'_>, node: &Node) -> Option<(String, String)> {
    let pairs = r.pairs(node, "`header`");
    let [(_, key, value)] = pairs.as_slice() else {
        return r.malformed(node, "one header and its value, such as `{x-service: web}`");
    };
    let name = r.header_name(key)?;
    r.header_value(value)?;
    Some((name.as_str().to_owned(), value.text().unwrap_or("").to_owned()))
}
