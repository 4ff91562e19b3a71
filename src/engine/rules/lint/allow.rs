//! `# lint: allow W012 reason`, on the line of a finding or alone on the line above it.

use crate::engine::diagnostic::{Source, Span};

const MARK: &str = "lint: allow";

/// A comment that allows findings.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The line, from 1, whose findings are allowed.
    line: usize,
    /// The codes, with their places.
    pub(super) codes: Vec<(String, Span)>,
}

impl Allowance {
    /// Whether a code is allowed on a line.
    pub(super) fn covers(&self, code: &str, line: usize) -> bool {
        self.line == line && self.codes.iter().any(|(allowed, _)| allowed == code)
    }
}

/// All of them, in order.
pub(super) fn read(source: &Source) -> Vec<Allowance> {
    let mut found = Vec::new();
    let mut start = 0;
    let lines: Vec<&str> = source.text.split_inclusive('\n').collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some((hash, rest)) = comment(line) {
            let alone = line[..hash].trim().is_empty();
            let below =
                lines[at + 1..].iter().position(|next| !next.trim().is_empty() && !next.trim().starts_with('#'));
            let meant = if alone { at + 2 + below.unwrap_or(0) } else { at + 1 };
            found.push(Allowance { line: meant, codes: codes(rest, start + line.len() - rest.len()) });
        }
        start += line.len();
    }
    found
}

/// The comment's place in its line, and what stands behind the mark.
fn comment(line: &str) -> Option<(usize, &str)> {
    let at = line.find(MARK)?;
    let hash = line[..at].rfind('#')?;
    let free = line[..hash].chars().next_back().is_none_or(char::is_whitespace);
    (free && line[hash + 1..at].trim().is_empty()).then(|| (hash, &line[at + MARK.len()..]))
}

/// The codes at the start; the reason follows.
fn codes(rest: &str, start: usize) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    let mut at = 0;
    for word in rest.split([' ', ',', '\n', '\r', '\t']) {
        let code =
            word.len() >= 2 && word.starts_with(['W', 'E', 'w', 'e']) && word[1..].bytes().all(|b| b.is_ascii_digit());
        if code {
            found.push((word.to_owned(), Span::new(start + at, start + at + word.len())));
        } else if !word.is_empty() {
            break;
        }
        at += word.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_for_its_line_or_the_one_below() {
        let text = "a: 1 # lint: allow W001, W002 because\n# lint: allow W003\n\n# more\nb: 2\nc: '# lint: allowed'\n";
        let found = read(&Source { name: "t".into(), text: text.into() });
        assert!(found[0].covers("W001", 1) && found[0].covers("W002", 1) && !found[0].covers("W002", 2));
        assert!(found[1].covers("W003", 5) && !found[1].covers("W003", 2));
        let (code, span) = &found[1].codes[0];
        assert_eq!(&text[span.start..span.end], code);
    }
}
