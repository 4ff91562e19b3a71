//! The `combined` access log of nginx and Apache, also with a virtual host in front (`vhost_combined`):
//! `[HOST[:PORT] ]CLIENT - USER [TIME] "METHOD TARGET PROTOCOL" STATUS BYTES "REFERER" "USER-AGENT"`. What stands after
//! is ignored. Of the headers only `referer` and `user-agent` are known.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};

use super::{Captured, line};

/// Reads one line. `host` is for lines without a virtual host. The error is a sentence.
pub fn read(text: &str, host: &str) -> Result<Captured, String> {
    let bad = || "not a line of the `combined` log format".to_owned();
    let (before, rest) = text.split_once(" [").ok_or_else(bad)?;
    let (_, rest) = rest.split_once(']').ok_or_else(bad)?;
    let mut quoted = Quoted { rest };
    let request_line = quoted.next().ok_or_else(bad)?;
    let mut words = request_line.split(' ').filter(|word| !word.is_empty());
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(format!("`{request_line}` is not a request line"));
    };
    let (client, vhost) = peer(before).ok_or_else(bad)?;
    let (scheme, authority, target) = absolute(target);
    let host = authority.or(vhost).unwrap_or(host);
    let mut request = line::request(method, host, target).map_err(|error| error.to_string())?;
    request.scheme = scheme.unwrap_or("http").to_owned();
    request.client = client;
    for name in [header::REFERER, header::USER_AGENT] {
        let value = quoted.next().filter(|value| *value != "-");
        insert(&mut request.headers, name, value.as_deref());
    }
    Ok(Captured { request, redacted: Vec::new() })
}

/// The client, and the virtual host where one stands before it. A client that is a name has no address.
fn peer(before: &str) -> Option<(IpAddr, Option<&str>)> {
    let mut words = before.split(' ').filter(|word| !word.is_empty());
    let (first, second) = (words.next()?, words.next()?);
    match (first.parse::<IpAddr>(), second.parse::<IpAddr>()) {
        (Ok(client), _) => Some((client.to_canonical(), None)),
        (Err(_), Ok(client)) => Some((client.to_canonical(), Some(first))),
        (Err(_), Err(_)) => Some((IpAddr::from([127, 0, 0, 1]), None)),
    }
}

/// Scheme and authority of a target in absolute form, and its path.
pub(super) fn absolute(target: &str) -> (Option<&str>, Option<&str>, &str) {
    let Some((scheme @ ("http" | "https"), rest)) = target.split_once("://") else { return (None, None, target) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let path = rest[end..].split('#').next().unwrap_or("");
    (Some(scheme), Some(&rest[..end]), if path.is_empty() { "/" } else { path })
}

pub(super) fn insert(headers: &mut http::HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.append(name, value);
    }
}

/// The parts in double quotes, escapes resolved.
struct Quoted<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Quoted<'t> {
    type Item = Cow<'t, str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (_, from) = self.rest.split_once('"')?;
        let mut escaped = false;
        let end = from.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        self.rest = &from[end + 1..];
        let part = &from[..end];
        Some(if part.contains('\\') { Cow::Owned(unescape(part)) } else { Cow::Borrowed(part) })
    }
}

/// `\"` and `\\` of both, `\xHH` of nginx and of Apache.
fn unescape(part: &str) -> String {
    let mut out = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                match std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(value) => {
                        out.push(value);
                        rest = after;
                    }
                    None => out.push(byte),
                }
            }
            (b'\\', [next @ (b'"' | b'\\'), after @ ..]) => {
                out.push(*next);
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nginx_and_apache_become_requests() {
        let line = r#"10.1.2.3 - bob [22/Nov/2026:10:00:00 +0000] "GET /cart?x=1 HTTP/1.1" 200 17 "https://a/" "say \"hi\" \x41""#;
        let request = read(line, "shop.example.com").unwrap().request;
        assert_eq!(
            (request.host.as_str(), request.path.as_str(), request.query.as_deref()),
            ("shop.example.com", "/cart", Some("x=1"))
        );
        assert_eq!(
            (request.client.to_string().as_str(), &request.headers["user-agent"]),
            ("10.1.2.3", &HeaderValue::from_static("say \"hi\" A"))
        );
        let vhost = r#"www.example.com:443 ::1 - - [22/Nov/2026:10:00:00 +0000] "POST https://x.example.com HTTP/1.1" 200 - "-" "-" 0.001"#;
        let request = read(vhost, "shop").unwrap().request;
        assert_eq!(
            (request.host.as_str(), request.scheme.as_str(), request.path.as_str()),
            ("x.example.com", "https", "/")
        );
        assert!(request.headers.is_empty() && request.client.is_ipv6());
        let plain = vhost.replace("https://x.example.com", "/");
        assert_eq!(read(&plain, "shop").unwrap().request.host, "www.example.com");
    }

    #[test]
    fn what_is_no_request_is_said() {
        for line in [
            "",
            "hello",
            r#"1.1.1.1 - - [x] "-" 400 0"#,
            r#"1.1.1.1 - - [x] "\x16\x03" 400 0"#,
            r#"1.1.1.1 - - [x] "GET"#,
        ] {
            assert!(read(line, "shop").is_err(), "{line}");
        }
    }
}
