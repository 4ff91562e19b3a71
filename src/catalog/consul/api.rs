//! Paths, parameters and headers of Consul's HTTP interface. Pure.

use std::fmt::Write as _;

use http::HeaderMap;

use super::Settings;
use crate::catalog::http::Reply;

/// How to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'s> {
    /// Block on this index; 0: answer at once.
    pub index: u64,
    /// How long to block.
    pub wait_ms: u64,
    /// Whether any server may answer.
    pub stale: bool,
    /// The datacenter; empty: the agent's own.
    pub dc: &'s str,
}

/// `/v1/health/service/:name`: all states, no filter, no tag (L1).
#[must_use]
pub fn health_service(name: &str, query: Query<'_>, settings: &Settings) -> String {
    with_query(format!("/v1/health/service/{}", escape(name)), query, settings)
}

/// `/v1/catalog/services`: names and tags.
#[must_use]
pub fn catalog_services(query: Query<'_>, settings: &Settings) -> String {
    with_query("/v1/catalog/services".to_owned(), query, settings)
}

fn with_query(mut path: String, query: Query<'_>, settings: &Settings) -> String {
    let mut separator = '?';
    let mut add = |key: &str, value: &str| {
        path.push(separator);
        separator = '&';
        path.push_str(key);
        if !value.is_empty() {
            let _ = write!(path, "={}", escape(value));
        }
    };
    if query.index > 0 {
        add("index", &query.index.to_string());
        add("wait", &format!("{}ms", query.wait_ms));
    }
    if query.stale {
        add("stale", "");
    }
    let given = [
        ("dc", Some(query.dc)),
        ("ns", settings.namespace.as_deref()),
        ("partition", settings.partition.as_deref()),
        ("peer", settings.peer.as_deref()),
        ("sg", settings.sameness_group.as_deref()),
    ];
    for (key, value) in given {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            add(key, value);
        }
    }
    path
}

/// Percent-encodes everything that is not unreserved.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What the head of a good answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// `X-Consul-Index`; 1 where it is missing or cannot be read.
    pub index: u64,
    /// Whether the index was there and above 0. Without it blocking is impossible.
    pub indexed: bool,
    /// `X-Consul-Knownleader`; true where it is missing.
    pub leader_known: bool,
    /// `X-Consul-Lastcontact` in milliseconds.
    pub last_contact: u64,
    /// `X-Consul-Results-Filtered-By-ACLs`.
    pub filtered: bool,
}

/// Reads the head of a 200.
#[must_use]
pub fn head(headers: &HeaderMap) -> Head {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let index = value("x-consul-index").and_then(|text| text.parse::<u64>().ok()).filter(|index| *index > 0);
    Head {
        index: index.unwrap_or(1),
        indexed: index.is_some(),
        leader_known: value("x-consul-knownleader") != Some("false"),
        last_contact: value("x-consul-lastcontact").and_then(|text| text.parse().ok()).unwrap_or(0),
        filtered: value("x-consul-results-filtered-by-acls") == Some("true"),
    }
}

/// Whether the body claims to be JSON.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// An error answer in one line: status and the beginning of its text, without control characters.
#[must_use]
pub fn complaint(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(200)]);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{} {text}", reply.status.as_u16()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_hold_only_what_is_set() {
        let plain = Settings::default();
        let query = Query { index: 7, wait_ms: 55_000, stale: true, dc: "" };
        assert_eq!(
            health_service("x/y 中", query, &plain),
            "/v1/health/service/x%2Fy%20%E4%B8%AD?index=7&wait=55000ms&stale"
        );
        assert_eq!(catalog_services(Query::default(), &plain), "/v1/catalog/services");
        let set = Settings { namespace: Some("team a".to_owned()), ..Settings::default() };
        assert_eq!(
            catalog_services(Query { dc: "dc2", ..Query::default() }, &set),
            "/v1/catalog/services?dc=dc2&ns=team%20a"
        );
    }

    #[test]
    fn the_head_is_read_whatever_its_case_and_defaults_are_safe() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            head(&headers),
            Head { index: 1, indexed: false, leader_known: true, last_contact: 0, filtered: false }
        );
        for (name, value) in [
            ("X-Consul-Index", "42"),
            ("X-Consul-KnownLeader", "false"),
            ("X-Consul-LastContact", "13031"),
            ("X-Consul-Results-Filtered-By-Acls", "true"),
        ] {
            headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        assert_eq!(
            head(&headers),
            Head { index: 42, indexed: true, leader_known: false, last_contact: 13_031, filtered: true }
        );
        headers.insert("x-consul-index", "0".parse().unwrap());
        assert!(!head(&headers).indexed);
    }
}
