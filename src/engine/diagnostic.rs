//! Diagnostics: what is wrong, where, and what to do about it. Collected, never thrown at the first one.

mod draw;
mod report;

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

/// A text that was read, with the name to show for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As the user wrote it (a path, or `-`).
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// A source from its name and text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into() })
    }

    /// 1-based line and column (in characters) of a byte offset.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let upto = self.text.get(..offset.min(self.text.len())).unwrap_or(&self.text);
        let line_start = upto.rfind('\n').map_or(0, |at| at + 1);
        (upto.bytes().filter(|b| *b == b'\n').count() + 1, upto[line_start..].chars().count() + 1)
    }
}

/// A half-open range of byte offsets in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// A span from its ends.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value with its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, and may be just as meant.
    Note,
    /// Works, but probably not as meant.
    Warning,
    /// Cannot be used.
    Error,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// What it says is so, whatever was meant.
    Proven,
    /// It looks so.
    Suspected,
}

/// A request that shows a finding; the engine has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// As sent.
    pub method: String,
    /// Scheme, host, path and query.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The peer, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// What becomes of it.
    pub outcome: String,
    /// The command that says so, for a shell.
    pub command: String,
}

/// One finding. Codes are stable: `E…` errors (docs/RULES.md lists them), `W…` warnings and notes (docs/LINT.md).
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable code such as `E012`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
    /// Where it is.
    pub source: Arc<Source>,
    /// The part that is wrong.
    pub span: Span,
    /// What stands under the carets, such as ``did you mean `gray`?``.
    pub label: Option<String>,
    /// Further places that belong to it, with a word each.
    pub related: Vec<(Arc<Source>, Span, String)>,
    /// What to do, where a label is too short for it.
    pub help: Option<String>,
    /// How sure it is; `None`: an error, which always is.
    pub certainty: Option<Certainty>,
    /// A request that shows it.
    pub witness: Option<Box<Witness>>,
}

impl Diagnostic {
    /// An error.
    pub fn error(code: &'static str, source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            source: Arc::clone(source),
            span,
            label: None,
            related: Vec::new(),
            help: None,
            certainty: None,
            witness: None,
        }
    }

    /// A warning.
    pub fn warning(code: &'static str, source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, source, span, message) }
    }

    /// Adds the words under the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, source: &Arc<Source>, span: Span, word: impl Into<String>) -> Self {
        self.related.push((Arc::clone(source), span, word.into()));
        self
    }

    /// One line for logs: place, code and message.
    #[must_use]
    pub fn one_line(&self) -> String {
        let (line, column) = self.source.position(self.span.start);
        let label = self.label.as_deref().map_or(String::new(), |l| format!(" ({l})"));
        format!("{}:{line}:{column}: {}: {}{label}", self.source.name, self.code, self.message)
    }
}

/// Findings of one run, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether an error is among them.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// How many of this severity there are.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|d| d.severity == severity).count()
    }
}

/// The candidate nearest to a word by edit distance, if it is near enough to be a slip.
#[must_use]
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit.max(2).min(word.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance (Damerau–Levenshtein without repeated edits).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_drawn_with_its_line_and_carets() {
        let source = Source::new("rules/web.yaml", "a: 1\n    to: [grey, stable]\n");
        let at = source.text.find("grey").expect("it is there");
        let error = Diagnostic::error("E012", &source, Span::new(at, at + 4), "no pool is named `grey`")
            .label("did you mean `gray`?");
        assert_eq!(
            error.render(),
            "error[E012]: no pool is named `grey`\n ┌─ rules/web.yaml:2:10\n2│     to: [grey, stable]\n │          ^^^^ did you mean `gray`?\n"
        );
    }

    #[test]
    fn the_nearest_name_is_a_slip_and_not_a_guess() {
        assert_eq!(nearest("grey", ["stable", "gray"]), Some("gray"));
        assert_eq!(nearest("hots", ["hosts", "paths"]), Some("hosts"));
        assert_eq!(nearest("zebra", ["stable", "gray"]), None);
    }
}
