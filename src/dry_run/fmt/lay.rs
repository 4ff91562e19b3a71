//! Writing a tree down in the one layout.

use super::comments::{Comment, extent, gap_before};
use crate::engine::yaml::{Node, Value};

/// Columns of a line, where a container can be broken.
const WIDTH: usize = 100;

/// The text of a tree with its comments.
pub(super) fn lay_out(text: &str, root: &Node, comments: &[Comment]) -> String {
    let mut page = Page { text, comments, next: 0, lines: Vec::new() };
    page.block(root, 0);
    page.alone_before(usize::MAX, 0);
    page.finish()
}

/// A line and the comment behind it.
#[derive(Default)]
struct Line {
    text: String,
    comment: Option<String>,
    /// Part of a scalar: its lines stay as they are.
    raw: bool,
}

struct Page<'t> {
    text: &'t str,
    comments: &'t [Comment],
    next: usize,
    lines: Vec<Line>,
}

impl Page<'_> {
    /// A container's children, each on lines of its own.
    fn block(&mut self, node: &Node, indent: usize) {
        match &node.value {
            Value::Map(pairs) if !pairs.is_empty() => {
                for (key, value) in pairs {
                    self.before(key.span.start, indent);
                    let head = format!("{}{}:", pad(indent), self.slice(key).trim_end());
                    self.push(head);
                    self.behind(key.span.end);
                    self.value(value, indent, indent + 2);
                }
            }
            Value::List(items) if !items.is_empty() => {
                for item in items {
                    self.before(first_leaf(item), indent);
                    self.item(item, indent);
                }
            }
            _ => {
                self.before(node.span.start, indent);
                self.push(pad(indent));
                self.inline(node, indent);
            }
        }
    }

    /// `- ` and what follows: a map begins on the same line.
    fn item(&mut self, item: &Node, indent: usize) {
        self.push(format!("{}-", pad(indent)));
        let first = match &item.value {
            Value::Map(pairs) if !self.stays_flow(item, indent + 2) => pairs.first(),
            _ => None,
        };
        let (Some((key, value)), Value::Map(pairs)) = (first, &item.value) else {
            self.value(item, indent, indent + 2);
            return;
        };
        let head = format!(" {}:", self.slice(key).trim_end());
        self.append(&head);
        self.behind(key.span.end);
        self.value(value, indent + 2, indent + 4);
        for (key, value) in &pairs[1..] {
            self.before(key.span.start, indent + 2);
            self.push(format!("{}{}:", pad(indent + 2), self.slice(key).trim_end()));
            self.behind(key.span.end);
            self.value(value, indent + 2, indent + 4);
        }
    }

    /// A value behind `key:` or `-`.
    fn value(&mut self, node: &Node, own: usize, indent: usize) {
        let scalar = matches!(node.value, Value::Scalar { .. });
        if scalar || self.stays_flow(node, own) {
            self.inline(node, own);
            return;
        }
        self.block(node, indent);
    }

    /// Flow style and short enough, with no comment inside; an empty container has no other form.
    fn stays_flow(&self, node: &Node, indent: usize) -> bool {
        let empty = match &node.value {
            Value::List(items) => items.is_empty(),
            Value::Map(pairs) => pairs.is_empty(),
            Value::Scalar { .. } => return true,
        };
        let written = written_as_flow(self.text, node);
        // The parser's end of a container may lie behind the comment that follows it.
        let last = last_leaf(self.text, node);
        let open = |at: usize| !self.text[last.min(at)..at].contains([']', '}', '\n']);
        let inside = |at: usize| node.span.start < at && at < node.span.end && (at < last || open(at));
        let commented = self.comments[self.next.min(self.comments.len())..].iter().any(|comment| inside(comment.at));
        let used = self.lines.last().map_or(indent, |line| line.text.chars().count());
        let flow = self.flow(node);
        empty || (written && !commented && flow.is_some_and(|flow| used + 1 + flow.chars().count() <= WIDTH))
    }

    /// A flow container on one line; `None`: a scalar in it has several.
    fn flow(&self, node: &Node) -> Option<String> {
        let parts = |parts: Option<Vec<String>>| parts.map(|parts| parts.join(", "));
        match &node.value {
            Value::Scalar { .. } => {
                let text = self.slice(node).trim_end();
                (!text.contains('\n')).then(|| text.to_owned())
            }
            Value::List(items) => Some(format!("[{}]", parts(items.iter().map(|item| self.flow(item)).collect())?)),
            Value::Map(pairs) => {
                let pair = |(key, value): &(Node, Node)| {
                    let value = self.flow(value)?;
                    Some(format!("{}:{}{value}", self.flow(key)?, if value.is_empty() { "" } else { " " }))
                };
                Some(format!("{{{}}}", parts(pairs.iter().map(pair).collect())?))
            }
        }
    }

    /// Appends a scalar or a short flow container to the last line.
    fn inline(&mut self, node: &Node, own: usize) {
        let Some(flow) = self.flow(node) else {
            self.several_lines(node, own);
            return;
        };
        if !flow.is_empty() {
            let space = if self.lines.last().is_some_and(|line| line.text.trim().is_empty()) { "" } else { " " };
            self.append(&format!("{space}{flow}"));
        }
        self.behind(extent(self.text, node).1);
    }

    /// A scalar of several lines: the first behind its key, the others further in by as much as the first of them.
    fn several_lines(&mut self, node: &Node, own: usize) {
        let raw = self.slice(node).trim_end().to_owned();
        let mut lines = raw.lines();
        self.append(&format!(" {}", lines.next().unwrap_or("").trim_end()));
        let rest: Vec<&str> = lines.collect();
        let block = raw.starts_with(['|', '>']);
        let old =
            rest.iter().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len()).min();
        for line in rest {
            let blank = line.trim().is_empty();
            let kept = if block { line.get(old.unwrap_or(0)..).unwrap_or("") } else { line.trim_start() };
            let text = if blank { String::new() } else { format!("{}{kept}", pad(own + 2)) };
            self.lines.push(Line { text, comment: None, raw: true });
        }
        if !block {
            self.behind(extent(self.text, node).1);
        }
    }

    /// Comments and an empty line in front of something that begins here.
    fn before(&mut self, start: usize, indent: usize) {
        self.alone_before(start, indent);
        let line = self.text[..start.min(self.text.len())].rfind('\n').map_or(0, |at| at + 1);
        if gap_before(self.text, line) && self.text[line..start].trim_matches([' ', '-', '\t']).is_empty() {
            self.gap();
        }
    }

    /// Every comment up to here, on lines of their own.
    fn alone_before(&mut self, start: usize, indent: usize) {
        while let Some(comment) = self.comments.get(self.next).filter(|comment| comment.at < start) {
            self.next += 1;
            if comment.gap && comment.alone {
                self.gap();
            }
            // At the margin it was written beside nothing, and stays there.
            let margin = comment.alone && self.text[..comment.at].ends_with('\n');
            self.push(format!("{}{}", pad(if margin { 0 } else { indent }), comment.text));
        }
    }

    /// The comment on the line where something ends.
    fn behind(&mut self, end: usize) {
        let end = end.min(self.text.len());
        let stop = self.text[end..].find('\n').map_or(self.text.len(), |line| end + line);
        let Some(comment) = self.comments.get(self.next) else { return };
        let last = self.lines.last_mut().filter(|line| line.comment.is_none() && !line.raw);
        if let (false, true, Some(line)) = (comment.alone, comment.at < stop, last) {
            // Another value may stand between; then the comment is that one's.
            let between = self.text.get(end..comment.at).unwrap_or("");
            if between.trim_matches([' ', '\t', ',', ':', '[', ']', '{', '}']).is_empty() {
                line.comment = Some(comment.text.clone());
                self.next += 1;
            }
        }
    }

    fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.text.is_empty() || line.raw) {
            self.lines.push(Line::default());
        }
    }

    fn push(&mut self, text: String) {
        self.lines.push(Line { text, comment: None, raw: false });
    }

    fn append(&mut self, text: &str) {
        if let Some(line) = self.lines.last_mut() {
            line.text.push_str(text);
        }
    }

    fn slice(&self, node: &Node) -> &str {
        let (start, end) = extent(self.text, node);
        self.text.get(start..end).unwrap_or("")
    }

    /// The lines, with the comments behind neighbouring ones in one column.
    fn finish(self) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < self.lines.len() {
            let run = self.lines[at..].iter().take_while(|line| line.comment.is_some()).count();
            let wide = self.lines[at..at + run].iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
            for line in &self.lines[at..at + run.max(1)] {
                out.push_str(line.text.trim_end_matches(if line.raw { '\0' } else { ' ' }));
                if let Some(comment) = &line.comment {
                    out.push_str(&pad(wide + 2 - line.text.chars().count()));
                    out.push_str(comment);
                }
                out.push('\n');
            }
            at += run.max(1);
        }
        let end = out.trim_end_matches('\n').len();
        out.truncate(end);
        out.push('\n');
        out
    }
}

