//! Who the client is and how it came, through trusted proxies: X-Forwarded-For, X-Forwarded-Proto and `Forwarded` (RFC 7239)
//! are believed from them only.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::connection::Connection;
use super::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
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
    let trusts = |address: &IpAddr| trusts(settings, address);
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
        return walk(
            &mut values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(',').map(|item| address(item.trim()))),
        );
    }
    if seen.has(Survey::FORWARDED_OTHER) && headers.contains_key(FORWARDED) {
        return walk(
            &mut headers.get_all(FORWARDED).iter().rev().flat_map(|value| elements(value).into_iter().rev().map(named)),
        );
    }
    peer
}

/// `http` or `https`: how the client came to the first proxy, by the word of a trusted one; else how the connection came to
/// us. Anything but one of the two counts as not said. Without X-Forwarded-Proto that is the `proto` of the element of
/// `Forwarded` in which the walk for the client ends.
#[must_use]
pub fn scheme(headers: &HeaderMap, seen: Survey, connection: &Connection, settings: &Settings) -> &'static str {
    let own = connection.scheme();
    if !connection.peer_trusted {
        return own;
    }
    if seen.has(Survey::FORWARDED_PROTO) {
        let mut values = headers.get_all(X_FORWARDED_PROTO).iter();
        let only = values.next().filter(|_| values.next().is_none());
        return only.and_then(|value| web_scheme(value.to_str().ok()?)).unwrap_or(own);
    }
    if seen.has(Survey::FORWARDED_OTHER) && headers.contains_key(FORWARDED) {
        let elements = headers.get_all(FORWARDED).iter().rev().flat_map(|value| elements(value).into_iter().rev());
        let mut said = None;
        for element in elements {
            said = parameter(element, "proto").and_then(web_scheme);
            if !named(element).is_some_and(|address| trusts(settings, &address)) {
                break;
            }
        }
        return said.unwrap_or(own);
    }
    own
}

fn trusts(settings: &Settings, address: &IpAddr) -> bool {
    settings.trusted_proxies.iter().any(|net| net.contains(address))
}

fn web_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| text.trim().eq_ignore_ascii_case(scheme))
}

