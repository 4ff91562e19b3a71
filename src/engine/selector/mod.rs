//! Selectors: a pool's expression, compiled once per router and answered from a service's label index.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::expr::MAX_PATTERN;
use super::expr::ast::{Builtin, Expr, ExprKind, Field, Op, Operand};
use super::expr::eval;
use super::snapshot::{Bitset, ServiceSnapshot};

/// A compiled selector. Terms `field == label.NAME` ask only that the field is there: the table makes one variant of
/// the pool per value.
#[derive(Debug)]
pub struct Selector(Node);

#[derive(Debug)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test { field: Field, ask: Ask, negated: bool },
}

#[derive(Debug)]
enum Ask {
    Present,
    Equal(super::label::Text),
    Pattern(Box<Regex>),
    Other(Op),
}

impl Selector {
    /// Compiles an expression over an instance. The error is a sentence: what cannot be asked of an instance.
    pub fn compile(expr: &Expr) -> Result<Self, String> {
        compile(expr).map(Self)
    }

    /// Who of the service is selected.
    #[must_use]
    pub fn select(&self, service: &ServiceSnapshot) -> Bitset {
        self.0.select(service)
    }
}

impl Node {
    fn select(&self, service: &ServiceSnapshot) -> Bitset {
        match self {
            Self::Any(parts) => combine(parts, service, Bitset::none(service.endpoints.len()), Bitset::unite),
            Self::All(parts) => combine(parts, service, Bitset::all(service.endpoints.len()), Bitset::intersect),
            Self::Not(part) => {
                let mut set = part.select(service);
                set.invert();
                set
            }
            Self::Test { field, ask, negated } => {
                let mut set = ask.select(field, service);
                if *negated {
                    set.invert();
                }
                set
            }
        }
    }
}

impl Ask {
    fn select(&self, field: &Field, service: &ServiceSnapshot) -> Bitset {
        let (index, endpoints) = (&service.index, &service.endpoints);
        match self {
            Self::Present => index.present(field, endpoints),
            Self::Equal(text) => index.equal(field, endpoints, text),
            Self::Pattern(pattern) => index.having(field, endpoints, |value| pattern.is_match(value)),
            Self::Other(op) => index.having(field, endpoints, |value| eval::test_text(op, value.as_bytes())),
        }
    }
}

fn combine(parts: &[Node], service: &ServiceSnapshot, start: Bitset, join: impl Fn(&mut Bitset, &Bitset)) -> Bitset {
    parts.iter().fold(start, |mut set, part| {
        join(&mut set, &part.select(service));
        set
    })
}

fn compile(expr: &Expr) -> Result<Node, String> {
    let all = |parts: &[Expr]| parts.iter().map(compile).collect::<Result<Vec<_>, _>>();
    Ok(match &expr.kind {
        ExprKind::Or(parts) => Node::Any(all(parts)?),
        ExprKind::And(parts) => Node::All(all(parts)?),
        ExprKind::Not(part) => Node::Not(Box::new(compile(part)?)),
        ExprKind::Test(test) => {
            if !matches!(test.field, Field::Label(_) | Field::Builtin(_)) {
                return Err(format!("`{}` asks about the request, and a selector is about instances", expr.text));
            }
            Node::Test { field: test.field.clone(), ask: ask(&test.field, &test.op)?, negated: test.negated }
        }
        ExprKind::Percent { .. } => return Err(format!("`{}` is about the request, not about instances", expr.text)),
    })
}

fn ask(field: &Field, op: &Op) -> Result<Ask, String> {
    let list = *field == Field::Builtin(Builtin::Tags);
    Ok(match op {
        Op::Exists | Op::Equal(Operand::RequestLabel(_)) => Ask::Present,
        Op::Equal(Operand::Text(text)) => Ask::Equal(text.clone()),
        Op::Contains(member) if list => Ask::Equal(member.clone()),
        Op::Matches(pattern) => Ask::Pattern(Box::new(whole_value(pattern)?)),
        Op::InFile(name) => return Err(format!("`in file(\"{name}\")` is not available in a selector")),
        other => Ask::Other(other.clone()),
    })
}

/// A pattern that takes the whole value, its compiled size bounded.
fn whole_value(pattern: &str) -> Result<Regex, String> {
    Regex::builder()
        .syntax(syntax::Config::new())
        .configure(Regex::config().nfa_size_limit(Some(MAX_PATTERN)).hybrid_cache_capacity(MAX_PATTERN / 4))
        .build(&format!(r"\A(?:{pattern})\z"))
        .map_err(|error| format!("the pattern `{pattern}` cannot be used: {error}"))
}

#[cfg(test)]
mod tests;
