//! YAML (and so JSON) as a tree with byte spans, so that every problem of a file is found in one run.
//! A syntax error ends its own file only.

mod places;

use std::sync::Arc;

pub use places::Places;
use saphyr_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Diagnostic, Diagnostics, Source, Span, nearest};

/// Containers within containers; deeper is refused, so that no input can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands; a block container ends where its last child ends.
    pub span: Span,
}

/// A YAML value. Scalars keep their source spelling (`1.10` stays "1.10").
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, and whether it was plain (unquoted), so that `null`, `true` and numbers can be told from text.
    Scalar {
        /// With quotes and escapes resolved.
        text: String,
        /// Neither quoted nor a block.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// Keys in written order; a repeated key has been reported and left out.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The word for messages: "a list", "a map", "text".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The scalar's text; `None` for containers and for null.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Plain `null`, `~` or nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The list's elements.
    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The map's pairs.
    #[must_use]
    pub fn map(&self) -> Option<&[(Self, Self)]> {
        match &self.value {
            Value::Map(pairs) => Some(pairs),
            _ => None,
        }
    }
}

/// Reads a map strictly: every key is taken once, what is left over is an error with the nearest known key.
pub struct Fields<'n> {
    pairs: &'n [(Node, Node)],
    known: Vec<&'static str>,
    what: &'static str,
    misplaced: (&'static [&'static str], &'static str),
    /// The whole map's place.
    pub span: Span,
}

impl<'n> Fields<'n> {
    /// A reader for a node that must be a map; reports (E002) and gives `None` when it is something else.
    pub fn of(node: &'n Node, what: &'static str, source: &Arc<Source>, out: &mut Diagnostics) -> Option<Self> {
        let Some(pairs) = node.map() else {
            out.push(Diagnostic::error(
                "E002",
                source,
                node.span,
                format!("{what} must be a map, not {}", node.kind()),
            ));
            return None;
        };
        Some(Self { pairs, known: Vec::new(), what, misplaced: (&[], ""), span: node.span })
    }

    /// The value of a key, if it is there. A key that is there with null counts as there.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        self.pairs.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, value)| value)
    }

    /// Names keys that people write here though they belong elsewhere, and where that is.
    pub fn misplaced(&mut self, keys: &'static [&'static str], elsewhere: &'static str) {
        self.misplaced = (keys, elsewhere);
    }

    /// Where a key itself stands.
    #[must_use]
    pub fn key_span(&self, key: &str) -> Option<Span> {
        self.pairs.iter().find(|(k, _)| k.text() == Some(key)).map(|(k, _)| k.span)
    }

    /// Reports (E001) every key that was not taken.
    pub fn finish(self, source: &Arc<Source>, out: &mut Diagnostics) {
        for (key, _) in self.pairs {
            let text = key.text().unwrap_or("");
            if self.known.contains(&text) {
                continue;
            }
            let mut error =
                Diagnostic::error("E001", source, key.span, format!("unknown key `{text}` in {}", self.what));
            if self.misplaced.0.contains(&text) {
                out.push(error.label(self.misplaced.1));
                continue;
            }
            error = match nearest(text, self.known.iter().copied()) {
                Some(near) => error.label(format!("did you mean `{near}`?")),
                None => error.help(format!("known keys: {}", self.known.join(", "))),
            };
            out.push(error);
        }
    }
}

/// Parses one document. Problems go to `out`; `None` when there is no tree at all.
/// An empty file is a null scalar. Aliases and anchors are refused (E003): expansion could not be bounded.
pub fn parse(source: &Arc<Source>, out: &mut Diagnostics) -> Option<Node> {
    let offsets = CharOffsets::of(&source.text);
    let mut events = Vec::new();
    for event in Parser::new_from_str(&source.text) {
        match event {
            Ok((event, span)) => {
                events.push((event, Span::new(offsets.byte(span.start.index()), offsets.byte(span.end.index()))));
            }
            Err(error) => {
                let at = offsets.byte(error.marker().index()).min(source.text.len());
                let mut problem =
                    Diagnostic::error("E000", source, Span::new(at, at), format!("not YAML: {}", error.info()));
                if error.info().contains("trailing content after") {
                    problem =
                        problem.help("a value that begins with a quote is quoted as a whole: '\"canary\" in tags'");
                }
                out.push(problem);
                return None;
            }
        }
    }
    let mut builder = Builder { events: events.into_iter().peekable(), source, out, depth: 0 };
    builder.document()
}

struct Builder<'s, 'o, I: Iterator<Item = (Event<'s>, Span)>> {
    events: std::iter::Peekable<I>,
    source: &'s Arc<Source>,
    out: &'o mut Diagnostics,
    depth: usize,
}

