//! Layers to [`Settings`]: which keys there are, and their defaults.

use crate::engine::diagnostic::Diagnostics;
use crate::engine::paths::{Paths, Spellings};
use crate::engine::policy::WHOLE;
use crate::engine::yaml::Value;

use super::layers::Layer;
use super::report::{Origin, Report};
use super::scope::{Context, Place, Scope};
use super::settings::{
    AccessLog, Admin, Catalog, CatalogSource, Checks, DebugToken, Drain, Guard, GuardMode, HostHeader, Limits, Log,
    LogFormat, Metrics, Overload, Settings, Shadow, Upstream,
};
use super::value::{address, auto, choice, duration, flag, network, share, size, text, whole};
use super::{consul, listen};

/// Reads everything; on errors the settings hold defaults in the places of what is wrong.
pub fn settings(layers: &[Layer], out: &mut Diagnostics) -> (Settings, Report) {
    let cx = &mut Context { out, report: Report::default() };
    let mut at = Scope::root(layers, cx);
    let settings = Settings {
        listen: listen::listeners(&mut at, cx),
        admin: admin(at.map("admin", cx), cx),
        catalog: catalog(at.map("catalog", cx), layers, cx),
        rules: at.optional("rules", text, cx),
        region: at.optional("region", text, cx),
        zone: at.optional("zone", text, cx),
        workers: at.value("workers", "auto", auto(|text| whole(1, 1_024)(text).map(|n| n as usize)), cx),
        limits: limits(at.map("limits", cx), cx),
        paths: paths(at.map("paths", cx), cx),
        upstream: upstream(at.map("upstream", cx), cx),
        checks: checks(at.map("checks", cx), cx),
        drain: drain(at.map("drain", cx), cx),
        trusted_proxies: at.list("trusted_proxies", "", network, cx),
        request_id: at.value("request_id", "true", flag, cx),
        forwarded: at.value("forwarded", "false", flag, cx),
        via: at.value("via", "false", flag, cx),
        upgrades: at.list("upgrades", "websocket", protocol, cx),
        underscores: at.value("underscores", "false", flag, cx),
        error_header: at.value("error_header", "true", flag, cx),
        host_header: at.value(
            "host_header",
            "client",
            choice(&[("client", HostHeader::Client), ("instance", HostHeader::Instance)]),
            cx,
        ),
        access_log: access_log(&mut at, cx),
        guard: guard(at.map("guard", cx), cx),
        shadow: shadow(at.map("shadow", cx), cx),
        label_keys: label_keys(&mut at, cx),
        debug_headers: at.value("debug_headers", "false", flag, cx),
        debug_token: debug_token(at.map("debug_token", cx), cx),
        log: log(at.map("log", cx), cx),
        metrics: metrics(at.map("metrics", cx), cx),
        overload: overload(at.map("overload", cx), cx),
    };
    at.finish(cx);
    (settings, std::mem::take(&mut cx.report))
}

/// What a connection may be changed to by who asks for it.
fn protocol(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if name.is_empty() || !name.bytes().all(of_a_token) {
        return Err(format!("`{text}` is no name of a protocol; write websocket"));
    }
    if ["h2c", "h2", "http/2.0", "http/1.1"].contains(&&*name) || name.starts_with("tls/") {
        return Err(format!("`{text}` would carry requests past the rules; it is never passed on"));
    }
    Ok(name)
}

fn debug_token(mut at: Scope<'_>, cx: &mut Context<'_>) -> Option<DebugToken> {
    let key_file = at.optional("key_file", text, cx);
    at.finish(cx);
    key_file.map(|key_file| DebugToken { key_file })
}

fn admin(mut at: Scope<'_>, cx: &mut Context<'_>) -> Admin {
    let bind = |text: &str| if text == "off" { Ok(None) } else { address(text).map(Some) };
    let admin = Admin {
        address: at.value("address", "127.0.0.1:9900", bind, cx),
        token_file: at.optional("token_file", text, cx),
        hosts: at.list("hosts", "", text, cx),
        reserve: at.value("reserve", "8", |text| whole(0, 256)(text).map(|n| n as usize), cx),
    };
    at.finish(cx);
    admin
}

