//! Typed reading of single values, each problem reported where it stands.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::engine::diagnostic::{Diagnostic, Diagnostics, Source, Span, Spanned, nearest};
use crate::engine::label::Text;
use crate::engine::units;
use crate::engine::yaml::{Fields, Node, Value};

/// Reads values of one file.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) out: &'a mut Diagnostics,
}

impl<'n> Reader<'_> {
    pub(super) fn error(&self, code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.source, span, message)
    }

    pub(super) fn push(&mut self, found: Diagnostic) {
        self.out.push(found);
    }

    /// A map with known keys. The caller takes them and calls [`Reader::close`].
    pub(super) fn fields(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n>> {
        Fields::of(node, what, self.source, self.out)
    }

    /// Reports the keys that nobody took.
    pub(super) fn close(&mut self, fields: Fields<'n>) {
        fields.finish(self.source, self.out);
    }

    /// Reports that a required key is missing (E005).
    pub(super) fn missing(&mut self, span: Span, what: &str, key: &str) {
        let first = Span::new(span.start, self.line_end(span));
        self.push(self.error("E005", first, format!("{what} needs `{key}`")));
    }

    /// A scalar that is not null and not empty.
    pub(super) fn text(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match node.text() {
            Some(text) if !text.is_empty() => Some(text),
            Some(_) => {
                self.push(self.error("E006", node.span, format!("{what} must not be empty")));
                None
            }
            None => {
                let message = format!("{what} must be text, not {}", node.kind());
                self.push(self.error("E002", node.span, message));
                None
            }
        }
    }

    /// A scalar as shared text with its place.
    pub(super) fn spanned(&mut self, node: &'n Node, what: &str) -> Option<Spanned<Text>> {
        Some(Spanned::new(self.text(node, what)?.into(), node.span))
    }

    /// A name that metrics, headers and logs can carry: no control character, no blank at an end, at most 128 bytes.
    pub(super) fn name(&mut self, node: &'n Node, what: &str) -> Option<Spanned<Text>> {
        let name = self.spanned(node, what)?;
        let text = &*name.value;
        if text.len() > 128 || text.trim() != text || text.chars().any(char::is_control) {
            let message = format!("{what} must have at most 128 bytes, no control character and no blank at its ends");
            self.push(self.error("E008", node.span, message));
        }
        Some(name)
    }

    /// A list that is not empty; a single scalar or map stands for a list of one.
    pub(super) fn items(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.push(self.error("E006", node.span, format!("{what} must not be an empty list")));
                &[]
            }
            Value::List(items) => items,
            _ if node.is_null() => {
                self.push(self.error("E002", node.span, format!("{what} must be a list, not nothing")));
                &[]
            }
            _ => std::slice::from_ref(node),
        }
    }

    /// The pairs of a map whose keys are the user's, as (key, key node, value).
    pub(super) fn pairs(&mut self, node: &'n Node, what: &str) -> Vec<(&'n str, &'n Node, &'n Node)> {
        let Some(pairs) = node.map() else {
            self.push(self.error("E002", node.span, format!("{what} must be a map, not {}", node.kind())));
            return Vec::new();
        };
        let mut found = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            if let Some(text) = self.text(key, "a key") {
                found.push((text, key, value));
            }
        }
        found
    }

    /// Plain `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => self.malformed(node, "`true` or `false`"),
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let number = node.text().and_then(|text| units::decimal(text, 0)).and_then(|n| u32::try_from(n).ok());
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.malformed(node, &format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// A status code in a range.
    pub(super) fn status(&mut self, node: &Node, range: RangeInclusive<u16>) -> Option<u16> {
        let found = self.integer(node, u32::from(*range.start())..=u32::from(*range.end()))?;
        u16::try_from(found).ok()
    }

    /// A decimal in thousandths.
    pub(super) fn thousandths(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let number = node.text().and_then(|text| units::decimal(text, 3)).and_then(|n| u32::try_from(n).ok());
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let (low, high) = (f64::from(*range.start()) / 1e3, f64::from(*range.end()) / 1e3);
                self.malformed(node, &format!("a number from {low} to {high} with at most three decimals"))
            }
        }
    }

    /// Milliseconds, with the unit written.
    pub(super) fn duration(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        match node.text().and_then(units::duration) {
            Some(ms) if range.contains(&ms) => Some(ms),
            Some(_) => {
                let message = format!("this must be from {} to {}", in_words(*range.start()), in_words(*range.end()));
                self.push(self.error("E006", node.span, message));
                None
            }
            None => self.unitless(node, "a duration", "such as `250ms`, `30s` or `5m`"),
        }
    }

    /// Parts per million, with the percent sign written.
    pub(super) fn share(&mut self, node: &Node) -> Option<u32> {
        match node.text().and_then(units::share) {
            Some(ppm) => Some(ppm),
            None => self.unitless(node, "a share from 0% to 100%", "such as `5%`"),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, known: &[(&'static str, T)]) -> Option<T> {
        let text = node.text().unwrap_or("");
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words = || known.iter().map(|(word, _)| *word);
        let listed = words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let mut problem = self.error("E006", node.span, format!("this must be one of {listed}"));
        if let Some(near) = nearest(text, words()) {
            problem = problem.label(format!("did you mean `{near}`?"));
        }
        self.push(problem);
        None
    }

    /// A header's name, lower case.
    pub(super) fn header_name(&mut self, node: &'n Node) -> Option<HeaderName> {
        let text = self.text(node, "a header's name")?;
        let name = HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()).ok();
        if name.is_none() {
            self.push(self.error("E030", node.span, format!("`{text}` cannot be the name of a header")));
        }
        name
    }

    /// A header's value; may be empty.
    pub(super) fn header_value(&mut self, node: &Node) -> Option<HeaderValue> {
        let value = node.text().and_then(|text| HeaderValue::from_str(text).ok());
        if value.is_none() {
            self.push(self.error("E030", node.span, "this cannot be the value of a header"));
        }
        value
    }

    /// CIDR blocks or addresses.
    pub(super) fn networks(&mut self, node: &'n Node, what: &str) -> Vec<IpNet> {
        if node.list().is_some_and(<[Node]>::is_empty) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for item in self.items(node, what) {
            match item.text().and_then(units::network) {
                Some(network) => found.push(network),
                None => {
                    let message = format!("`{}` is not an address or a CIDR block", item.text().unwrap_or(""));
                    self.push(self.error("E027", item.span, message));
                }
            }
        }
        found
    }

    /// Reports (E006) what should stand here; always `None`.
    pub(super) fn malformed<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        self.push(self.error("E006", node.span, format!("this must be {expected}")));
        None
    }

    fn unitless<T>(&mut self, node: &Node, what: &str, such: &str) -> Option<T> {
        let bare = node.text().is_some_and(|text| units::decimal(text, 9).is_some());
        let label = if bare { format!("its unit is missing; {such}") } else { such.to_owned() };
        self.push(self.error("E007", node.span, format!("this must be {what}")).label(label));
        None
    }

    fn line_end(&self, span: Span) -> usize {
        let rest = self.source.text.get(span.start..span.end).unwrap_or("");
        span.start + rest.find('\n').unwrap_or(rest.len())
    }
}

fn in_words(ms: u64) -> String {
    for (unit, word) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{word}", ms / unit);
        }
    }
    format!("{ms}ms")
}
