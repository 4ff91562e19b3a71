//! A header's value with fields of the request in braces: `"{client.ip}"`, `"lane-{label.lane}"`; `{{` and `}}` are the
//! braces themselves.

use http::HeaderValue;

use super::file::Names;
use super::read::Reader;
use super::rule;
use crate::engine::diagnostic::Span;
use crate::engine::expr::ast::Field;
use crate::engine::label::Text;
use crate::engine::yaml::{Node, Value};

/// A value as written, taken apart. Without a field it is one text, or none when it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// In written order.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(Text),
    /// What the request has there; nothing when it has none.
    Field(Field),
}

impl Template {
    /// The value, if it is the same for every request.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The fields that are read.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field),
            Part::Text(_) => None,
        })
    }
}

/// Reads a header's value. Unknown fields and lone braces are errors where they stand.
pub(super) fn template(r: &mut Reader<'_>, node: &Node, names: &Names) -> Option<Template> {
    let text = node.text()?;
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            plain.push_str(&brace[..1]);
            rest = after;
            continue;
        }
        let Some((name, after)) = brace.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
            let problem = r.error("E030", node.span, "a brace that stands alone in a header's value");
            r.push(problem.label("`{client.ip}` is a field of the request; write `{{` and `}}` for braces"));
            return None;
        };
        let name_node =
            Node { value: Value::Scalar { text: name.to_owned(), plain: true }, span: inside(r, node.span, name) };
        let field = rule::key(r, &name_node, names)?.value;
        push_text(&mut parts, &mut plain);
        parts.push(Part::Field(field));
        rest = after;
    }
    plain.push_str(rest);
    push_text(&mut parts, &mut plain);
    let sound = |part: &Part| match part {
        Part::Text(text) => HeaderValue::from_str(text).is_ok(),
        Part::Field(_) => true,
    };
    if !parts.iter().all(sound) {
        r.push(r.error("E030", node.span, "this cannot be the value of a header"));
        return None;
    }
    Some(Template { parts })
}

fn push_text(parts: &mut Vec<Part>, plain: &mut String) {
    if !plain.is_empty() {
        parts.push(Part::Text(std::mem::take(plain).into()));
    }
}

/// Where a field's name stands; the whole value where the scalar's style hides it.
fn inside(r: &Reader<'_>, span: Span, name: &str) -> Span {
    let raw = r.source.text.get(span.start..span.end).unwrap_or("");
    let at = raw.find(&format!("{{{name}}}")).map(|at| at + 1);
    at.map_or(span, |at| Span::new(span.start + at, span.start + at + name.len()))
}
