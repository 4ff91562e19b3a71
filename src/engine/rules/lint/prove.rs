//! Whether something can meet some conditions and not others: a small decision procedure that says "never" only where
//! it has a proof, and gives a model where it has one.
//!
//! A tableau over the conditions (Smullyan, *First-Order Logic*, 1968) with fields as independent unknowns: a superset
//! of what requests can be, so that "never" holds for requests, while a model is a proposal that the engine confirms.

use std::collections::HashMap;

use super::settle::{self, Literal, Settled};
use crate::engine::expr;
use crate::engine::expr::ast::{Expr, ExprKind, Field, Op};
use crate::engine::label::Text;

/// Branches that are followed before it is given up.
const MOST_STEPS: usize = 2_000;

/// Something that must hold.
#[derive(Clone, Debug)]
pub(super) enum Want<'e> {
    /// An expression, or its negation; the salt of the rule that it stands in.
    Expr(&'e Expr, bool, &'e str),
    /// A test of a field, or its negation.
    Test(&'e Field, &'e Op, bool),
    /// One of these.
    Any(Vec<Self>),
    /// All of these.
    All(Vec<Self>),
    /// What cannot be reasoned about, by name; the same name is the same truth.
    Opaque(String, bool),
}

/// What becomes of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// Proven: nothing can meet it.
    Never,
    /// This does, as far as fields are what they seem.
    Model(Model),
    /// Neither was found.
    Unknown,
}

/// Fields with a value, or without one.
pub(super) type Model = Vec<(Field, Option<Text>)>;

/// Answers questions; keeps the compiled patterns.
#[derive(Debug, Default)]
pub(super) struct Prover {
    patterns: HashMap<Text, Option<regex::bytes::Regex>>,
}

impl Prover {
    /// Whether all of these can hold together.
    pub(super) fn solve(&mut self, wants: Vec<Want<'_>>) -> Answer {
        let mut search = Search { prover: self, steps: 0, unknown: false };
        match search.go(wants, &Branch::default()) {
            Some(model) => Answer::Model(model),
            None if search.unknown => Answer::Unknown,
            None => Answer::Never,
        }
    }

    /// Whether it is proven that they cannot.
    pub(super) fn never(&mut self, wants: Vec<Want<'_>>) -> bool {
        matches!(self.solve(wants), Answer::Never)
    }

    /// The compiled pattern; `None`: it cannot be asked.
    pub(super) fn pattern(&mut self, text: &Text) -> Option<&regex::bytes::Regex> {
        let compile =
            || regex::bytes::RegexBuilder::new(&expr::anchored(text)).size_limit(expr::MAX_PATTERN * 2).build().ok();
        self.patterns.entry(Text::clone(text)).or_insert_with(compile).as_ref()
    }
}

/// What a branch holds so far.
#[derive(Clone, Debug, Default)]
struct Branch<'e> {
    literals: Vec<(&'e Field, Vec<Literal<'e>>)>,
    opaque: Vec<(String, bool)>,
    forks: Vec<Vec<Want<'e>>>,
}

struct Search<'p> {
    prover: &'p mut Prover,
    steps: usize,
    unknown: bool,
}

impl Search<'_> {
    /// A model of the branch with these added. `None`: it is closed, or unknown where that is noted.
    fn go<'e>(&mut self, wants: Vec<Want<'e>>, upto: &Branch<'e>) -> Option<Model> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            self.unknown = true;
            return None;
        }
        let mut branch = upto.clone();
        let mut touched = Vec::new();
        let mut todo = wants;
        while let Some(want) = todo.pop() {
            if !take(want, &mut todo, &mut branch, &mut touched) {
                return None;
            }
        }
        for (field, literals) in branch.literals.iter().filter(|(field, _)| touched.contains(field)) {
            if matches!(settle::settle(field, literals, self.prover), Settled::Never) {
                return None;
            }
        }
        match branch.forks.pop() {
            Some(alternatives) => {
                for want in alternatives {
                    let found = self.go(vec![want], &branch);
                    if found.is_some() {
                        return found;
                    }
                }
                None
            }
            None => self.model(&branch),
        }
    }

    fn model(&mut self, branch: &Branch<'_>) -> Option<Model> {
        let mut model = Model::new();
        for (field, literals) in &branch.literals {
            match settle::settle(field, literals, self.prover) {
                Settled::Never => return None,
                Settled::Value(value) => model.push(((*field).clone(), value)),
                Settled::Unknown => {
                    self.unknown = true;
                    return None;
                }
            }
        }
        if !branch.opaque.is_empty() {
            self.unknown = true;
            return None;
        }
        Some(model)
    }
}

