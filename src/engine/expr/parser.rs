//! Tokens to a typed expression, by recursive descent along the grammar of RULES.md.
//!
//! A syntax error ends the expression; an unknown name or a value of the wrong type is reported and parsing goes on,
//! so that one run finds them all.

use super::ast::{Expr, ExprKind, Field, Test};
use super::lexer::{Lexeme, Token, tokens};
use super::{MAX_DEPTH, Written, error, fields, references};
use crate::engine::diagnostic::{Diagnostic, Diagnostics};
use crate::engine::label::Text;

/// Words with a meaning of their own; as values they must be quoted.
pub(super) const KEYWORDS: [&str; 10] =
    ["and", "or", "not", "in", "matches", "starts", "ends", "contains", "under", "exists"];

/// What the fields of an expression belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Instance,
    Request,
}

/// The whole expression; `None` when something was reported.
pub(super) fn parse(written: &Written<'_>, side: Side, labels: Option<&[Text]>, out: &mut Diagnostics) -> Option<Expr> {
    let mut parser = Parser::new(written, side, labels, out)?;
    if parser.peek() == &Token::End {
        parser.syntax("an expression is missing here", None);
        return None;
    }
    let expr = parser.or()?;
    if parser.peek() != &Token::End {
        parser.after_the_end();
        return None;
    }
    (!parser.failed).then_some(expr)
}

/// One field of the request and nothing else.
pub(super) fn field(written: &Written<'_>, labels: Option<&[Text]>, out: &mut Diagnostics) -> Option<Field> {
    let mut parser = Parser::new(written, Side::Request, labels, out)?;
    let field = parser.field()?;
    if parser.peek() != &Token::End {
        parser.syntax("only the name of a field may stand here", None);
        return None;
    }
    (!parser.failed).then_some(field)
}

pub(super) struct Parser<'t, 'o> {
    tokens: Vec<Lexeme<'t>>,
    at: usize,
    pub(super) written: &'t Written<'t>,
    pub(super) side: Side,
    labels: Option<&'o [Text]>,
    out: &'o mut Diagnostics,
    depth: usize,
    failed: bool,
}

impl<'t, 'o> Parser<'t, 'o> {
    fn new(written: &'t Written<'t>, side: Side, labels: Option<&'o [Text]>, out: &'o mut Diagnostics) -> Option<Self> {
        match tokens(written.text) {
            Ok(tokens) => Some(Self { tokens, at: 0, written, side, labels, out, depth: 0, failed: false }),
            Err(stray) => {
                let mut problem = error(written, "E020", (stray.start, stray.end), stray.message);
                problem.label = stray.label.map(str::to_owned);
                out.push(problem);
                None
            }
        }
    }

    fn or(&mut self) -> Option<Expr> {
        let start = self.start();
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Some(self.joined(start, parts, ExprKind::Or, |kind| match kind {
            ExprKind::Or(parts) => Ok(parts),
            other => Err(other),
        }))
    }

    fn and(&mut self) -> Option<Expr> {
        let start = self.start();
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Some(self.joined(start, parts, ExprKind::And, |kind| match kind {
            ExprKind::And(parts) => Ok(parts),
            other => Err(other),
        }))
    }