/// Consul or a file. Where both are written, the stronger layer's counts; both in one layer is a contradiction.
fn catalog(mut at: Scope<'_>, layers: &[Layer], cx: &mut Context<'_>) -> Catalog {
    let strength = |place: &Place<'_>| layers.iter().position(|layer| std::ptr::eq(layer, place.layer));
    let file = at.find("file");
    let consul = at.find("consul");
    let by_file = match (&file, &consul) {
        (Some(file), Some(consul)) if strength(file) == strength(consul) => {
            cx.out.push(file.error("E903", "`catalog` names both `consul` and `file`; keep one"));
            true
        }
        (Some(file), Some(consul)) => strength(file) < strength(consul),
        (file, _) => file.is_some(),
    };
    let consul = at.map("consul", cx);
    let source = if by_file {
        // What is written for Consul is still checked.
        consul::read(consul, &mut Context { out: cx.out, report: Report::default() });
        at.optional("file", text, cx).map(CatalogSource::File)
    } else {
        Some(CatalogSource::Consul(Box::new(consul::read(consul, cx))))
    };
    let debounce = at.value("debounce", "100ms", duration, cx);
    at.finish(cx);
    // `file` that is no text has been reported; the source is then never used.
    Catalog { source: source.unwrap_or_else(|| CatalogSource::File(String::new())), debounce }
}

fn limits(mut at: Scope<'_>, cx: &mut Context<'_>) -> Limits {
    let count = |max| move |text: &str| whole(1, max)(text).map(|n| n as u32);
    let limits = Limits {
        head: at.value("head", "10s", duration, cx),
        tls_handshake: at.value("tls_handshake", "10s", duration, cx),
        body_idle: at.value("body_idle", "30s", duration, cx),
        body: at.value("body", "300s", duration, cx),
        body_rate: at.value("body_rate", "16KiB", size, cx),
        replay_size: at.value("replay_size", "64KiB", size, cx),
        write_idle: at.value("write_idle", "30s", duration, cx),
        keep_alive: at.value("keep_alive", "60s", duration, cx),
        connection_age: at.value("connection_age", "1h", duration, cx),
        head_size: at.value("head_size", "64KiB", size_from(8 * 1_024), cx),
        target_size: at.value("target_size", "8KiB", size_from(256), cx),
        fields: at.value("fields", "100", count(10_000), cx),
        connections: at.value("connections", "auto", auto(count(10_000_000)), cx),
        memory: at.value("memory", "auto", auto(size_from(1_024 * 1_024)), cx),
        connections_per_address: at.value(
            "connections_per_address",
            "0",
            |text| whole(0, 10_000_000)(text).map(|n| n as u32),
            cx,
        ),
        backlog: at.value("backlog", "4096", count(1 << 20), cx),
        unsent: at.value("unsent", "128KiB", size, cx),
        h2_streams: at.value("h2_streams", "100", count(1 << 20), cx),
        h2_window: at.value("h2_window", "64KiB", size_from(16 * 1_024), cx),
        h2_connection_window: at.value("h2_connection_window", "1MiB", size_from(64 * 1_024), cx),
        h2_resets: at.value("h2_resets", "50", count(1_000_000), cx),
        h2_own_resets: at.value("h2_own_resets", "256", count(1_000_000), cx),
        h2_frames: at.value("h2_frames", "10000", count(1_000_000_000), cx),
        h2_send_buffer: at.value("h2_send_buffer", "32KiB", size_from(16 * 1_024), cx),
    };
    at.finish(cx);
    limits
}

/// What a request's path may be, and what counts as the same.
fn paths(mut at: Scope<'_>, cx: &mut Context<'_>) -> Paths {
    let refuse =
        at.list("refuse", "encoded_slash, backslash, control, invalid, dot_parameter", choice(&Spellings::WORDS), cx);
    let paths = Paths {
        refuse: refuse.into_iter().fold(Spellings::NONE, Spellings::and),
        merge_slashes: at.value("merge_slashes", "true", flag, cx),
        forward_normalised: at.value("forward", "as_sent", choice(&[("as_sent", false), ("normalised", true)]), cx),
    };
    at.finish(cx);
    paths
}

fn size_from(min: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match size(text)? {
        bytes if bytes < min => Err(format!("`{text}` is below {min} bytes")),
        bytes => Ok(bytes),
    }
}

fn size_within(min: u64, max: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match size_from(min)(text)? {
        bytes if bytes > max => Err(format!("`{text}` is above {max} bytes")),
        bytes => Ok(bytes),
    }
}

fn upstream(mut at: Scope<'_>, cx: &mut Context<'_>) -> Upstream {
    let upstream = Upstream {
        idle: at.value("idle", "auto", auto(duration), cx),
        max_connections: at.value("max_connections", "0", |text| whole(0, 1 << 20)(text).map(|n| n as u32), cx),
        protocol_label: at.value("protocol_label", "proto", text, cx),
        head_size: at.value("head_size", "64KiB", size_within(4 * 1_024, 1 << 20), cx),
        h2_streams: at.value("h2_streams", "100", |text| whole(1, 10_000)(text).map(|n| n as u32), cx),
    };
    at.finish(cx);
    upstream
}

fn checks(mut at: Scope<'_>, cx: &mut Context<'_>) -> Checks {
    let checks = Checks { allow_commands: at.value("allow_commands", "false", flag, cx) };
    at.finish(cx);
    checks
}

