//! The PROXY protocol's head, versions 1 and 2, as haproxy.org's `proxy-protocol.txt` (2020/03/05) describes it: who
//! the client is and what it connected to, from a proxy in front of this one. Strict: what the text does not allow is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::forward::connection::Ends;

/// The largest head of version 1: `PROXY UNKNOWN` with two IPv6 addresses of full length.
const LINE_MOST: usize = 107;
/// What is read of a head of version 2; a sender needs far less unless it adds certificates.
const BINARY_MOST: usize = 4 * 1024;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many more bytes belong to the head, at least.
    More(usize),
    /// It is whole.
    Whole(Said),
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The client's connection to the first proxy.
    Ends(Ends),
    /// The proxy speaks for itself (`LOCAL`): the connection's own ends count.
    Own,
    /// The proxy passes on a client that it does not know (`UNKNOWN`, a family that is not TCP over IP): the connection's own
    /// ends count, as the text demands, but what follows is not the proxy's word.
    Unknown,
}

/// Not a head, or not an allowed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Looks at what has been read: at first nothing, then always as much as was asked for. Never asks for a byte behind
/// the head.
pub fn step(read: &[u8]) -> Result<Step, Malformed> {
    if read.len() < SIGNATURE.len() {
        // Wrong from its first byte on: nobody is waited for.
        let is_line = read.iter().zip(b"PROXY ").all(|(read, wanted)| read == wanted);
        let is_binary = read.iter().zip(SIGNATURE).all(|(read, wanted)| read == wanted);
        return if is_line || is_binary { Ok(Step::More(SIGNATURE.len() - read.len())) } else { Err(Malformed) };
    }
    if read.starts_with(SIGNATURE) { binary(read) } else { line(read) }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n`.
fn line(read: &[u8]) -> Result<Step, Malformed> {
    let rest = read.strip_prefix(b"PROXY ").ok_or(Malformed)?;
    let Some(text) = rest.strip_suffix(b"\r\n") else {
        if read.len() >= LINE_MOST || rest.contains(&b'\n') {
            return Err(Malformed);
        }
        let missing = if read.ends_with(b"\r") { 1 } else { 2 };
        // The shortest line with addresses is 32 bytes; the shortest of all 15.
        let least = if rest.starts_with(b"TCP") { 32 } else { 15 };
        return Ok(Step::More(missing.max(least - least.min(read.len())).min(LINE_MOST - read.len())));
    };
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Step::Whole(Said::Unknown));
    }
    let mut words = text.split(' ');
    let (family, source, target) = (words.next(), words.next(), words.next());
    let (from, to) = (words.next().and_then(port), words.next().and_then(port));
    let (Some(source), Some(target), Some(from), Some(to), None) = (source, target, from, to, words.next()) else {
        return Err(Malformed);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let at = |text, port| address(text).map(|address| SocketAddr::new(address, port)).ok_or(Malformed);
    Ok(Step::Whole(Said::Ends(Ends { client: at(source, from)?, server: at(target, to)? })))
}

/// 0 to 65535 without a sign or a leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Version 2.
fn binary(read: &[u8]) -> Result<Step, Malformed> {
    let Some((fixed, rest)) = read.split_at_checked(FIXED) else { return Ok(Step::More(FIXED - read.len())) };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let (command, family) = (fixed[12], fixed[13]);
    if command >> 4 != 2 || command & 0xf > 1 || FIXED + length > BINARY_MOST {
        return Err(Malformed);
    }
    if rest.len() < length {
        return Ok(Step::More(length - rest.len()));
    }
    // Of a LOCAL connection, and of families that are no TCP over IP, all that follows is skipped.
    let addresses = match (command & 0xf, family) {
        (0, _) => return Ok(Step::Whole(Said::Own)),
        (_, 0x00 | 0x31 | 0x32) => return Ok(Step::Whole(Said::Unknown)),
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        _ => return Err(Malformed),
    };
    let (addresses, extensions) = rest.split_at_checked(addresses).ok_or(Malformed)?;
    are_whole(extensions)?;
    let (addresses, ports) = addresses.split_at(addresses.len() - 4);
    let (source, target) = addresses.split_at(addresses.len() / 2);
    let at = |address: &[u8], port: &[u8]| {
        let four = <[u8; 4]>::try_from(address).map(IpAddr::from);
        let address = four.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).map_err(|_| Malformed)?;
        Ok(SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])))
    };
    Ok(Step::Whole(Said::Ends(Ends { client: at(source, &ports[..2])?, server: at(target, &ports[2..])? })))
}

/// Type, length and value, to the end.
fn are_whole(mut extensions: &[u8]) -> Result<(), Malformed> {
    while let Some((head, rest)) = extensions.split_at_checked(3) {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        extensions = rest.get(length..).ok_or(Malformed)?;
    }
    if extensions.is_empty() { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a head as a reader does; how much of it was taken, and what it said.
    fn read(head: &[u8]) -> (usize, Result<Step, Malformed>) {
        let mut taken = 0;
        loop {
            match step(&head[..taken]) {
                Ok(Step::More(more)) if taken + more <= head.len() => taken += more,
                said => return (taken, said),
            }
        }
    }

    fn ends(client: &str, server: &str) -> Result<Step, Malformed> {
        Ok(Step::Whole(Said::Ends(Ends { client: client.parse().unwrap(), server: server.parse().unwrap() })))
    }

    #[test]
    fn a_line_is_read_to_its_end_and_no_further() {
        for (line, said) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", ends("192.0.2.1:5000", "198.51.100.1:443")),
            ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", ends("1.1.1.1:1", "1.1.1.1:1")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", ends("[2001:db8::1]:65535", "[::1]:0")),
            ("PROXY UNKNOWN\r\n", Ok(Step::Whole(Said::Unknown))),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(Step::Whole(Said::Unknown))),
        ] {
            let with_more = format!("{line}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(read(with_more.as_bytes()), (line.len(), said), "{line:?}");
        }
    }

    #[test]
    fn lines_that_are_not_quite_right_are_refused() {
        for line in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 05000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5000 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443 9\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n......",
            "PROXY TCP4 ::1 198.51.100.1 5000 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 5000 443\r\n",
            "PROXY UNKNOWNS\r\n......................",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\n\r\n",
        ] {
            assert_eq!(read(line.as_bytes()).1, Err(Malformed), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(read(endless.as_bytes()), (LINE_MOST, Err(Malformed)));
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    #[test]
    fn binary_heads_are_read_and_their_extensions_skipped() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 187];
        let mut v6 = [0u8; 36];
        (v6[15], v6[31], v6[33], v6[34]) = (1, 2, 9, 1);
        let extended = [&v4[..], &[4, 0, 2, 0, 0], &[0x20, 0, 1, 7]].concat();
        for (head, said) in [
            (v2(0x21, 0x11, &v4), ends("192.0.2.1:5000", "198.51.100.1:443")),
            (v2(0x21, 0x11, &extended), ends("192.0.2.1:5000", "198.51.100.1:443")),
            (v2(0x21, 0x21, &v6), ends("[::1]:9", "[::2]:256")),
            (v2(0x20, 0x00, &[]), Ok(Step::Whole(Said::Own))),
            (v2(0x20, 0x11, &v4), Ok(Step::Whole(Said::Own))),
            (v2(0x21, 0x31, &[0; 216]), Ok(Step::Whole(Said::Unknown))),
            (v2(0x31, 0x11, &v4), Err(Malformed)),
            (v2(0x22, 0x11, &v4), Err(Malformed)),
            (v2(0x21, 0x12, &v4), Err(Malformed)),
            (v2(0x21, 0x11, &v4[..8]), Err(Malformed)),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0]].concat()), Err(Malformed)),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0, 9, 1]].concat()), Err(Malformed)),
            (v2(0x21, 0x11, &[0; 5_000]), Err(Malformed)),
        ] {
            assert_eq!(read(&[&head[..], b"GET /"].concat()).1, said, "{head:?}");
        }
    }

    #[test]
    fn a_head_that_is_cut_anywhere_asks_for_what_is_missing() {
        let whole = v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 187]);
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n";
        for whole in [&whole[..], line] {
            for cut in 0..whole.len() {
                assert!(
                    matches!(step(&whole[..cut]), Ok(Step::More(more)) if more > 0 && cut + more <= whole.len()),
                    "{cut}"
                );
            }
        }
    }
}