    /// Parts of the same kind that parentheses set apart are taken in: `(a and b) and c` is `a and b and c`.
    fn joined(
        &self,
        start: usize,
        mut parts: Vec<Expr>,
        make: impl Fn(Vec<Expr>) -> ExprKind,
        inner: impl Fn(ExprKind) -> Result<Vec<Expr>, ExprKind>,
    ) -> Expr {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match inner(part.kind) {
                Ok(parts) => flat.extend(parts),
                Err(kind) => flat.push(Expr { kind, ..part }),
            }
        }
        self.expr(start, make(flat))
    }

    fn not(&mut self) -> Option<Expr> {
        let start = self.start();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let at = (start, self.tokens[self.at].end);
            self.problem(error(self.written, "E029", at, "nested too deeply"));
            return None;
        }
        let expr = if self.take_word("not") {
            let inner = self.not()?;
            self.expr(start, ExprKind::Not(Box::new(inner)))
        } else if self.take(&Token::Open) {
            let inner = self.or()?;
            self.expect(&Token::Close, "`)`")?;
            Expr {
                span: self.written.span(start, self.end()),
                text: self.written.text[start..self.end()].into(),
                ..inner
            }
        } else {
            self.test()?
        };
        self.depth -= 1;
        Some(expr)
    }

    fn test(&mut self) -> Option<Expr> {
        let start = self.start();
        if self.peek() == &Token::Word("percent") && self.peek_at(1) == &Token::Open {
            let kind = self.percent()?;
            return Some(self.expr(start, kind));
        }
        if self.value_stands_first() {
            let test = self.value_in_field()?;
            return Some(self.expr(start, ExprKind::Test(test)));
        }
        let field = self.field()?;
        let (op, negated) = self.operation(&field, (start, self.end()))?;
        Some(self.expr(start, ExprKind::Test(Test { field, op, negated })))
    }

    /// `val ["not"] "in" field`, told from `field in [..]` by what follows `in`.
    fn value_stands_first(&self) -> bool {
        match self.peek() {
            Token::Text(_) => true,
            Token::Word(_) => {
                let at = if self.peek_at(1) == &Token::Word("not") { 2 } else { 1 };
                self.peek_at(at) == &Token::Word("in")
                    && matches!(self.peek_at(at + 1), Token::Word(_))
                    && self.peek_at(at + 2) != &Token::Open
            }
            _ => false,
        }
    }

    pub(super) fn field(&mut self) -> Option<Field> {
        let (start, Token::Word(name)) = (self.start(), self.peek().clone()) else {
            self.syntax("expected a field", None);
            return None;
        };
        if KEYWORDS.contains(&name) {
            self.syntax(&format!("expected a field, not the keyword `{name}`"), None);
            return None;
        }
        self.at += 1;
        let bracketed = self.peek() == &Token::OpenList;
        let found = if bracketed {
            self.at += 1;
            let Token::Text(member) = self.peek().clone() else {
                self.syntax("expected a quoted name in the brackets", None);
                return None;
            };
            self.at += 1;
            self.expect(&Token::CloseList, "`]`")?;
            match (self.side, name) {
                (Side::Instance, "labels") => Ok(Field::Label(member.as_ref().into())),
                (Side::Instance, _) => fields::instance(&format!("{name}.{member}")),
                (Side::Request, "header" | "cookie" | "query") => fields::member(name, &member),
                (Side::Request, _) => fields::request(&format!("{name}[]")),
            }
        } else if self.side == Side::Instance {
            fields::instance(name)
        } else {
            fields::request(name)
        };
        Some(self.known(found, (start, self.end())))
    }

    /// The field, or a stand-in for one that was reported.
    fn known(&mut self, found: Result<Field, fields::Unknown>, at: (usize, usize)) -> Field {
        match found {
            Ok(Field::RequestLabel(name)) => {
                if let Some((message, label)) = references::undeclared(&name, self.labels) {
                    self.problem(error(self.written, "E019", at, message).label(label));
                }
                Field::RequestLabel(name)
            }
            Ok(field) => field,
            Err(unknown) => {
                let mut problem = error(self.written, unknown.code, at, unknown.message);
                problem.label = unknown.label;
                self.problem(problem);
                Field::Method
            }
        }
    }

    fn expr(&self, start: usize, kind: ExprKind) -> Expr {
        let end = self.end();
        Expr { kind, span: self.written.span(start, end), text: self.written.text[start..end].into() }
    }

    pub(super) fn peek(&self) -> &Token<'t> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &Token<'t> {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + ahead).min(last)].token
    }

    pub(super) fn advance(&mut self) -> Token<'t> {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn take(&mut self, token: &Token<'_>) -> bool {
        let there = self.peek() == token;
        if there {
            self.at += 1;
        }
        there
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        self.take(&Token::Word(word))
    }

    pub(super) fn expect(&mut self, token: &Token<'_>, name: &str) -> Option<()> {
        if self.take(token) {
            return Some(());
        }
        self.syntax(&format!("expected {name}"), None);
        None
    }

    /// Where the next token begins.
    pub(super) fn start(&self) -> usize {
        self.tokens[self.at].start
    }

    /// Where the last taken token ended.
    pub(super) fn end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |last| self.tokens[last].end)
    }

    /// Reports a syntax error at the next token.
    pub(super) fn syntax(&mut self, message: &str, label: Option<&str>) {
        let next = &self.tokens[self.at];
        let found = match &next.token {
            Token::End => ", found the end".to_owned(),
            _ if message.contains("keyword") || label.is_some() => String::new(),
            _ => format!(", found `{}`", &self.written.text[next.start..next.end]),
        };
        let message = if message.starts_with("expected") { format!("{message}{found}") } else { message.to_owned() };
        let mut problem = error(self.written, "E020", (next.start, next.end), message);
        problem.label = label.map(str::to_owned);
        self.problem(problem);
    }

    /// Reports something that leaves the rest readable.
    pub(super) fn problem(&mut self, problem: Diagnostic) {
        self.failed = true;
        self.out.push(problem);
    }

    fn after_the_end(&mut self) {
        let label = match self.peek() {
            Token::Word(word) => KEYWORDS
                .into_iter()
                .find(|keyword| word.eq_ignore_ascii_case(keyword) && word != keyword)
                .map(|keyword| format!("keywords are lower case: `{keyword}`")),
            _ => None,
        };
        self.syntax("expected `and`, `or` or the end", label.as_deref());
    }
}
