//! `check`: what the proxy asks of instances on its own account.

use std::net::Ipv4Addr;

use super::health::DAY;
use super::places;
use super::policies::set;
use super::read::Reader;
use super::ruleset::HostPattern;
use crate::engine::label::Text;
use crate::engine::policy::{Check, Probe};
use crate::engine::yaml::{Node, Value};

/// Longest text that a `tcp` check sends or expects.
const LONGEST_TEXT: usize = 4_096;

/// `check: {http: …, interval, timeout, rise, fall, hold_new, check_readmits}`, or with `tcp`, `grpc`, `command`.
pub(super) fn check(r: &mut Reader<'_>, node: &Node) -> Option<Check> {
    let mut fields = r.fields(node, "`check`")?;
    let kinds = ["http", "tcp", "grpc", "command"].map(|kind| (kind, fields.take(kind)));
    let written: Vec<_> = kinds.iter().filter_map(|(kind, node)| node.map(|node| (*kind, node))).collect();
    let expect = fields.take("expect");
    let mut expected = Expected::default();
    let probe = match written.as_slice() {
        [(kind, probe)] => {
            expected = expect.map_or_else(Expected::default, |node| expectations(r, kind, node));
            match *kind {
                "http" => http(r, probe, &expected),
                "tcp" => tcp(r, probe),
                "grpc" => grpc(r, probe),
                _ => command(r, probe),
            }
        }
        [] => {
            r.missing(node.span, "`check`", "http`, `tcp`, `grpc` or `command");
            None
        }
        [_, (second, _), ..] => {
            let at = fields.key_span(second).unwrap_or(node.span);
            r.push(r.error("E006", at, "a check asks in one way only").label("one too many"));
            None
        }
    };
    let mut found = Check::new(Check::CONNECTS);
    for (key, slot, range) in [
        ("interval", &mut found.interval, 100..=DAY),
        ("idle_interval", &mut found.idle_interval, 100..=DAY),
        ("timeout", &mut found.timeout, 10..=DAY),
    ] {
        set(slot, fields.take(key).and_then(|node| r.duration(node, range)));
    }
    set(&mut found.rise, fields.take("rise").and_then(|node| r.integer(node, 1..=1_000)));
    set(&mut found.fall, fields.take("fall").and_then(|node| r.integer(node, 1..=1_000)));
    set(&mut found.hold_new, fields.take("hold_new").and_then(|node| r.boolean(node)));
    set(&mut found.check_readmits, fields.take("check_readmits").and_then(|node| r.boolean(node)));
    if let Some(node) = fields.take("reuse") {
        let is_asked = |kind: &str| written.iter().any(|(other, _)| *other == kind);
        if is_asked("tcp") || is_asked("command") {
            r.push(r.error("E006", node.span, "`reuse` is for `http` and `grpc` checks: no other keeps a connection"));
        }
        set(&mut found.reuse, r.boolean(node));
    }
    if let Some(at) = fields.key_span("idle_interval").filter(|_| found.idle_interval < found.interval) {
        r.push(r.error("E006", at, "`idle_interval` must not be shorter than `interval`"));
    }
    found.idle_interval = found.idle_interval.max(found.interval);
    r.close(fields);
    Some(Check { probe: probe?, tls_name: expected.tls_name, ..found })
}

/// `tcp: true`, or `tcp: {send, expect}`.
fn tcp(r: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    if node.map().is_none() {
        return match r.boolean(node)? {
            true => Some(Check::CONNECTS),
            false => r.malformed(node, "`true`, or `{send: ..., expect: ...}`; leave `check` out for no check"),
        };
    }
    let mut fields = r.fields(node, "`tcp`")?;
    let mut text = |key: &'static str, what: &str| {
        let node = fields.take(key)?;
        let text = r.text(node, what)?;
        if text.len() > LONGEST_TEXT {
            let problem = r.error("E006", node.span, format!("{what} must have at most {LONGEST_TEXT} bytes"));
            r.push(problem);
        }
        Some(text.to_owned())
    };
    let (send, expect) = (text("send", "`send`"), text("expect", "`expect`"));
    if fields.key_span("send").is_none() && fields.key_span("expect").is_none() {
        r.missing(node.span, "`tcp`", "send` or `expect");
    }
    r.close(fields);
    Some(Probe::Tcp { send, expect })
}

