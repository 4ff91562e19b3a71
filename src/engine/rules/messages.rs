//! `headers`, `rewrite`, `mirror`, `limit`: what changes messages or holds them back.

use http::{HeaderName, header};

use super::file::{Names, pool};
use super::policies::set;
use super::read::Reader;
use super::rule;
use super::ruleset::{HeaderEdit, HeaderEdits, Limit, MessagePolicies, Mirror, Rewrite};
use super::template::{Template, template};
use crate::engine::label::Text;
use crate::engine::policy::WHOLE;
use crate::engine::units;
use crate::engine::yaml::{Fields, Node};

/// The four of them, as written.
pub(super) fn messages(r: &mut Reader<'_>, fields: &mut Fields<'_>, names: &Names) -> MessagePolicies {
    MessagePolicies {
        headers: fields.take("headers").and_then(|node| headers(r, node, names)),
        rewrite: fields.take("rewrite").and_then(|node| rewrite(r, node)),
        mirror: fields.take("mirror").and_then(|node| mirror(r, node, names)),
        limit: fields.take("limit").and_then(|node| limit(r, node, names)),
    }
}

fn headers(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<HeaderEdits> {
    let mut fields = r.fields(node, "`headers`")?;
    let request = fields.take("request").and_then(|node| edit(r, node, names)).unwrap_or_default();
    let response = fields.take("response").and_then(|node| edit(r, node, names)).unwrap_or_default();
    r.close(fields);
    Some(HeaderEdits { request, response })
}

fn edit(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<HeaderEdit> {
    let mut fields = r.fields(node, "header edits")?;
    let set = fields.take("set").map_or_else(Vec::new, |node| header_pairs(r, node, "`set`", names));
    let add = fields.take("add").map_or_else(Vec::new, |node| header_pairs(r, node, "`add`", names));
    let remove = fields
        .take("remove")
        .map_or_else(Vec::new, |node| r.items(node, "`remove`").iter().filter_map(|item| editable(r, item)).collect());
    r.close(fields);
    Some(HeaderEdit { set, add, remove })
}

fn header_pairs(r: &mut Reader<'_>, node: &Node, what: &str, names: &Names) -> Vec<(HeaderName, Template)> {
    let mut found = Vec::new();
    for (_, key, value) in r.pairs(node, what) {
        let name = editable(r, key);
        for item in r.items(value, "a header's value") {
            if item.text().is_none() {
                r.push(r.error("E030", item.span, "this cannot be the value of a header"));
                continue;
            }
            if let (Some(value), Some(name)) = (template(r, item, names), &name) {
                found.push((name.clone(), value));
            }
        }
    }
    found
}

/// A header that rules may touch: not one that frames the message or belongs to the connection.
fn editable(r: &mut Reader<'_>, node: &Node) -> Option<HeaderName> {
    let name = r.header_name(node)?;
    let ours = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
    ];
    if ours.contains(&name) || matches!(name.as_str(), "keep-alive" | "proxy-connection") {
        r.push(r.error("E030", node.span, format!("`{name}` belongs to the connection and cannot be edited")));
        return None;
    }
    if name == header::HOST {
        let problem =
            r.error("E030", node.span, "`host` is not edited as a header").label("use `rewrite: {host: ...}`");
        r.push(problem);
        return None;
    }
    Some(name)
}

fn rewrite(r: &mut Reader<'_>, node: &Node) -> Option<Rewrite> {
    let mut fields = r.fields(node, "`rewrite`")?;
    let path = fields.take("path").and_then(|node| {
        let text = r.text(node, "`path`")?;
        if !text.starts_with('/') || text.contains(['?', '#']) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = r.error("E016", node.span, format!("`{text}` cannot replace a path"));
            r.push(problem.label("begins with `/`, has no query"));
            return None;
        }
        Some(Text::from(text))
    });
    let host = fields.take("host").and_then(|node| {
        let text = r.text(node, "`host`")?;
        if text.parse::<http::uri::Authority>().is_err() || text.contains('@') {
            r.push(r.error("E015", node.span, format!("`{text}` cannot be a Host")));
            return None;
        }
        Some(Text::from(text))
    });
    r.close(fields);
    Some(Rewrite { path, host })
}

fn mirror(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Mirror> {
    let mut fields = r.fields(node, "`mirror`")?;
    let to = match fields.take("to") {
        Some(node) => pool(r, node, names),
        None => {
            r.missing(node.span, "`mirror`", "to");
            None
        }
    };
    let share = fields.take("share").map_or(Some(WHOLE), |node| r.share(node));
    r.close(fields);
    Some(Mirror { to: to?, share: share? })
}

fn limit(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Limit> {
    let mut found = Limit::default();
    let mut fields = r.fields(node, "`limit`")?;
    set(&mut found.concurrency, fields.take("concurrency").and_then(|node| r.integer(node, 1..=10_000_000)));
    let rate = fields.take("rate").and_then(|node| match node.text().and_then(units::rate) {
        Some(rate) if rate > 0 => Some(rate),
        _ => {
            let problem = r.error("E007", node.span, "this must be a rate above 0");
            r.push(problem.label("such as `100/s`, `30/m` or `10/h`"));
            None
        }
    });
    set(&mut found.rate_milli, rate);
    set(&mut found.burst, fields.take("burst").and_then(|node| r.integer(node, 1..=1_000_000)));
    found.key = fields.take("key").and_then(|node| rule::key(r, node, names)).map(|key| key.value);
    if fields.key_span("rate").is_none() && fields.key_span("concurrency").is_some() {
        for key in ["burst", "key"] {
            if let Some(at) = fields.key_span(key) {
                let problem = r.error("E006", at, format!("`{key}` means nothing without `rate`"));
                r.push(problem.label("`concurrency` counts all requests together"));
            }
        }
    }
    if fields.key_span("concurrency").is_none() && fields.key_span("rate").is_none() {
        r.missing(node.span, "`limit`", "concurrency` or `rate");
    }
    r.close(fields);
    Some(found)
}
