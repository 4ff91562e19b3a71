//! The PROXY protocol's head as instances get it (haproxy.org's `proxy-protocol.txt`, 2020/03/05).

use std::net::{IpAddr, SocketAddr};

use crate::engine::upstream::ProxyVersion;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The head for a connection on behalf of `client`; `None`: on our own (a check).
#[must_use]
pub fn head(version: ProxyVersion, client: Option<SocketAddr>, to: SocketAddr) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => line(client, to),
        ProxyVersion::V2 => binary(client, to),
    }
}

fn line(client: Option<SocketAddr>, to: SocketAddr) -> Vec<u8> {
    let Some(client) = client else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, target, six) = alike(client.ip(), to.ip());
    let family = if six { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {source} {target} {} {}\r\n", client.port(), to.port()).into_bytes()
}

fn binary(client: Option<SocketAddr>, to: SocketAddr) -> Vec<u8> {
    let mut head = SIGNATURE.to_vec();
    let Some(client) = client else {
        head.extend([0x20, 0, 0, 0]);
        return head;
    };
    let (source, target, six) = alike(client.ip(), to.ip());
    head.extend(if six { [0x21, 0x21, 0, 36] } else { [0x21, 0x11, 0, 12] });
    for address in [source, target] {
        match address {
            IpAddr::V4(four) => head.extend(four.octets()),
            IpAddr::V6(six) => head.extend(six.octets()),
        }
    }
    head.extend(client.port().to_be_bytes());
    head.extend(to.port().to_be_bytes());
    head
}

/// Both addresses in one family: of IPv4 only if both are, else of IPv6.
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
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let four = head(ProxyVersion::V1, Some(at("192.0.2.1:5000")), at("198.51.100.1:443"));
        assert_eq!(four, b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n");
        let mixed = head(ProxyVersion::V1, Some(at("[2001:db8::1]:5000")), at("198.51.100.1:443"));
        assert_eq!(mixed, b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 5000 443\r\n");
        assert_eq!(head(ProxyVersion::V1, None, at("198.51.100.1:443")), b"PROXY UNKNOWN\r\n");
        let four = head(ProxyVersion::V2, Some(at("192.0.2.1:5000")), at("198.51.100.1:443"));
        let addresses = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 187];
        assert_eq!(four, [SIGNATURE, &[0x21, 0x11, 0, 12][..], &addresses].concat());
        assert_eq!(head(ProxyVersion::V2, Some(at("[::1]:1")), at("[::1]:2")).len(), 52);
        assert_eq!(head(ProxyVersion::V2, None, at("[::1]:2")).len(), 16);
    }
}
