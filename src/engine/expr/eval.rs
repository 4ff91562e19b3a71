//! What one test says of one value. Shared by selectors (over instances) and conditions (over requests); pure.
//!
//! A missing value is the caller's case: every positive test on it is false. `Test::negated` is the caller's too.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ast::{Op, Operand};
use super::version;

/// Whether a single value passes. What needs more than the value is false here and answered by the caller:
/// `matches` (compiled patterns), `label.NAME` (the request) and `file("…")` before it was loaded.
#[must_use]
pub fn test_text(op: &Op, value: &[u8]) -> bool {
    match op {
        Op::Exists => true,
        Op::Equal(Operand::Text(text)) => text.as_bytes() == value,
        Op::In(texts) => texts.iter().any(|text| text.as_bytes() == value),
        Op::Starts(prefix) => value.starts_with(prefix.as_bytes()),
        Op::Ends(suffix) => value.ends_with(suffix.as_bytes()),
        Op::Contains(part) => contains(value, part.as_bytes()),
        Op::Under(prefix) => under(prefix.as_bytes(), value),
        Op::Order(order, with) => {
            as_text(value).and_then(|text| version::compare(text, with)).is_some_and(|found| order.admits(found))
        }
        Op::Requirement(requirement) => as_text(value).is_some_and(|text| version::meets(text, requirement)),
        Op::InNetworks(networks) => {
            as_text(value).and_then(|text| text.parse().ok()).is_some_and(|ip| in_networks(networks, ip))
        }
        Op::Matches(_) | Op::InFile(_) | Op::Equal(Operand::RequestLabel(_)) => false,
    }
}

/// Whether a list passes: `exists` when it holds something, `contains`, `==` and `in` when a member does.
pub fn test_list<'v>(op: &Op, mut values: impl Iterator<Item = &'v str>) -> bool {
    match op {
        Op::Exists => values.next().is_some(),
        Op::Contains(member) => values.any(|value| value == &**member),
        other => values.any(|value| test_text(other, value.as_bytes())),
    }
}

/// Whether an address passes; it always exists.
#[must_use]
pub fn test_address(op: &Op, address: IpAddr) -> bool {
    match op {
        Op::Exists => true,
        Op::InNetworks(networks) => in_networks(networks, address),
        _ => false,
    }
}

/// Segment-aware prefix: `/cart` holds `/cart` and `/cart/…`, never `/cartoon`; `/` holds every path.
/// The prefix has no trailing slash (but for `/` itself).
#[must_use]
pub fn under(prefix: &[u8], value: &[u8]) -> bool {
    match value.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || prefix == b"/",
        None => false,
    }
}

fn in_networks(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

fn as_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::diagnostic::{Diagnostics, Source};
    use crate::engine::expr::ast::{ExprKind, Test};
    use crate::engine::expr::{Written, parse_request};

    fn test(text: &str) -> Test {
        let mut out = Diagnostics::default();
        let expr = parse_request(&Written::whole(&Source::new("t", text)), None, &mut out);
        match expr.unwrap_or_else(|| panic!("{}", out.render())).kind {
            ExprKind::Test(test) => test,
            other => panic!("{text} is one test, not {other:?}"),
        }
    }

    fn passes(text: &str, value: &str) -> bool {
        let test = test(text);
        test_text(&test.op, value.as_bytes()) != test.negated
    }

    #[test]
    fn each_operator_decides_as_the_contract_says() {
        for (text, yes, no) in [
            ("header.v == 1.2", "1.2", "v1.2"),
            ("header.v != 1.2", "v1.2", "1.2"),
            ("header.v in [a, 'b c']", "b c", "b"),
            ("header.v not in [a, b]", "c", "a"),
            ("header.v starts ab", "abc", "cab"),
            ("header.v ends bc", "abc", "bca"),
            ("header.v contains b", "abc", "ac"),
            ("header.v not contains b", "ac", "abc"),
            ("path under '/cart'", "/cart/x", "/cartoon"),
            ("path under '/cart/'", "/cart", "/car"),
            ("path under '/'", "/anything", ""),
            ("header.v < 1.25", "1.5", "1.30"),
            ("header.v >= v2", "2.0", "2.0-rc.1"),
            ("header.v > 1", "2", "two"),
            ("header.v ~ '1.2'", "v1.3", "2.0"),
            ("client.ip in [10.0.0.0/8, '::1']", "10.1.2.3", "11.0.0.1"),
            ("client.ip == 10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
        ] {
            assert!(passes(text, yes), "{text}: {yes}");
            assert!(!passes(text, no), "{text}: {no}");
        }
    }

    #[test]
    fn a_list_passes_by_membership_not_by_substring() {
        let san = test("tls.client.san contains web");
        assert!(test_list(&san.op, ["db", "web"].into_iter()));
        assert!(!test_list(&san.op, ["webs"].into_iter()));
        assert!(!test_list(&test("tls.client.san exists").op, std::iter::empty()));
    }
}