fn drain(mut at: Scope<'_>, cx: &mut Context<'_>) -> Drain {
    let drain =
        Drain { delay: at.value("delay", "5s", duration, cx), timeout: at.value("timeout", "30s", duration, cx) };
    at.finish(cx);
    drain
}

/// Off unless written; `off` says so.
fn access_log(root: &mut Scope<'_>, cx: &mut Context<'_>) -> Option<AccessLog> {
    if let Some(place) = root.find("access_log") {
        if place.node.text() == Some("off") {
            root.note("access_log", "off".to_owned(), place.layer.origin.clone(), cx);
            return None;
        }
    } else {
        root.note("access_log", "off".to_owned(), Origin::Default, cx);
        return None;
    }
    let mut at = root.map("access_log", cx);
    let log = AccessLog {
        path: at.value("path", "stdout", text, cx),
        sample: at.value("sample", "100%", share, cx),
        queue: at.value("queue", "16384", |text| whole(1, 1 << 24)(text).map(|n| n as usize), cx),
        redact: at.list("redact", "", redactable, cx),
    };
    at.finish(cx);
    debug_assert!(log.sample <= WHOLE);
    Some(log)
}

fn guard(mut at: Scope<'_>, cx: &mut Context<'_>) -> Guard {
    let mode = choice(&[("off", GuardMode::Off), ("warn", GuardMode::Warn), ("enforce", GuardMode::Enforce)]);
    let guard = Guard {
        mode: at.value("mode", "warn", mode, cx),
        max_moved: at.value("max_moved", "30%", share, cx),
        max_unrouted: at.value("max_unrouted", "0", whole(0, 1 << 32), cx),
    };
    at.finish(cx);
    guard
}

/// Off unless there are rules.
fn shadow(mut at: Scope<'_>, cx: &mut Context<'_>) -> Option<Shadow> {
    let path = |written: &str| if written == "off" { Ok(None) } else { text(written).map(Some) };
    let rules = at.optional("rules", text, cx);
    let sample = at.value("sample", "100%", share, cx);
    let log = at.value("log", "off", path, cx);
    let queue = at.value("queue", "1024", |text| whole(1, 1 << 20)(text).map(|n| n as usize), cx);
    let redact = at.list("redact", "", redactable, cx);
    at.finish(cx);
    Some(Shadow { rules: rules?, sample, log, queue, redact })
}

fn redactable(field: &str) -> Result<String, String> {
    let named = |prefix| field.strip_prefix(prefix).is_some_and(|name: &str| !name.is_empty());
    if field == "client" || field == "query" || named("cookie.") || named("header.") {
        return Ok(field.to_owned());
    }
    Err(format!("`{field}` is none of `cookie.NAME`, `header.NAME`, `client`, `query`"))
}

fn label_keys(at: &mut Scope<'_>, cx: &mut Context<'_>) -> Vec<(String, Vec<String>)> {
    let mut labels = Vec::new();
    for (label, value) in at.open_map("label_keys", cx) {
        let nodes = match &value.node.value {
            Value::List(items) => items.iter().collect(),
            Value::Scalar { .. } | Value::Map(_) => vec![value.node],
        };
        let spellings: Vec<_> = nodes.iter().filter_map(|node| node.text().map(str::to_owned)).collect();
        if spellings.len() < nodes.len() || spellings.is_empty() {
            cx.out.push(value.error("E002", "a label's spellings are a list of the catalog's keys"));
        }
        labels.extend(label.node.text().map(|label| (label.to_owned(), spellings)));
    }
    labels
}

fn log(mut at: Scope<'_>, cx: &mut Context<'_>) -> Log {
    let format = choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let log = Log { format: at.value("format", "text", format, cx), level: at.value("level", "info", text, cx) };
    at.finish(cx);
    log
}

fn metrics(mut at: Scope<'_>, cx: &mut Context<'_>) -> Metrics {
    let count = |text: &str| whole(1, 1 << 24)(text).map(|n| n as usize);
    let metrics = Metrics {
        label_values: at.value("label_values", "200", count, cx),
        series: at.value("series", "20000", count, cx),
    };
    at.finish(cx);
    metrics
}

fn overload(mut at: Scope<'_>, cx: &mut Context<'_>) -> Overload {
    let path = |text: &str| match text.starts_with('/') && !text.contains(['?', '#']) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no path: it begins with `/` and has no query")),
    };
    let overload = Overload {
        requests: at.value("requests", "0", |text| whole(0, 10_000_000)(text).map(|n| n as u32), cx),
        exempt_paths: at.list("exempt_paths", "", path, cx),
    };
    at.finish(cx);
    overload
}
