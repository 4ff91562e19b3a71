//! `hosts` and `paths`: which requests a file claims.

use std::net::Ipv6Addr;

use super::read::Reader;
use super::ruleset::{ANY_SERVICE, HostPattern, SERVICE_PLACE};
use crate::engine::diagnostic::{Span, Spanned};
use crate::engine::label::Text;
use crate::engine::yaml::Node;

/// The host patterns, lower case and without trailing dots.
pub(super) fn hosts(r: &mut Reader<'_>, node: &Node) -> Vec<Spanned<HostPattern>> {
    let mut found = Vec::new();
    for item in r.items(node, "`hosts`") {
        let Some(text) = r.text(item, "a host") else { continue };
        match host(text) {
            Ok(pattern) => found.push(Spanned::new(pattern, item.span)),
            Err(label) => {
                let problem = r.error("E015", item.span, format!("`{text}` is not a host pattern")).label(label);
                r.push(problem);
            }
        }
    }
    found
}

/// The path prefixes; `/` when none is written.
pub(super) fn paths(r: &mut Reader<'_>, node: Option<&Node>) -> Vec<Spanned<Text>> {
    let mut found = Vec::new();
    if let Some(node) = node {
        for item in r.items(node, "`paths`") {
            let Some(text) = r.text(item, "a path") else { continue };
            match path(text) {
                Ok(path) => found.push(Spanned::new(path, item.span)),
                Err(label) => {
                    let problem = r.error("E016", item.span, format!("`{text}` is not a path prefix")).label(label);
                    r.push(problem);
                }
            }
        }
    }
    if found.is_empty() {
        found.push(Spanned::new("/".into(), node.map_or(Span::default(), |node| node.span)));
    }
    found
}

/// `{service}` stands in every host of a file for all services, and nowhere else.
pub(super) fn service_hosts(r: &mut Reader<'_>, service: &Spanned<Text>, hosts: &[Spanned<HostPattern>]) {
    let any = &*service.value == ANY_SERVICE;
    if any && hosts.is_empty() {
        let problem = r.error("E015", service.span, "a file for every service needs `hosts` that name the service");
        r.push(problem.label("such as `hosts: [\"{service}.internal\"]`"));
    }
    for host in hosts {
        let (HostPattern::Exact(text) | HostPattern::Wildcard(text)) = &host.value;
        let problem = match (any, text.contains(SERVICE_PLACE)) {
            (true, false) => "every service would claim this host; put `{service}` in it",
            (false, true) => "`{service}` has a meaning only in a file with `service: \"*\"`",
            (true, true) | (false, false) => continue,
        };
        r.push(r.error("E015", host.span, format!("`{text}` cannot stand here")).label(problem));
    }
}

/// A host pattern, or what to do about it.
pub(super) fn host(text: &str) -> Result<HostPattern, &'static str> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if lower == "*" {
        return Err("leave `hosts` out for any host");
    }
    if let Some(literal) = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = literal.parse().map_err(|_| "not an IPv6 address")?;
        return Ok(HostPattern::Exact(format!("[{address}]").into()));
    }
    let (written, wildcard) = match lower.strip_prefix("*.") {
        Some(suffix) => (suffix, true),
        None => (lower.as_str(), false),
    };
    // Whatever a service is called: the rest must be a host around it.
    let suffix = written.replace(SERVICE_PLACE, "service");
    let suffix = suffix.as_str();
    if suffix.contains("://") || suffix.contains('/') {
        return Err("a host alone, without scheme or path");
    }
    if suffix.contains(':') {
        return Err("a host alone, without port");
    }
    if suffix.contains('*') {
        return Err("`*.` may stand only in front");
    }
    if !suffix.is_ascii() {
        return Err("write the name as it is sent, in punycode (`xn--...`)");
    }
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if suffix.len() > 253 || !suffix.split('.').all(sound) {
        return Err("labels of letters, digits, `-` and `_`, joined by dots");
    }
    Ok(if wildcard { HostPattern::Wildcard(written.into()) } else { HostPattern::Exact(written.into()) })
}

/// A path prefix without trailing slash, or what to do about it.
fn path(text: &str) -> Result<Text, &'static str> {
    if !text.starts_with('/') {
        return Err("a path begins with `/`");
    }
    if text.contains('*') {
        return Err("a prefix needs no `*`; patterns are asked for with `path matches` in `when`");
    }
    if text.contains(['?', '#']) {
        return Err("a path alone; the query is asked for in `when`");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("blanks and letters outside ASCII are written percent-encoded");
    }
    let trimmed = text.trim_end_matches('/');
    if trimmed.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("no `//`, `.` or `..`: requests are normalised before they are matched");
    }
    Ok(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
}
