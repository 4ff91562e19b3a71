//! The PROXY protocol's head as instances get it (haproxy.org's `proxy-protocol.txt`, 2020/03/05).

use std::net::{IpAddr, SocketAddr};

use crate::engine::upstream::ProxyVersion;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A client's connection, as the PROXY protocol tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub client: SocketAddr,
    /// What it connected to.
    pub server: SocketAddr,
}

/// The head for a connection on behalf of a client's; `None`: on our own (a check).
#[must_use]
pub fn head(version: ProxyVersion, ends: Option<Ends>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => line(ends),
        ProxyVersion::V2 => binary(ends),
    }
}

fn line(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { client, server }) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, target, six) = alike(client.ip(), server.ip());
    let family = if six { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {source} {target} {} {}\r\n", client.port(), server.port()).into_bytes()
}

fn binary(ends: Option<Ends>) -> Vec<u8> {
    let mut head = SIGNATURE.to_vec();
    let Some(Ends { client, server }) = ends else {
        head.extend([0x20, 0, 0, 0]);
        return head;
    };
    let (source, target, six) = alike(client.ip(), server.ip());
    head.extend(if six { [0x21, 0x21, 0, 36] } else { [0x21, 0x11, 0, 12] });
    for address in [source, target] {
        match address {
            IpAddr::V4(four) => head.extend(four.octets()),
            IpAddr::V6(six) => head.extend(six.octets()),
        }
    }
    head.extend(client.port().to_be_bytes());
    head.extend(server.port().to_be_bytes());
    head
}

/// Both addresses in one family, as the protocol wants it: of IPv4 only if both are, else of IPv6, into which the one of
/// IPv4 is mapped (`::ffff:192.0.2.1`).
fn alike(source: IpAddr, target: IpAddr) -> (IpAddr, IpAddr, bool) {
    match (source.to_canonical(), target.to_canonical()) {
        (source @ IpAddr::V4(_), target @ IpAddr::V4(_)) => (source, target, false),
        (source, target) => (mapped(source), mapped(target), true),
    }
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(four) => IpAddr::V6(four.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_the_text_has_them() {
        let ends = |client: &str, server: &str| {
            Some(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })
        };
        let (v1, v2) = (|ends| head(ProxyVersion::V1, ends), |ends| head(ProxyVersion::V2, ends));
        let four = ends("192.0.2.1:5000", "198.51.100.1:443");
        assert_eq!(v1(four), b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n");
        let addresses = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 187];
        assert_eq!(v2(four), [SIGNATURE, &[0x21, 0x11, 0, 12][..], &addresses].concat());
        let mapped = ends("[::ffff:192.0.2.1]:5000", "[::ffff:198.51.100.1]:443");
        assert_eq!((v1(mapped), v2(mapped)), (v1(four), v2(four)), "a socket of both families");
        let six = ends("[::1]:1", "[2001:db8::2]:2");
        assert_eq!(v1(six), b"PROXY TCP6 ::1 2001:db8::2 1 2\r\n");
        let (one, two) =
            ([[0; 15].as_slice(), &[1]].concat(), [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(v2(six), [SIGNATURE, &[0x21, 0x21, 0, 36][..], &one, &two, &[0, 1, 0, 2]].concat());
        for (mixed, line) in [
            (ends("[2001:db8::1]:5000", "198.51.100.1:443"), "2001:db8::1 ::ffff:198.51.100.1"),
            (ends("192.0.2.1:5000", "[2001:db8::1]:443"), "::ffff:192.0.2.1 2001:db8::1"),
        ] {
            assert_eq!(v1(mixed), format!("PROXY TCP6 {line} 5000 443\r\n").as_bytes());
            assert_eq!((v2(mixed)[13], v2(mixed).len()), (0x21, 52), "both of IPv6");
        }
        assert_eq!(v1(None), b"PROXY UNKNOWN\r\n");
        assert_eq!(v2(None).len(), 16);
    }
}
