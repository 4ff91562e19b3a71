//! `labels`, `propagate` and `lanes`: what a request carries, and what isolates by it.

use super::file::Names;
use super::read::Reader;
use super::ruleset::{LabelSource, Lanes, Propagate, RequestLabel};
use crate::engine::diagnostic::{Diagnostics, Spanned, nearest};
use crate::engine::expr::{self, Kind, Written};
use crate::engine::label::Text;
use crate::engine::yaml::{Node, Value};

/// `labels: {lane: [header.x-lane, cookie.lane, "base"]}`.
pub(super) fn labels(r: &mut Reader<'_>, node: &Node) -> Vec<RequestLabel> {
    let mut found = Vec::new();
    for (name, key, value) in r.pairs(node, "`labels`") {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            let problem = r.error("E008", key.span, format!("`{name}` cannot be the name of a request label"));
            r.push(problem.label("letters, digits, `_` and `-`"));
        }
        let items = r.items(value, "a request label");
        let mut sources = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Some(source) = label_source(r, item) else { continue };
            if matches!(source, LabelSource::Fixed(_)) && at + 1 < items.len() {
                let problem = r.error("E006", item.span, "a fixed value must come last");
                r.push(problem.label("what follows is never read"));
            }
            sources.push(source);
        }
        found.push(RequestLabel { name: Spanned::new(name.into(), key.span), sources });
    }
    found
}

/// A field; quoted text that is no member of a family (`header.…`) is a fixed value.
fn label_source(r: &mut Reader<'_>, node: &Node) -> Option<LabelSource> {
    let text = r.text(node, "a source of a request label")?;
    let plain = matches!(node.value, Value::Scalar { plain: true, .. });
    let named = ["header.", "cookie.", "query.", "client.ip", "tls."].iter().any(|family| text.starts_with(family));
    if !plain && !named {
        return Some(LabelSource::Fixed(text.into()));
    }
    if text.starts_with("label.") {
        let problem = r.error("E006", node.span, "a request label cannot be read from another one");
        r.push(problem);
        return None;
    }
    let written = Written::scalar(node, r.source)?;
    let mut own = Diagnostics::default();
    let field = expr::parse_field(&written, None, &mut own);
    for mut problem in own.0 {
        problem.help = Some(format!("a fixed value is quoted: \"{text}\""));
        r.push(problem);
    }
    let field = field?;
    if field.kind() == Kind::List {
        let problem = r.error("E022", node.span, format!("`{field}` is a list, and a request label is one text"));
        r.push(problem);
        return None;
    }
    Some(LabelSource::Field(field))
}

/// `propagate: {label: lane, header: x-lane, baggage: lane}`, or a list of these.
pub(super) fn propagate(r: &mut Reader<'_>, node: &Node, names: &Names) -> Vec<Propagate> {
    let mut found = Vec::new();
    for item in r.items(node, "`propagate`") {
        let Some(mut fields) = r.fields(item, "`propagate`") else { continue };
        let label = match fields.take("label") {
            Some(node) => declared(r, node, names),
            None => {
                r.missing(item.span, "`propagate`", "label");
                None
            }
        };
        let header = fields.take("header").map(|node| r.header_name(node));
        let baggage = fields.take("baggage").map(|node| member(r, node));
        if header.is_none() && baggage.is_none() {
            r.missing(item.span, "`propagate`", "header` or `baggage");
        }
        r.close(fields);
        if let Some(label) = label {
            found.push(Propagate { label, header: header.flatten(), baggage: baggage.flatten() });
        }
    }
    found
}

/// The key of a baggage member: a token of RFC 9110.
fn member(r: &mut Reader<'_>, node: &Node) -> Option<Text> {
    let text = r.text(node, "`baggage`")?;
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Some(text.into());
    }
    let problem = r.error("E008", node.span, format!("`{text}` cannot be the name of a baggage member"));
    r.push(problem);
    None
}

fn declared(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Text> {
    let text = r.text(node, "`label`")?;
    if names.labels.iter().any(|label| &**label == text) {
        return Some(text.into());
    }
    let mut problem = r.error("E019", node.span, format!("no request label is named `{text}`"));
    problem = match nearest(text, names.labels.iter().map(|label| &**label)) {
        Some(near) => problem.label(format!("did you mean `{near}`?")),
        None => problem.label("declare it under `labels`"),
    };
    r.push(problem);
    None
}

/// `lanes: {label: lane, base: [base]}`; `base` is `[base]` unless written.
pub(super) fn lanes(r: &mut Reader<'_>, node: &Node) -> Option<Lanes> {
    let mut fields = r.fields(node, "`lanes`")?;
    let label = match fields.take("label") {
        Some(node) => r.text(node, "`label`"),
        None => {
            r.missing(node.span, "`lanes`", "label");
            None
        }
    };
    let base = match fields.take("base") {
        Some(node) => {
            r.items(node, "`base`").iter().filter_map(|item| r.text(item, "a base lane")).map(Text::from).collect()
        }
        None => vec!["base".into()],
    };
    r.close(fields);
    Some(Lanes { label: label?.into(), base })
}