/// Adds one demand to a branch. False: it contradicts what is there.
fn take<'e>(want: Want<'e>, todo: &mut Vec<Want<'e>>, branch: &mut Branch<'e>, touched: &mut Vec<&'e Field>) -> bool {
    match want {
        Want::All(parts) => todo.extend(parts),
        Want::Any(parts) => branch.forks.push(parts),
        Want::Opaque(name, positive) => {
            if branch.opaque.iter().any(|(other, sign)| *other == name && *sign != positive) {
                return false;
            }
            branch.opaque.push((name, positive));
        }
        Want::Test(field, op, positive) => {
            touched.push(field);
            match branch.literals.iter_mut().find(|(other, _)| *other == field) {
                Some((_, literals)) => literals.push(Literal { op, positive }),
                None => branch.literals.push((field, vec![Literal { op, positive }])),
            }
        }
        Want::Expr(expr, positive, salt) => match (&expr.kind, positive) {
            (ExprKind::And(parts), true) | (ExprKind::Or(parts), false) => {
                todo.extend(parts.iter().map(|part| Want::Expr(part, positive, salt)));
            }
            (ExprKind::Or(parts), true) | (ExprKind::And(parts), false) => {
                branch.forks.push(parts.iter().map(|part| Want::Expr(part, positive, salt)).collect());
            }
            (ExprKind::Not(inner), _) => todo.push(Want::Expr(inner, !positive, salt)),
            (ExprKind::Test(test), _) => todo.push(Want::Test(&test.field, &test.op, positive != test.negated)),
            (ExprKind::Percent { fields, at_least, share }, _) => {
                let opaque = Want::Opaque(format!("{salt}\0{fields:?}\0{at_least}\0{share}"), positive);
                if positive {
                    let present = |field| Want::Test(field, &super::witness::EXISTS, true);
                    todo.extend([opaque, Want::Any(fields.iter().map(present).collect())]);
                } else {
                    // Without its fields it is false, whichever way it is written.
                    let absent = fields.iter().map(|field| Want::Test(field, &super::witness::EXISTS, false)).collect();
                    branch.forks.push(vec![Want::All(absent), opaque]);
                }
            }
        },
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::diagnostic::{Diagnostics, Source};
    use crate::engine::expr::{Written, parse_request};

    fn expr(text: &str) -> Expr {
        let mut out = Diagnostics::default();
        let parsed = parse_request(&Written::whole(&Source::new("t", text)), None, &mut out);
        parsed.unwrap_or_else(|| panic!("{}", out.render()))
    }

    fn answer(yes: &str, no: &[&str]) -> Answer {
        let (yes, no) = (expr(yes), no.iter().map(|text| expr(text)).collect::<Vec<_>>());
        let wants = no.iter().map(|no| Want::Expr(no, false, "s")).chain([Want::Expr(&yes, true, "s")]);
        Prover::default().solve(wants.collect())
    }

    #[test]
    fn what_is_covered_is_proven() {
        for (yes, no) in [
            ("path under '/a/b'", &["path under '/a'"][..]),
            ("path starts '/a/b'", &["path under '/a'"]),
            ("method == GET and header.x == a", &["header.x exists"]),
            ("header.x == b", &["header.x in [a, b, c]"]),
            ("header.x matches 'a+'", &["header.x matches 'a+'"]),
            ("header.x == aaa", &["header.x matches 'a+'"]),
            ("header.x in [a, b]", &["header.x == a", "header.x == b"]),
            ("scheme exists", &["scheme == http", "scheme == https"]),
            ("header.v >= 2.1", &["header.v > 2"]),
            ("client.ip in [10.1.0.0/16]", &["client.ip in [10.0.0.0/8]"]),
            ("client.ip in [10.0.0.0/8]", &["client.ip in [10.0.0.0/9]", "client.ip in [10.128.0.0/9]"]),
            ("percent(cookie.u) < 5", &["percent(cookie.u) < 5"]),
            ("header.x == a and not header.x exists", &[]),
            ("header.v < 1 and header.v > 2", &[]),
            ("path under '/a' and path under '/b'", &[]),
            ("tls.client.san contains a", &["tls.client.san exists"]),
            ("cookie.a == x or cookie.b == y", &["cookie.a exists", "cookie.b exists"]),
        ] {
            assert!(matches!(answer(yes, no), Answer::Never), "{yes} without {no:?}: {:?}", answer(yes, no));
        }
    }

    #[test]
    fn what_is_open_has_a_model_or_is_not_claimed() {
        for (yes, no) in [
            ("path starts '/a'", &["path under '/a'"][..]),
            ("path under '/a'", &["path under '/a/b'"]),
            ("header.x != a", &["header.x exists"]),
            ("header.v < 2", &["header.v < 1"]),
            ("method == GET", &["header.x matches 'a+'", "percent(cookie.u) < 50"]),
            ("host ends '.example.com'", &["host == www.example.com"]),
            ("client.ip in [10.0.0.0/8]", &["client.ip in [10.0.0.0/9]"]),
            ("header.x contains b and header.x starts a", &["header.x == ab"]),
        ] {
            assert!(matches!(answer(yes, no), Answer::Model(_)), "{yes} without {no:?}: {:?}", answer(yes, no));
        }
        // Membership in a list is not exclusive, and a share is nothing to reason about.
        for (yes, no) in [
            ("tls.client.san contains a and tls.client.san contains b", &[][..]),
            ("tls.client.san contains ab", &["tls.client.san contains a"]),
            ("percent(cookie.u) < 5", &["percent(cookie.u) < 10"]),
            ("header.x matches 'a+'", &["header.x matches '[a]+'"]),
        ] {
            assert!(!matches!(answer(yes, no), Answer::Never), "{yes} without {no:?}");
        }
    }
}