impl<'s, I: Iterator<Item = (Event<'s>, Span)>> Builder<'s, '_, I> {
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        while let Some((event, span)) = self.events.next() {
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                event if root.is_none() => root = Some(self.node(event, span)?),
                _ => {
                    self.error("E003", span, "a second document in one file; use a file each");
                    return root;
                }
            }
        }
        Some(root.unwrap_or(Node { value: Value::Scalar { text: String::new(), plain: true }, span: Span::default() }))
    }

    fn node(&mut self, event: Event<'s>, span: Span) -> Option<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.error("E003", span, "nested too deeply");
            return None;
        }
        let node = match event {
            Event::Scalar(text, style, anchor, _) => {
                if anchor != 0 {
                    self.error("E003", span, "anchors are not supported here; write the value out");
                }
                let plain = style == ScalarStyle::Plain;
                Node { value: Value::Scalar { text: text.into_owned(), plain }, span }
            }
            Event::SequenceStart(..) => self.list(span)?,
            Event::MappingStart(..) => self.map(span)?,
            Event::Alias(_) => {
                self.error("E003", span, "aliases are not supported here; write the value out");
                Node { value: Value::Scalar { text: String::new(), plain: true }, span }
            }
            _ => return None,
        };
        self.depth -= 1;
        Some(node)
    }

    fn list(&mut self, start: Span) -> Option<Node> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.events.next()?;
            if event == Event::SequenceEnd {
                let end = if span.end > span.start { span.end } else { items.last().map_or(start.end, |n| n.span.end) };
                return Some(Node { value: Value::List(items), span: Span::new(start.start, end) });
            }
            items.push(self.node(event, span)?);
        }
    }

    fn map(&mut self, start: Span) -> Option<Node> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        loop {
            let (event, span) = self.events.next()?;
            if event == Event::MappingEnd {
                let first = pairs.first().map_or(start.start, |(k, _)| k.span.start.min(start.start));
                let end =
                    if span.end > span.start { span.end } else { pairs.last().map_or(start.end, |(_, v)| v.span.end) };
                return Some(Node { value: Value::Map(pairs), span: Span::new(first, end) });
            }
            let key = self.node(event, span)?;
            let (event, span) = self.events.next()?;
            let value = self.node(event, span)?;
            match (&key.value, pairs.iter().find(|(k, _)| k.value == key.value)) {
                (Value::Scalar { text, .. }, Some((first, _))) => {
                    let repeated =
                        Diagnostic::error("E004", self.source, key.span, format!("the key `{text}` is repeated"))
                            .related(self.source, first.span, "first written");
                    self.out.push(repeated);
                }
                (Value::Scalar { .. }, None) => pairs.push((key, value)),
                _ => self.error("E003", key.span, "a key must be a scalar"),
            }
        }
    }

    fn error(&mut self, code: &'static str, span: Span, message: &str) {
        self.out.push(Diagnostic::error(code, self.source, span, message));
    }
}

/// The parser counts characters; spans count bytes.
enum CharOffsets {
    Ascii(usize),
    Wide(Vec<usize>),
}

impl CharOffsets {
    fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self::Ascii(text.len());
        }
        Self::Wide(text.char_indices().map(|(at, _)| at).chain([text.len()]).collect())
    }

    fn byte(&self, index: usize) -> usize {
        match self {
            Self::Ascii(len) => index.min(*len),
            Self::Wide(offsets) => offsets.get(index).or(offsets.last()).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Option<Node>, Diagnostics) {
        let mut out = Diagnostics::default();
        let node = parse(&Source::new("t.yaml", text), &mut out);
        (node, out)
    }

    #[test]
    fn spans_are_bytes_and_scalars_keep_their_spelling() {
        let text = "é: 1.10\nb: [\"x\", no]\n";
        let (node, out) = tree(text);
        assert!(out.0.is_empty(), "{}", out.render());
        let node = node.expect("a tree");
        let pairs = node.map().expect("a map");
        assert_eq!(pairs[0].1.text(), Some("1.10"));
        assert_eq!(&text[pairs[0].1.span.start..pairs[0].1.span.end], "1.10");
        let items = pairs[1].1.list().expect("a list");
        assert_eq!(&text[items[0].span.start..items[0].span.end], "\"x\"");
        assert_eq!(items[1].text(), Some("no"));
    }

    #[test]
    fn repeated_keys_aliases_and_depth_are_errors() {
        assert_eq!(tree("a: 1\na: 2\n").1.0[0].code, "E004");
        assert_eq!(tree("a: &x 1\nb: *x\n").1.0.len(), 2);
        assert_eq!(tree(&"[".repeat(100)).1.0.len(), 1);
        assert!(tree(&format!("{}{}", "[".repeat(100), "]".repeat(100))).0.is_none());
        assert_eq!(tree("a: [1\nb: 2").1.0[0].code, "E000");
    }
}
