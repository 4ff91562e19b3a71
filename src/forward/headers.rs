//! Fields that a proxy takes away, adds and replaces, in both directions. In place, and only where `Survey` saw a need.

use http::header::{CONNECTION, EXPECT, FORWARDED, HOST, SERVER, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::connection::Connection;
use super::settings::Settings;
use super::survey::Survey;
use super::traced::X_DEBUG;
use crate::engine::time::Draw;

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Request-Id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The detail word on our own errors.
pub const X_POINTSMAN_ERROR: HeaderName = HeaderName::from_static("x-pointsman-error");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
/// The stream of a request's luck that its id is made from.
const ID_STREAM: u64 = 0x1d00;
const VIA_VALUE: HeaderValue = HeaderValue::from_static("1.1 pointsman");

/// The protocol that a request asks to change to, if it is an allowed one and the request may change at all.
#[must_use]
pub fn wanted_upgrade(head: &Parts, seen: Survey, allowed: &[String]) -> Option<HeaderValue> {
    if !seen.has(Survey::UPGRADE) || head.method != Method::GET {
        return None;
    }
    let mut values = head.headers.get_all(UPGRADE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let named = value.as_bytes();
    let is_allowed = allowed.iter().any(|protocol| protocol.as_bytes().eq_ignore_ascii_case(named));
    let is_asked = tokens(&head.headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    (is_allowed && is_asked).then(|| value.clone())
}

/// Turns a client's head into the one that an instance gets. `scheme`: as the rules see it.
/// `upgrade`: the protocol to ask the instance for.
pub fn towards_instance(
    headers: &mut HeaderMap,
    seen: Survey,
    connection: &Connection,
    scheme: &'static str,
    settings: &Settings,
    upgrade: Option<HeaderValue>,
) {
    strip_request(headers, seen, settings);
    if seen.has(Survey::TRANSFER_ENCODING) {
        // It was checked to be that, in some case.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    forwarded(headers, seen, connection, scheme);
    if settings.forwarded {
        super::forwarded::extend(headers, connection);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    if settings.via {
        headers.append(VIA, VIA_VALUE);
    }
}

/// Turns an instance's head into the one that the client gets.
pub fn towards_client(headers: &mut HeaderMap, seen: Survey, settings: &Settings) {
    if seen.has(Survey::HOP_BY_HOP) {
        strip_hop_by_hop(headers, seen);
        if seen.has(Survey::TRANSFER_ENCODING) {
            headers.remove(TRANSFER_ENCODING);
            // Both at once: the coding counts, and a length beside it is a lie.
            headers.remove(http::header::CONTENT_LENGTH);
        }
        if seen.has(Survey::TE) {
            headers.remove(TE);
        }
    }
    if settings.via {
        headers.append(VIA, VIA_VALUE);
    }
}

/// Whether an answer's transfer coding is one that can be passed on: none, or one `chunked`.
#[must_use]
pub fn is_plain_coding(headers: &HeaderMap, seen: Survey) -> bool {
    if !seen.has(Survey::TRANSFER_ENCODING) {
        return true;
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    matches!((codings.next(), codings.next()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// A new request id: 32 hexadecimal digits.
#[must_use]
pub fn request_id(draw: Draw) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut stream = draw.fork(ID_STREAM);
    let mut id = [0u8; 32];
    for half in id.chunks_exact_mut(16) {
        let mut bits = stream.advance();
        for digit in half {
            *digit = DIGITS[(bits & 15) as usize];
            bits >>= 4;
        }
    }
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("0"))
}

/// Fields that say what we are, on answers of our own.
pub fn own_answer(headers: &mut HeaderMap) {
    headers.insert(SERVER, HeaderValue::from_static("pointsman"));
}

fn strip_request(headers: &mut HeaderMap, seen: Survey, settings: &Settings) {
    if seen.has(Survey::HOP_BY_HOP) {
        let trailers = seen.has(Survey::TE)
            && headers.get_all(TE).iter().any(|value| {
                value.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")))
            });
        strip_hop_by_hop(headers, seen);
        if seen.has(Survey::TE) {
            headers.remove(TE);
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if seen.has(Survey::EXPECT) {
        // The client is answered `100 Continue` by us, once the instance's connection takes the body.
        headers.remove(EXPECT);
    }
    if seen.has(Survey::DEBUG_TOKEN) {
        headers.remove(X_DEBUG);
    }
    if seen.has(Survey::UNDERSCORE) && !settings.underscores {
        remove_where(headers, |name| name.contains('_'));
    }
}

/// Removes the connection's own fields and those that it names. `Transfer-Encoding` stays: it is checked apart.
fn strip_hop_by_hop(headers: &mut HeaderMap, seen: Survey) {
    if seen.has(Survey::CONNECTION) && !names_nothing(headers) {
        let named: smallvec::SmallVec<[HeaderName; 2]> = tokens(headers)
            .filter(|token| !is_protected(token))
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    if seen.has(Survey::CONNECTION) {
        headers.remove(CONNECTION);
    }
    if seen.has(Survey::KEEP_ALIVE) {
        headers.remove(KEEP_ALIVE);
    }
    if seen.has(Survey::PROXY) {
        headers.remove(PROXY_CONNECTION);
        headers.remove(PROXY_AUTHENTICATE);
        headers.remove(PROXY_AUTHORIZATION);
        headers.remove(HTTP2_SETTINGS);
    }
    if seen.has(Survey::UPGRADE) {
        headers.remove(UPGRADE);
    }
}

/// The usual `Connection`, which names no field.
fn names_nothing(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    let usual = |value: &HeaderValue| {
        value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close")
    };
    values.next().is_some_and(usual) && values.next().is_none()
}

/// Names that `Connection` cannot take away: without them the message would mean something else, or go elsewhere.
fn is_protected(token: &str) -> bool {
    ["host", "content-length", "transfer-encoding", "te", "close", "keep-alive", "upgrade"]
        .iter()
        .any(|name| token.eq_ignore_ascii_case(name))
}

/// The names that `Connection` lists.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// X-Forwarded-*: kept and extended from a trusted proxy, replaced from anybody else.
fn forwarded(headers: &mut HeaderMap, seen: Survey, connection: &Connection, scheme: &'static str) {
    let proto = HeaderValue::from_static(scheme);
    if connection.peer_trusted {
        let chain = seen.has(Survey::FORWARDED_FOR).then(|| extended_chain(headers, connection)).flatten();
        headers.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|| connection.peer_field.clone()));
        if !seen.has(Survey::FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, proto);
        }
        if seen.has(Survey::FORWARDED_HOST) {
            return;
        }
    } else {
        if seen.has(Survey::FORWARDED_OTHER) {
            headers.remove(FORWARDED);
            remove_where(headers, |name| name.starts_with("x-forwarded-"));
        }
        headers.insert(X_FORWARDED_FOR, connection.peer_field.clone());
        headers.insert(X_FORWARDED_PROTO, proto);
    }
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
}

/// All X-Forwarded-For values in order, and the peer.
fn extended_chain(headers: &HeaderMap, connection: &Connection) -> Option<HeaderValue> {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(connection.peer_field.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).ok()
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
