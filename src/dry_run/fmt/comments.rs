//! The comments of a YAML text: what a `#` begins outside of every scalar.

use crate::engine::yaml::{Node, Value};

/// One comment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comment {
    /// From `#` to the end of the line, without blanks at the end.
    pub(super) text: String,
    /// Where it begins.
    pub(super) at: usize,
    /// Nothing but blanks stands before it on its line.
    pub(super) alone: bool,
    /// An empty line stands before it.
    pub(super) gap: bool,
}

/// All of them in order.
pub(super) fn read(text: &str, root: &Node) -> Vec<Comment> {
    let mut scalars = Vec::new();
    collect(text, root, &mut scalars);
    scalars.sort_unstable();
    let mut found = Vec::new();
    let mut scalars = scalars.into_iter().peekable();
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        while scalars.next_if(|(_, end)| *end <= at).is_some() {}
        if let Some((start, end)) = scalars.peek().copied()
            && start <= at
        {
            // The header of a block scalar may have a comment of its own; it stays with the scalar.
            at = end.max(at + 1);
            continue;
        }
        if bytes[at] != b'#' {
            at += 1;
            continue;
        }
        let end = text[at..].find('\n').map_or(text.len(), |line| at + line);
        let line = text[..at].rfind('\n').map_or(0, |line| line + 1);
        found.push(Comment {
            text: text[at..end].trim_end().to_owned(),
            at,
            alone: text[line..at].trim().is_empty(),
            gap: gap_before(text, line),
        });
        at = end;
    }
    found
}

/// Whether the line before the one that begins here is empty.
pub(super) fn gap_before(text: &str, line: usize) -> bool {
    let before = text[..line].strip_suffix('\n').unwrap_or("");
    let last = before.rfind('\n').map_or(before, |at| &before[at + 1..]);
    line > 0 && last.trim().is_empty() && !before.trim().is_empty()
}

/// Where a node is written: of a scalar with the header of a block, without the blanks and comments that follow.
pub(super) fn extent(text: &str, node: &Node) -> (usize, usize) {
    let (start, end) = (node.span.start, node.span.end.min(text.len()));
    let raw = text.get(start..end).unwrap_or("");
    let Value::Scalar { plain, .. } = node.value else { return (start, end) };
    match header(text, start).filter(|_| !plain) {
        Some(header) => (header, start + block_end(text, start, raw)),
        None => (start, start + raw.trim_end().len()),
    }
}

/// Where the `|` or `>` stands of a block scalar whose content begins here.
fn header(text: &str, start: usize) -> Option<usize> {
    let line = text[..start].rfind('\n')?;
    let above = text[..line].trim_end();
    let first = above.rfind('\n').map_or(0, |at| at + 1);
    let mark = above[first..].rfind(['|', '>'])?;
    let rest = above[first + mark + 1..].trim_start_matches(['-', '+', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let free = rest.is_empty() || (rest.starts_with(' ') && rest.trim_start().starts_with('#'));
    let before = above[first..first + mark].ends_with(' ');
    (text[line + 1..start].trim().is_empty() && free && before).then_some(first + mark)
}

/// The content's length: lines indented as the first one is, or further.
fn block_end(text: &str, start: usize, raw: &str) -> usize {
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let content = start - line;
    let mut upto = 0;
    for (at, line) in raw.split_inclusive('\n').enumerate() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if at > 0 && !line.trim().is_empty() && indent < content {
            break;
        }
        upto += line.len();
    }
    raw[..upto].trim_end().len()
}

fn collect(text: &str, node: &Node, out: &mut Vec<(usize, usize)>) {
    match &node.value {
        Value::Scalar { .. } => out.extend(Some(extent(text, node)).filter(|(start, end)| end > start)),
        Value::List(items) => items.iter().for_each(|item| collect(text, item, out)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            collect(text, key, out);
            collect(text, value, out);
        }),
    }
}
