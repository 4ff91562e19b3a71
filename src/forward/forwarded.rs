//! Who the client is, through trusted proxies: X-Forwarded-For and `Forwarded` (RFC 7239) are believed from them only.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderValue};

use super::connection::Connection;
use super::headers::X_FORWARDED_FOR;
use super::settings::Settings;
use super::survey::Survey;

/// The client as the rules see it: the peer; behind trusted proxies the last of the chain that is none of them. What is
/// no address ends the walk: nobody vouches for what stands before it.
#[must_use]
pub fn client(headers: &HeaderMap, seen: Survey, connection: &Connection, settings: &Settings) -> IpAddr {
    let peer = connection.peer.ip();
    if !connection.peer_trusted {
        return peer;
    }
    let trusts = |address: &IpAddr| settings.trusted_proxies.iter().any(|net| net.contains(address));
    let walk = |chain: &mut dyn Iterator<Item = Option<IpAddr>>| {
        let mut client = peer;
        for address in chain {
            let Some(address) = address else { break };
            client = address;
            if !trusts(&address) {
                break;
            }
        }
        client
    };
    if seen.has(Survey::FORWARDED_FOR) {
        let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
        return walk(&mut values.flat_map(|value| items(value).rev().map(address)));
    }
    if seen.has(Survey::FORWARDED_OTHER) && headers.contains_key(FORWARDED) {
        return walk(&mut headers.get_all(FORWARDED).iter().rev().flat_map(|value| items(value).rev().map(named)));
    }
    peer
}

/// Adds our element to `Forwarded`: to those of a trusted proxy, in place of everybody else's.
pub fn extend(headers: &mut HeaderMap, connection: &Connection) {
    let mut element = Vec::with_capacity(64);
    if connection.peer_trusted {
        for before in headers.get_all(FORWARDED) {
            element.extend_from_slice(before.as_bytes());
            element.extend_from_slice(b", ");
        }
    }
    element.extend_from_slice(b"for=");
    match connection.peer.ip() {
        IpAddr::V4(_) => element.extend_from_slice(connection.peer_field.as_bytes()),
        IpAddr::V6(_) => {
            element.extend_from_slice(b"\"[");
            element.extend_from_slice(connection.peer_field.as_bytes());
            element.extend_from_slice(b"]\"");
        }
    }
    // A Host is checked before; what a quoted string cannot hold is left out all the same.
    if let Some(host) =
        headers.get(HOST).map(HeaderValue::as_bytes).filter(|host| !host.contains(&b'"') && !host.contains(&b'\\'))
    {
        element.extend_from_slice(b";host=\"");
        element.extend_from_slice(host);
        element.extend_from_slice(b"\"");
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(connection.scheme().as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(element)) {
        headers.insert(FORWARDED, value);
    }
}

/// The elements of a list. A comma within quotes does not stand in anything that is an address.
fn items(value: &HeaderValue) -> impl DoubleEndedIterator<Item = &str> {
    value.to_str().unwrap_or("?").split(',').map(str::trim)
}

/// `192.0.2.1`, `192.0.2.1:5000`, `2001:db8::1` or `[2001:db8::1]:5000`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|at| at.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The `for` of an element of `Forwarded`.
fn named(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::forward::clock::Clock;

    const FOR: &str = "x-forwarded-for";

    fn peer(text: &str, trusted: bool) -> Connection {
        let clock = Rc::new(Clock::new(Instant::now()));
        let account = Rc::new(crate::observe::memory::Account::new(&Arc::default()));
        Connection::new(clock, SocketAddr::new(text.parse().unwrap(), 5000), trusted, None, Rc::default(), &account)
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let settings = Settings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Settings::default() };
        for (chain, trusted, expected) in [
            (&[(FOR, "203.0.113.9")][..], false, "10.0.0.1"),
            (&[(FOR, "203.0.113.9")], true, "203.0.113.9"),
            (&[(FOR, "1.1.1.1, 203.0.113.9, 10.0.0.2")], true, "203.0.113.9"),
            (&[(FOR, "1.1.1.1"), (FOR, "203.0.113.9:5000")], true, "203.0.113.9"),
            (&[(FOR, "1.1.1.1, unknown, 10.0.0.2")], true, "10.0.0.2"),
            (&[(FOR, "10.0.0.3, 10.0.0.2")], true, "10.0.0.3"),
            (&[(FOR, "[2001:db8::1]:80")], true, "2001:db8::1"),
            (&[(FOR, "")], true, "10.0.0.1"),
            (&[("forwarded", "for=1.1.1.1, For=\"[2001:db8::2]:80\";proto=http")], true, "2001:db8::2"),
            (&[("forwarded", "for=_hidden, for=10.0.0.2")], true, "10.0.0.2"),
            (&[("forwarded", "for=1.1.1.1"), (FOR, "203.0.113.9")], true, "203.0.113.9"),
            (&[], true, "10.0.0.1"),
        ] {
            let headers = fields(chain);
            let got = client(&headers, Survey::of(&headers), &peer("10.0.0.1", trusted), &settings);
            assert_eq!(got.to_string(), expected, "{chain:?}");
        }
    }

    #[test]
    fn our_element_is_added_to_a_trusted_chain_and_replaces_any_other() {
        let sent = [("host", "shop.example:8080"), ("forwarded", "for=1.1.1.1")];
        let mut headers = fields(&sent);
        extend(&mut headers, &peer("192.0.2.1", false));
        assert_eq!(headers[FORWARDED], "for=192.0.2.1;host=\"shop.example:8080\";proto=http");
        let mut headers = fields(&sent);
        extend(&mut headers, &peer("2001:db8::1", true));
        assert_eq!(headers[FORWARDED], "for=1.1.1.1, for=\"[2001:db8::1]\";host=\"shop.example:8080\";proto=http");
    }
}
