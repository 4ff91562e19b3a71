//! What a certificate covers, and whether a request's authority is within it (RFC 9110, 7.4 and 15.5.20).

use std::net::IpAddr;

use super::connection::Connection;
use super::error::Detail;

/// The names of a certificate: those that connections which negotiated it may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Lower case, without a trailing dot.
    pub exact: Vec<Box<str>>,
    /// What follows the `*.` of a wildcard.
    pub wildcards: Vec<Box<str>>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// Whether a host, lower case and without port, is covered. A wildcard stands for one label (RFC 6125, 6.4.3).
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        if self.exact.iter().any(|name| &**name == host) {
            return true;
        }
        let within = |wildcard: &str| parent(host).is_some_and(|parent| parent == wildcard);
        self.wildcards.iter().any(|wildcard| within(wildcard))
            || (!self.addresses.is_empty() && address(host).is_some_and(|address| self.addresses.contains(&address)))
    }
}

/// What follows a name's first label; `None`: it has only one.
#[must_use]
pub fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(first, rest)| !first.is_empty() && !rest.is_empty()).map(|(_, rest)| rest)
}

/// Refuses a request for a host that the certificate of its connection is not for. Without TLS, without a host, or
/// where the listener does not ask (`check_authority: false`), everything passes.
pub fn agrees(connection: &Connection, host: &str) -> Result<(), Detail> {
    let Some(tls) = &connection.tls else { return Ok(()) };
    let Some(names) = &tls.names else { return Ok(()) };
    let is_sni = tls.sni_covered && tls.sni.as_deref() == Some(host);
    if is_sni || host.is_empty() || names.covers(host) { Ok(()) } else { Err(Detail::Misdirected) }
}

fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_and_addresses_cover_themselves() {
        let names = Names {
            exact: vec!["shop.example".into()],
            wildcards: vec!["api.example".into()],
            addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        };
        for host in ["shop.example", "a.api.example", "127.0.0.1", "[::1]"] {
            assert!(names.covers(host), "{host}");
        }
        for host in ["example", "api.example", "a.b.api.example", ".api.example", "x.shop.example", "127.0.0.2", ""] {
            assert!(!names.covers(host), "{host}");
        }
    }
}
