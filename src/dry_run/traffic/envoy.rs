//! Envoy's JSON access log. Its fields are named by whoever configured it; read are the usual names (those of Istio's
//! default format, and Envoy's own such as `:authority`), without case. Other headers come from an object `headers` or
//! `request_headers`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use serde_json::{Map, Value};

use super::combined::{absolute, insert};
use super::{Captured, line};

const METHOD: &[&str] = &["method", ":method", "request_method"];
const PATH: &[&str] = &["x-envoy-original-path", "original_path", "path", ":path", "request_path"];
const AUTHORITY: &[&str] = &["authority", ":authority", "host"];
const SCHEME: &[&str] = &["scheme", ":scheme", "x-forwarded-proto", "x_forwarded_proto"];
const CLIENT: &[&str] = &[
    "downstream_direct_remote_address",
    "downstream_remote_address",
    "downstream_remote_address_without_port",
    "client_ip",
];
const SNI: &[&str] = &["requested_server_name", "sni"];
/// Fields that are headers by another name.
const HEADERS: &[(&str, &str)] = &[
    ("user_agent", "user-agent"),
    ("user-agent", "user-agent"),
    ("x_forwarded_for", "x-forwarded-for"),
    ("x-forwarded-for", "x-forwarded-for"),
    ("request_id", "x-request-id"),
    ("x-request-id", "x-request-id"),
    ("referer", "referer"),
    ("cookie", "cookie"),
];

/// Names that tell such a log from a traffic line.
pub(super) const MARKS: &[&str] =
    &["authority", ":authority", "response_flags", "downstream_remote_address", "upstream_cluster", "upstream_host"];

/// Reads one line. `host` is for lines without an authority. The error is a sentence.
pub fn read(text: &str, host: &str) -> Result<Captured, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("not a line of Envoy's JSON log: {error}"))?;
    let found = |names: &[&str]| names.iter().find_map(|name| value(&fields, name));
    let target = found(PATH).ok_or("the line has no path")?;
    let (scheme, authority, target) = absolute(target);
    let host = authority.or_else(|| found(AUTHORITY)).unwrap_or(host);
    let method = found(METHOD).ok_or("the line has no method")?;
    let mut request = line::request(method, host, target).map_err(|error| error.to_string())?;
    request.scheme = scheme.or_else(|| found(SCHEME)).unwrap_or("http").to_owned();
    request.sni = found(SNI).map(str::to_owned);
    request.client = found(CLIENT).and_then(address).unwrap_or(request.client);
    for (field, name) in HEADERS {
        let name = HeaderName::from_static(name);
        if !request.headers.contains_key(&name) {
            insert(&mut request.headers, name, value(&fields, field));
        }
    }
    for name in ["headers", "request_headers"] {
        let Some(Value::Object(more)) = fields.get(name) else { continue };
        for (name, value) in more {
            if let (Ok(name), Value::String(value)) = (HeaderName::try_from(name.as_str()), value) {
                insert(&mut request.headers, name, Some(value));
            }
        }
    }
    Ok(Captured { request, redacted: Vec::new() })
}

/// A field's text; Envoy writes `-` for what is not there.
fn value<'f>(fields: &'f Map<String, Value>, name: &str) -> Option<&'f str> {
    let (_, value) = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    value.as_str().filter(|text| !text.is_empty() && *text != "-")
}

/// With or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_fields_become_a_request() {
        let line = r#"{"start_time":"2026-11-22T10:00:00Z","method":"GET","path":"/cart?x=1","authority":"shop.example.com:443","downstream_remote_address":"10.1.2.3:5000","requested_server_name":"-","user_agent":"curl","x_forwarded_for":null,"response_code":200,"request_headers":{"x-lane":"f1"}}"#;
        let request = read(line, "x").unwrap().request;
        assert_eq!(
            (request.host.as_str(), request.path.as_str(), request.sni.as_deref()),
            ("shop.example.com", "/cart", None)
        );
        assert_eq!(
            (request.client.to_string().as_str(), &request.headers["x-lane"]),
            ("10.1.2.3", &"f1".parse().unwrap())
        );
        assert_eq!(request.headers.len(), 2);
        let own = read(r#"{":METHOD":"POST",":PATH":"/","x-forwarded-proto":"https"}"#, "y").unwrap().request;
        assert_eq!((own.host.as_str(), own.scheme.as_str()), ("y", "https"));
        assert!(read("{}", "x").is_err() && read("x", "x").is_err());
    }
}
