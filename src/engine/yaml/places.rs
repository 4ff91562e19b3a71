//! From an offset inside a scalar's resolved text to its place in the file: for plain, quoted and block scalars,
//! with escapes, doubled quotes, folded lines and indentation.

use std::sync::Arc;

use super::{Node, Value};
use crate::engine::diagnostic::{Source, Span};

/// Where each byte of a scalar's text was written.
pub struct Places(Form);

enum Form {
    /// The text stands in the file as it is, from this byte on.
    Straight(usize),
    /// First and last-plus-one byte in the file of each byte of the text; then the end.
    Mapped { places: Vec<(usize, usize)>, end: usize },
}

impl Places {
    /// The places of a scalar node.
    #[must_use]
    pub fn of(node: &Node, source: &Arc<Source>) -> Self {
        let Value::Scalar { text, .. } = &node.value else { return Self::straight(node.span.start) };
        let raw = source.text.get(node.span.start..node.span.end).unwrap_or("");
        let style = match raw.as_bytes().first() {
            Some(b'"') => Style::Double,
            Some(b'\'') => Style::Single,
            Some(b'|' | b'>') if !raw.starts_with(text.as_str()) => Style::Block,
            _ => Style::Plain,
        };
        if style == Style::Plain && raw.starts_with(text.as_str()) {
            return Self::straight(node.span.start);
        }
        Self(Form::Mapped { places: align(raw, text, style, node.span.start), end: node.span.end })
    }

    /// A text that stands in its file as it is, from byte `start` on.
    #[must_use]
    pub fn straight(start: usize) -> Self {
        Self(Form::Straight(start))
    }

    /// The file's bytes for a range of the text. An empty range is an empty span before the byte that follows.
    #[must_use]
    pub fn span(&self, start: usize, end: usize) -> Span {
        match &self.0 {
            Form::Straight(base) => Span::new(base + start, base + end),
            Form::Mapped { places, end: last } => {
                let first = places.get(start).map_or(*last, |place| place.0);
                let until = if end > start { places.get(end - 1).map_or(*last, |place| place.1) } else { first };
                Span::new(first, until.max(first))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Block,
}

/// Walks the written and the resolved text side by side. Whitespace is matched loosely (folding and indentation
/// change it), everything else strictly, so a visible character is always found where it stands.
fn align(raw: &str, text: &str, style: Style, base: usize) -> Vec<(usize, usize)> {
    let mut at = match style {
        Style::Plain => 0,
        Style::Single | Style::Double => 1,
        Style::Block => raw.find('\n').map_or(raw.len(), |end| end + 1),
    };
    let mut places = Vec::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_whitespace() {
            at = skip_blank(raw, at, style);
        }
        let len = unit(raw, at, style, c);
        for _ in 0..c.len_utf8() {
            places.push((base + at, base + at + len));
        }
        at += len;
    }
    places
}

/// How many written bytes stand for `c` at `at`; 0 for whitespace that folding made up.
fn unit(raw: &str, at: usize, style: Style, c: char) -> usize {
    let rest = raw.get(at..).unwrap_or("");
    if style == Style::Double && rest.starts_with('\\') && line_break_after(rest, 1).is_none() {
        return match rest.as_bytes().get(1) {
            Some(b'x') => 4,
            Some(b'u') => 6,
            Some(b'U') => 10,
            Some(_) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            None => 1,
        }
        .min(rest.len());
    }
    if style == Style::Single && c == '\'' && rest.starts_with("''") {
        return 2;
    }
    match rest.chars().next() {
        Some(found) if found == c => c.len_utf8(),
        Some(found) if !c.is_whitespace() => found.len_utf8(),
        _ => 0,
    }
}

fn skip_blank(raw: &str, mut at: usize, style: Style) -> usize {
    loop {
        let rest = raw.get(at..).unwrap_or("");
        if let Some(end) =
            (style == Style::Double && rest.starts_with('\\')).then(|| line_break_after(rest, 1)).flatten()
        {
            at += end;
            continue;
        }
        match rest.chars().next() {
            Some(c) if c.is_whitespace() => at += c.len_utf8(),
            _ => return at,
        }
    }
}

fn line_break_after(text: &str, at: usize) -> Option<usize> {
    match text.as_bytes().get(at) {
        Some(b'\n') => Some(at + 1),
        Some(b'\r') if text.as_bytes().get(at + 1) == Some(&b'\n') => Some(at + 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::diagnostic::Diagnostics;

    /// Checks that `word` of the resolved text is found at its first place in the file.
    fn check(yaml: &str, word: &str, written: &str) {
        let source = Source::new("t", yaml);
        let mut out = Diagnostics::default();
        let node = super::super::parse(&source, &mut out).unwrap_or_else(|| panic!("{}", out.render()));
        let scalar = &node.map().unwrap()[0].1;
        let text = scalar.text().unwrap();
        let at = text.find(word).unwrap_or_else(|| panic!("{word:?} in {text:?}"));
        let span = Places::of(scalar, &source).span(at, at + word.len());
        assert_eq!(&yaml[span.start..span.end], written, "{yaml:?}");
        assert_eq!(span.start, yaml.find(written).unwrap(), "{yaml:?}");
    }

    #[test]
    fn offsets_map_through_every_style_of_scalar() {
        check("a: one == two  # no\n", "two", "two");
        check("a: one\n   == two\n", "two", "two");
        check("é: \"é \\\"x\\\" bad\"\n", "bad", "bad");
        check("a: \"\\u00e9 \\x41 \\U0001F600 bad\"\n", "bad", "bad");
        check("a: \"one \\\n     two\n\n     bad\"\n", "bad", "bad");
        check("a: 'it''s bad'\n", "bad", "bad");
        check("a: 'it''s bad'\n", "'", "''");
        check("a: |\n  one\n  two bad\nb: 1\n", "bad", "bad");
        check("a: >-\n    one\n    two\n\n    bad\nb: 1\n", "bad", "bad");
        check("a: |2\n     one\n  bad\n", "bad", "bad");
    }

    /// Every scalar's places, in a tree.
    fn visit(node: &Node, source: &Arc<Source>) {
        match &node.value {
            Value::Scalar { text, .. } => {
                let places = Places::of(node, source);
                for (at, c) in text.char_indices() {
                    let span = places.span(at, at + c.len_utf8());
                    assert!(span.start <= span.end && span.end <= source.text.len(), "{:?}: {span:?}", source.text);
                    assert!(source.text.get(span.start..span.end).is_some(), "{:?}: {span:?}", source.text);
                }
            }
            Value::List(items) => items.iter().for_each(|item| visit(item, source)),
            Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                visit(key, source);
                visit(value, source);
            }),
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_yaml_panic_and_every_place_is_in_the_file(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "a", "é", "\u{1F600}", ": ", "- ", "\n", "\r\n", "  ", "\"", "'", "''", "\\", "\\n", "\\x41", "\\u00e9",
                "|", ">", "|-\n", ">2\n", "[", "]", "{", "}", ",", "#", " #", "&x", "*x", "!t", "?", "---\n", "\t", "~",
            ]), 0..30)
        ) {
            let source = Source::new("t", parts.concat());
            if let Some(node) = super::super::parse(&source, &mut Diagnostics::default()) {
                visit(&node, &source);
            }
        }
    }
}