/// `grpc: true`, `grpc: SERVICE`, or `grpc: {service, authority}`.
fn grpc(r: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    let (mut service, mut authority) = (None, None);
    if node.map().is_some() {
        let mut fields = r.fields(node, "`grpc`")?;
        service = fields.take("service").and_then(|node| service_name(r, node));
        authority = fields.take("authority").and_then(|node| {
            let text = r.text(node, "`authority`")?;
            match text.parse::<http::uri::Authority>() {
                Ok(authority) if !text.contains('@') => Some(authority.to_string()),
                _ => r.malformed(node, "a host, with or without a port"),
            }
        });
        r.close(fields);
    } else if !matches!(node.text(), Some("true")) {
        service = Some(service_name(r, node)?);
    }
    Some(Probe::Grpc { service: service.unwrap_or_default(), authority })
}

fn service_name(r: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = r.text(node, "the service of a `grpc` check")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if text.is_empty() || text.len() > 256 || !text.bytes().all(plain) {
        return r.malformed(node, "a service's full name, such as `shop.v1.Cart`");
    }
    Some(text.to_owned())
}

/// `command: [PROGRAM, ARGUMENT, …]`. There is no shell, so a text would be a promise that is not kept.
fn command(r: &mut Reader<'_>, node: &Node) -> Option<Probe> {
    let Value::List(_) = &node.value else {
        return r.malformed(node, "a list, the program and its arguments: there is no shell");
    };
    let items = r.items(node, "`command`");
    let argv: Vec<String> = items.iter().filter_map(|item| r.text(item, "an argument")).map(str::to_owned).collect();
    let program = argv.first()?;
    if !program.starts_with('/') {
        return r.malformed(items.first()?, "the absolute path of a program: no PATH is searched");
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return r.malformed(node, "without a zero byte");
    }
    (argv.len() == items.len()).then_some(Probe::Command { argv })
}

/// `http: /health`, or `http: {path, method, host}`.
fn http(r: &mut Reader<'_>, node: &Node, expected: &Expected) -> Option<Probe> {
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
    let Expected { statuses, header, body, tls_name: _ } = expected.clone();
    let statuses = statuses.unwrap_or_else(|| vec![(200, 399)]);
    Some(Probe::Http { path: path?, method: method?, host, statuses, header, body })
}

/// What `expect` asks of an answer and of who gives it.
#[derive(Clone, Debug, Default)]
struct Expected {
    statuses: Option<Vec<(u16, u16)>>,
    header: Option<(String, String)>,
    body: Option<String>,
    tls_name: Option<Text>,
}

/// `expect: {status, header, body}` of an `http` check, and `tls_name` of any on a connection.
fn expectations(r: &mut Reader<'_>, kind: &str, node: &Node) -> Expected {
    let mut found = Expected::default();
    if kind == "command" {
        r.push(r.error("E006", node.span, "`expect` is for checks on a connection, not for `command`"));
        return found;
    }
    let Some(mut fields) = r.fields(node, "`expect`") else { return found };
    if let Some(node) = fields.take("tls_name") {
        found.tls_name = dns_name(r, node);
    }
    let mut of_answer = |key: &'static str| {
        let written = fields.take(key)?;
        if kind == "http" {
            return Some(written);
        }
        let problem = r.error("E006", written.span, format!("`{key}` is expected of `http` checks, not of `{kind}`"));
        r.push(if kind == "tcp" { problem.label("use `tcp: {send: ..., expect: ...}`") } else { problem });
        None
    };
    let [statuses, header, body] = ["status", "header", "body"].map(&mut of_answer);
    found.statuses =
        statuses.map(|node| r.items(node, "`status`").iter().filter_map(|item| statuses_of(r, item)).collect());
    found.header = header.and_then(|node| expected_header(r, node));
    found.body = body.and_then(|node| r.text(node, "`body`")).map(str::to_owned);
    r.close(fields);
    found
}

/// A name that a certificate can be for, and is for as a whole. `{service}` and `{label.KEY}` are the instance's.
fn dns_name(r: &mut Reader<'_>, node: &Node) -> Option<Text> {
    let text = r.text(node, "`tls_name`")?;
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else {
            return r.malformed(node, "a name in which every `{` has its `}`");
        };
        let is_label = place.strip_prefix("label.").is_some_and(|key| !key.is_empty() && !key.contains('{'));
        if place != "service" && !is_label {
            let problem = r.error("E006", node.span, format!("`tls_name` has no `{{{place}}}`"));
            r.push(problem.label("there are `{service}` and `{label.KEY}`, which are the instance's"));
            return None;
        }
        whole.push_str(before);
        // Any label of a name does, to look at what is around it.
        whole.push('x');
        rest = after;
    }
    whole.push_str(rest);
    match places::host(&whole) {
        Ok(HostPattern::Exact(name)) if !name.contains(['[', '}']) && name.parse::<Ipv4Addr>().is_err() => {
            Some(if text.contains('{') { text.into() } else { name })
        }
        _ => r.malformed(node, "a DNS name such as `web.internal` or `{service}.internal`"),
    }
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