/// Adds our element to `Forwarded`: to those of a trusted proxy, in place of everybody else's.
pub fn extend(headers: &mut HeaderMap, connection: &Connection) {
    let mut element = Vec::with_capacity(64);
    if connection.peer_trusted {
        let whole = |value: &&HeaderValue| value.to_str().is_ok_and(|text| !ends_quoted(text));
        // One that ends within quotes would take ours in.
        for before in headers.get_all(FORWARDED).iter().filter(whole) {
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

/// The elements of a `Forwarded` field. One that ends within quotes is none: nobody knows where its elements end.
fn elements(value: &HeaderValue) -> SmallVec<[&str; 8]> {
    let whole = value.to_str().ok().filter(|text| !ends_quoted(text));
    parts(whole.unwrap_or("?"), ',').collect()
}

/// What `mark` separates, which means nothing within quotes (RFC 9110, 5.6.4).
fn parts(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let mut quotes = Quotes::default();
    text.split(move |character| quotes.is_outside(character) && character == mark).map(str::trim)
}

fn ends_quoted(text: &str) -> bool {
    let mut quotes = Quotes::default();
    for character in text.chars() {
        quotes.is_outside(character);
    }
    quotes.within
}

/// Where quoted strings begin and end.
#[derive(Default)]
struct Quotes {
    within: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether the next character is outside of quotes.
    fn is_outside(&mut self, character: char) -> bool {
        let was_within = self.within;
        match character {
            _ if std::mem::take(&mut self.escaped) => {}
            '\\' => self.escaped = was_within,
            '"' => self.within = !was_within,
            _ => {}
        }
        !was_within
    }
}

/// `192.0.2.1`, `192.0.2.1:5000`, `2001:db8::1` or `[2001:db8::1]:5000`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|at| at.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The `for` of an element of `Forwarded`; `None` where it is no address.
fn named(element: &str) -> Option<IpAddr> {
    parameter(element, "for").and_then(address)
}

/// A parameter of an element of `Forwarded`, without its quotes; `None` where there are several of the name.
fn parameter<'e>(element: &'e str, wanted: &str) -> Option<&'e str> {
    let mut found = parts(element, ';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
    });
    let value = found.next()?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if found.next().is_some() { None } else { Some(bare) }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::forward::clock::Clock;
    use crate::forward::connection::Ends;

    const FOR: &str = "x-forwarded-for";

    fn peer(text: &str, trusted: bool) -> Connection {
        let clock = Rc::new(Clock::new(Instant::now()));
        let account = Rc::new(crate::observe::memory::Account::new(&Arc::default()));
        let client = SocketAddr::new(text.parse().unwrap(), 5000);
        let ends = Ends { client, server: client };
        Connection::new(clock, ends, trusted, None, Rc::default(), &account)
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
            (&[("forwarded", "for=_hidden")], true, "10.0.0.1"),
            // What a client says in something quoted is nobody's element.
            (&[("forwarded", r#"host="x;for=10.0.0.9";for=203.0.113.9"#)], true, "203.0.113.9"),
            (&[("forwarded", r#"for=203.0.113.9;host="a,for=10.0.0.9""#)], true, "203.0.113.9"),
            (&[("forwarded", r#"for=203.0.113.9;host="a\",for=10.0.0.9;x=\"""#)], true, "203.0.113.9"),
            (&[("forwarded", r#"for=_hidden;by="z;for=10.0.0.9""#)], true, "10.0.0.1"),
            (&[("forwarded", r#"for=203.0.113.9;for=10.0.0.9"#)], true, "10.0.0.1"),
            (&[("forwarded", r#"x=", for=203.0.113.9;host=";for=10.0.0.9;y=""#)], true, "10.0.0.1"),
            (&[("forwarded", "for=1.1.1.1"), (FOR, "203.0.113.9")], true, "203.0.113.9"),
            (&[], true, "10.0.0.1"),
        ] {
            let headers = fields(chain);
            let got = client(&headers, Survey::of(&headers), &peer("10.0.0.1", trusted), &settings);
            assert_eq!(got.to_string(), expected, "{chain:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_one_word_of_a_trusted_proxy_or_the_connections_own() {
        const PROTO: &str = "x-forwarded-proto";
        let settings = Settings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Settings::default() };
        for (said, trusted, expected) in [
            (&[(PROTO, "https")][..], false, "http"),
            (&[("forwarded", "for=1.1.1.1;proto=https")], false, "http"),
            (&[(PROTO, "https")], true, "https"),
            (&[(PROTO, "HTTPS")], true, "https"),
            (&[(PROTO, "http")], true, "http"),
            (&[], true, "http"),
            // What is not one of the two is not guessed at.
            (&[(PROTO, "https, http")], true, "http"),
            (&[(PROTO, "https"), (PROTO, "https")], true, "http"),
            (&[(PROTO, "wss")], true, "http"),
            (&[(PROTO, "")], true, "http"),
            (&[(PROTO, "ftp"), ("forwarded", "for=1.1.1.1;proto=https")], true, "http"),
            (&[(PROTO, "http"), ("forwarded", "for=1.1.1.1;proto=https")], true, "http"),
            (&[("forwarded", "for=1.1.1.1;Proto=\"https\"")], true, "https"),
            (&[("forwarded", "proto=https")], true, "https"),
            (&[("forwarded", "for=_hidden;proto=https")], true, "https"),
            // The element of the client counts, and nothing that was there before it.
            (&[("forwarded", "for=1.1.1.1;proto=https, for=10.0.0.2;proto=http")], true, "https"),
            (&[("forwarded", "for=1.1.1.1;proto=https, for=2.2.2.2;proto=http")], true, "http"),
            (&[("forwarded", "for=1.1.1.1;proto=https, for=2.2.2.2")], true, "http"),
            (&[("forwarded", "for=1.1.1.1;proto=https"), ("forwarded", "for=10.0.0.2")], true, "https"),
            (&[("forwarded", "for=1.1.1.1;proto=https;proto=https")], true, "http"),
            (&[("forwarded", r#"for=1.1.1.1;host="a;proto=https""#)], true, "http"),
            (&[("forwarded", r#"for=1.1.1.1;proto=https;host="a"#)], true, "http"),
        ] {
            let headers = fields(said);
            let got = scheme(&headers, Survey::of(&headers), &peer("10.0.0.1", trusted), &settings);
            assert_eq!(got, expected, "{said:?}");
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
        let mut headers = fields(&[("forwarded", "for=1.1.1.1"), ("forwarded", r#"for=2.2.2.2;host="a"#)]);
        extend(&mut headers, &peer("192.0.2.1", true));
        assert_eq!(headers[FORWARDED], "for=1.1.1.1, for=192.0.2.1;proto=http", "nothing of ours stands within quotes");
    }
}