/// Whether a container that is not empty stands in brackets.
fn written_as_flow(text: &str, node: &Node) -> bool {
    let (open, child) = match &node.value {
        Value::List(items) => ('[', items.first().map(|item| item.span.start)),
        Value::Map(pairs) => ('{', pairs.first().map(|(key, _)| key.span.start)),
        Value::Scalar { .. } => return true,
    };
    let Some(child) = child else { return true };
    (child > node.span.start && text[node.span.start..].starts_with(open)) || text[..child].trim_end().ends_with(open)
}

/// Where the first thing in a node begins that is no dash.
fn first_leaf(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => items.first().map_or(node.span.start, |item| node.span.start.max(first_leaf(item))),
        Value::Map(pairs) => pairs.first().map_or(node.span.start, |(key, _)| key.span.start),
        Value::Scalar { .. } => node.span.start,
    }
}

/// Where the last scalar of a node ends.
fn last_leaf(text: &str, node: &Node) -> usize {
    match &node.value {
        Value::List(items) => items.last().map_or(node.span.start, |item| last_leaf(text, item)),
        Value::Map(pairs) => pairs.last().map_or(node.span.start, |(_, value)| last_leaf(text, value)),
        Value::Scalar { .. } => extent(text, node).1,
    }
}

fn pad(columns: usize) -> String {
    " ".repeat(columns)
}
