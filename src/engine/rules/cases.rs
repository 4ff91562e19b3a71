//! `tests`: requests written beside the rules, and what must become of them.

use std::net::IpAddr;

use http::Method;

use super::file::{Names, pool};
use super::read::Reader;
use super::ruleset::{Expect, TestCase};
use crate::engine::diagnostic::{Spanned, nearest};
use crate::engine::label::Text;
use crate::engine::yaml::Node;

/// The pool of `else: any`, which no file declares.
const ANY: &str = "any";

/// All cases in written order. `rules` are the names that an expectation may use.
pub(super) fn cases(r: &mut Reader<'_>, node: &Node, rules: &[Text], names: &Names) -> Vec<TestCase> {
    let Some(items) = node.list() else {
        r.push(r.error("E002", node.span, format!("`tests` must be a list, not {}", node.kind())));
        return Vec::new();
    };
    items.iter().filter_map(|item| case(r, item, rules, names)).collect()
}

fn case(r: &mut Reader<'_>, node: &Node, rules: &[Text], names: &Names) -> Option<TestCase> {
    let mut fields = r.fields(node, "a test")?;
    let line = match fields.take("request") {
        Some(node) => request_line(r, node),
        None => {
            r.missing(node.span, "a test", "request");
            None
        }
    };
    let mut headers = Vec::new();
    if let Some(node) = fields.take("headers") {
        for (_, key, value) in r.pairs(node, "`headers`") {
            let name = r.header_name(key);
            for item in r.items(value, "a header's value") {
                let value = r.header_value(item);
                if let (Some(name), Some(value)) = (&name, value) {
                    headers.push((name.clone(), value));
                }
            }
        }
    }
    let client: Option<IpAddr> = fields.take("client").and_then(|node| match node.text().map(str::parse) {
        Some(Ok(address)) => Some(address),
        _ => r.malformed(node, "an IP address"),
    });
    let down = fields.take("down").map_or_else(Vec::new, |node| {
        let mut known = |node| pool(r, node, names);
        node.list().unwrap_or(std::slice::from_ref(node)).iter().filter_map(&mut known).collect()
    });
    let expect = match fields.take("expect") {
        Some(node) => expect(r, node, rules, names),
        None => {
            r.missing(node.span, "a test", "expect");
            None
        }
    };
    r.close(fields);
    let (method, scheme, host, target) = line?;
    Some(TestCase { span: node.span, method, scheme, host, target, headers, client, down, expect: expect? })
}

/// `GET /cart?x=1` or `GET https://shop.example.com/cart`.
fn request_line(r: &mut Reader<'_>, node: &Node) -> Option<(Method, Text, Option<Text>, Text)> {
    let text = r.text(node, "`request`")?;
    let parsed = text.split_once(' ').and_then(|(method, target)| {
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let uri: http::Uri = target.trim_start().parse().ok()?;
        let target = uri.path_and_query()?.as_str();
        let absolute = match (uri.scheme_str(), uri.host()) {
            (Some(scheme @ ("http" | "https")), Some(host)) => Some((scheme, host)),
            (None, None) if target.starts_with('/') => None,
            _ => return None,
        };
        let (scheme, host) = absolute.unzip();
        let host = host.map(|host| Text::from(host.trim_end_matches('.').to_ascii_lowercase()));
        Some((method, scheme.unwrap_or("http").into(), host, target.into()))
    });
    if parsed.is_none() {
        let problem = r.error("E031", node.span, format!("`{text}` is not a request"));
        r.push(problem.label("such as `GET /cart` or `GET https://shop.example.com/cart`"));
    }
    parsed
}

fn expect(r: &mut Reader<'_>, node: &Node, rules: &[Text], names: &Names) -> Option<Expect> {
    let mut fields = r.fields(node, "`expect`")?;
    let rule = fields.take("rule").and_then(|node| {
        let name = r.spanned(node, "a rule's name")?;
        if !rules.contains(&name.value) {
            let mut problem = r.error("E031", node.span, format!("no rule is named `{}`", name.value));
            if let Some(near) = nearest(&name.value, rules.iter().map(|rule| &**rule)) {
                problem = problem.label(format!("did you mean `{near}`?"));
            }
            r.push(problem);
        }
        Some(name)
    });
    let to = fields.take("pool").and_then(|node| pool_or_any(r, node, names));
    let mut share = Vec::new();
    if let Some(node) = fields.take("share") {
        for (_, key, value) in r.pairs(node, "`share`") {
            if let (Some(pool), Some(ppm)) = (pool_or_any(r, key, names), r.share(value)) {
                share.push((pool, ppm));
            }
        }
    }
    let status = fields.take("status").and_then(|node| r.status(node, 200..=599));
    let mut labels = Vec::new();
    if let Some(node) = fields.take("labels") {
        for (key, _, value) in r.pairs(node, "`labels`") {
            if let Some(value) = r.spanned(value, "a label's value") {
                labels.push((key.into(), value));
            }
        }
    }
    if ["rule", "pool", "share", "status", "labels"].iter().all(|key| fields.key_span(key).is_none()) {
        r.missing(node.span, "`expect`", "rule`, `pool`, `share`, `status` or `labels");
    }
    r.close(fields);
    Some(Expect { rule, pool: to, share, status, labels })
}

fn pool_or_any(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Spanned<Text>> {
    if node.text() == Some(ANY) {
        return Some(Spanned::new(ANY.into(), node.span));
    }
    pool(r, node, names)
}
