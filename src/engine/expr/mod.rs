//! The expression language of RULES.md: one grammar for pools (over an instance) and conditions (over a request).
//!
//! Text is parsed and typed in one go: what comes out needs no further check, and errors point into the file.

pub mod ast;
pub mod eval;
mod fields;
mod lexer;
mod operand;
mod parser;
mod references;
#[cfg(test)]
mod tests;
pub mod version;
mod walk;

use std::sync::Arc;

use ast::{Expr, Field};
pub use fields::Kind;
use regex_automata::util::syntax;

use super::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use super::label::Text;
use super::yaml::{Node, Places};

/// Nested parentheses and `not`s; deeper is refused, so that no input can exhaust the stack.
pub const MAX_DEPTH: usize = 64;

/// The compiled size of one pattern, in bytes, above which it is refused.
pub const MAX_PATTERN: usize = 1 << 20;

/// An expression's text and where each of its bytes stands in a file.
pub struct Written<'s> {
    text: &'s str,
    source: &'s Arc<Source>,
    places: Places,
}

impl<'s> Written<'s> {
    /// A scalar of a rule file; `None` when the node is no scalar, or is null.
    #[must_use]
    pub fn scalar(node: &'s Node, source: &'s Arc<Source>) -> Option<Self> {
        Some(Self { text: node.text()?, source, places: Places::of(node, source) })
    }

    /// A source that is nothing but the expression, such as an argument.
    #[must_use]
    pub fn whole(source: &'s Arc<Source>) -> Self {
        Self { text: &source.text, source, places: Places::straight(0) }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        self.places.span(start, end)
    }
}

/// Parses a selector: a condition on an instance. `labels` are the request labels that the file declares
/// (`None`: not known here, any name is taken). Problems go to `out`, and then there is no expression.
#[must_use]
pub fn parse_instance(written: &Written<'_>, labels: Option<&[Text]>, out: &mut Diagnostics) -> Option<Expr> {
    let expr = parser::parse(written, parser::Side::Instance, labels, out)?;
    references::check(&expr, written.source, labels, out).then_some(expr)
}

/// Parses a condition on a request. Otherwise as [`parse_instance`].
#[must_use]
pub fn parse_request(written: &Written<'_>, labels: Option<&[Text]>, out: &mut Diagnostics) -> Option<Expr> {
    parser::parse(written, parser::Side::Request, labels, out)
}

/// Parses one field of the request, as `key` and `labels` name them. Otherwise as [`parse_instance`].
#[must_use]
pub fn parse_field(written: &Written<'_>, labels: Option<&[Text]>, out: &mut Diagnostics) -> Option<Field> {
    parser::field(written, labels, out)
}

/// The pattern to compile for `matches`: the whole value, from its first byte to its last. The error is a sentence.
/// Compiles it to know its size, so it is for what has just been read; [`anchored`] is for what was found sound.
pub fn pattern(text: &str) -> Result<String, String> {
    let last = |text: String| {
        let last = text.lines().last().unwrap_or("not a pattern");
        last.trim_start_matches("error: ").to_owned()
    };
    // By itself: `a)|(b` must not become sound by what is put around it.
    let config = syntax::Config::new().utf8(false).nest_limit(64);
    syntax::parse_with(text, &config).map_err(|error| last(error.to_string()))?;
    let anchored = anchored(text);
    match regex::bytes::RegexBuilder::new(&anchored).size_limit(MAX_PATTERN).nest_limit(64).build() {
        Ok(_) => Ok(anchored),
        Err(regex::Error::CompiledTooBig(limit)) => {
            Err(format!("the pattern needs more than {} KiB when compiled", limit / 1024))
        }
        Err(other) => Err(last(other.to_string())),
    }
}

/// What [`pattern`] gives for a pattern that is known to be sound.
#[must_use]
pub fn anchored(text: &str) -> String {
    format!(r"\A(?:{text})\z")
}

/// An error at a part of the written text.
fn error(written: &Written<'_>, code: &'static str, at: (usize, usize), message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(code, written.source, written.span(at.0, at.1), message)
}
