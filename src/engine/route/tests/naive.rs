//! The meaning of a condition, read straight off the expression: no slots, no index, no cache. Written apart from
//! `condition` and `reader`, so that both can be wrong only by being wrong in the same way twice.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::Request;
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op, Operand, Test, Version};
use crate::engine::rules::RuleFile;

/// The first rule that matches, trying all in order.
pub(super) fn first_match(file: &RuleFile, request: &Request) -> Option<usize> {
    file.rules.iter().position(|rule| rule.when.as_ref().is_none_or(|when| holds(when, &rule.salt, request)))
}

fn holds(expr: &Expr, salt: &str, request: &Request) -> bool {
    match &expr.kind {
        ExprKind::Or(parts) => parts.iter().any(|part| holds(part, salt, request)),
        ExprKind::And(parts) => !parts.iter().any(|part| !holds(part, salt, request)),
        ExprKind::Not(part) => !holds(part, salt, request),
        ExprKind::Test(test) => passes(test, request) ^ test.negated,
        ExprKind::Percent { fields, at_least, share } => {
            let mut keys = fields.iter().filter_map(|field| values(field, request).into_iter().next());
            let Some(key) = keys.find(|key| !key.is_empty()) else { return false };
            let hash = xxh3_64(&[salt.as_bytes(), &[0], &key].concat());
            let inside = (u128::from(hash) * 1_000_000) >> 64 < u128::from(*share);
            if *at_least { !inside } else { inside }
        }
    }
}

fn passes(test: &Test, request: &Request) -> bool {
    let list = test.field == Field::TlsClientSan;
    values(&test.field, request).iter().any(|value| {
        let text = String::from_utf8_lossy(value).into_owned();
        match &test.op {
            Op::Exists => true,
            Op::Equal(Operand::Text(with)) => text == **with,
            Op::In(any) => any.iter().any(|with| text == **with),
            Op::InNetworks(networks) => {
                text.parse::<IpAddr>().is_ok_and(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
            Op::Matches(pattern) => regex::bytes::Regex::new(&format!("^(?:{pattern})$"))
                .unwrap()
                .find_iter(value)
                .any(|found| found.len() == value.len()),
            Op::Starts(with) => text.starts_with(&**with),
            Op::Ends(with) => text.ends_with(&**with),
            Op::Contains(with) if list => text == **with,
            Op::Contains(with) => text.contains(&**with),
            Op::Under(with) => {
                let with = with.trim_end_matches('/');
                text == with || text.starts_with(&format!("{with}/"))
            }
            Op::Order(order, with) => Version::parse(&text).is_some_and(|found| order.admits(found.cmp(with))),
            Op::Requirement(_) | Op::InFile(_) | Op::Equal(Operand::RequestLabel(_)) => unreachable!("not generated"),
        }
    })
}

fn values(field: &Field, request: &Request) -> Vec<Vec<u8>> {
    let owned = |text: &str| vec![text.as_bytes().to_vec()];
    match field {
        Field::Method => owned(request.method.as_str()),
        Field::Scheme => owned("http"),
        Field::Host => owned(&request.host),
        Field::Path => owned(&request.path),
        Field::ClientIp => owned(&request.client.to_string()),
        Field::TlsClientSan => request.san.iter().map(|san| san.as_bytes().to_vec()).collect(),
        Field::Header(name) => {
            let all: Vec<&str> = request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            if all.is_empty() { Vec::new() } else { owned(&all.join(", ")) }
        }
        Field::Cookie(name) => {
            let cookies = request.headers.get_all("cookie").iter().map(|value| value.to_str().unwrap());
            let all: Vec<&str> = cookies.flat_map(|field| field.split("; ")).collect();
            all.iter().find_map(|pair| pair.strip_prefix(&format!("{name}="))).map_or(Vec::new(), owned)
        }
        Field::Query(name) => {
            let query = request.query.as_deref().unwrap_or("");
            query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map_or(Vec::new(), owned)
        }
        Field::TlsSni => Vec::new(),
        Field::Label(_) | Field::Builtin(_) | Field::RequestLabel(_) => unreachable!("not generated"),
    }
}
