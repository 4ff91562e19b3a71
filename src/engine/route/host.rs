//! The request host as the rules see it.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A Host value that no server may accept; `forward` answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host")]
pub struct HostError;

/// Lower case, without port and trailing dot; an IPv6 address keeps its brackets. Borrowed when there is nothing to do
/// but cut. An empty host is an error.
///
/// # Errors
/// A character that a host cannot have, a port that is no number, an address that is none.
pub fn normalise(host: &str) -> Result<Cow<'_, str>, HostError> {
    let name = if host.starts_with('[') {
        let end = host.find(']').ok_or(HostError)?;
        host[1..end].parse::<Ipv6Addr>().map_err(|_| HostError)?;
        valid_port(&host[end + 1..])?;
        &host[..=end]
    } else {
        let end = host.find(':').unwrap_or(host.len());
        valid_port(&host[end..])?;
        let name = host[..end].strip_suffix('.').unwrap_or(&host[..end]);
        valid_name(name)?;
        name
    };
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(name.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(name))
}

/// Nothing, or a colon and an optional port.
fn valid_port(rest: &str) -> Result<(), HostError> {
    let Some(port) = rest.strip_prefix(':') else {
        return if rest.is_empty() { Ok(()) } else { Err(HostError) };
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (port.is_empty() || port.parse::<u16>().is_ok()) { Ok(()) } else { Err(HostError) }
}

/// Letters, digits, hyphens and underscores in labels between dots; no empty label.
fn valid_name(name: &str) -> Result<(), HostError> {
    let mut before = b'.';
    for byte in name.bytes() {
        let dot = byte == b'.';
        if (dot && before == b'.') || !(dot || byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(HostError);
        }
        before = byte;
    }
    if before == b'.' || name.len() > 253 { Err(HostError) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_port_and_trailing_dot_do_not_count() {
        for (host, expected) in [
            ("Shop.Example.COM:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("a.b.:", "a.b"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:443", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
            ("my_svc-1", "my_svc-1"),
        ] {
            assert_eq!(normalise(host).as_deref(), Ok(expected), "{host}");
        }
        assert!(matches!(normalise("a.b:1"), Ok(Cow::Borrowed("a.b"))));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in
            ["", ".", "a..b", ".a", "a b", "a/b", "a@b", "a:b", "a:99999", "[::1", "[x]", "[::1]x", "a,b", "é", "a\0"]
        {
            assert_eq!(normalise(host), Err(HostError), "{host}");
        }
    }
}
