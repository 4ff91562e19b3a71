//! One field and everything that is asked of it: a value that does, a proof that none does, or neither.

use ipnet::IpNet;

use super::candidates;
use super::prove::Prover;
use crate::engine::expr::Kind;
use crate::engine::expr::ast::{Field, Op, Operand, Ordering, Version};
use crate::engine::expr::eval;
use crate::engine::label::Text;

/// Texts of a list, and networks, that are tried one by one.
const MOST_TRIED: usize = 4_096;

/// A test or its negation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literal<'e> {
    /// What is asked.
    pub(super) op: &'e Op,
    /// Or its negation.
    pub(super) positive: bool,
}

/// What can be said of a field.
#[derive(Debug)]
pub(super) enum Settled {
    /// Proven: no value does.
    Never,
    /// This value does; `None`: its absence.
    Value(Option<Text>),
    /// Neither was found.
    Unknown,
}

/// Looks for a value. `Never` is sound for every value the field can have, and for its absence.
pub(super) fn settle(field: &Field, literals: &[Literal<'_>], prover: &mut Prover) -> Settled {
    let list = field.kind() == Kind::List;
    if !literals.iter().any(|literal| literal.positive) && may_lack(field) {
        return Settled::Value(None);
    }
    if refuted(field, literals, list) {
        return Settled::Never;
    }
    match field.kind() {
        Kind::List => Settled::Unknown,
        Kind::Address => address(literals),
        Kind::Text => text(field, literals, prover),
    }
}

/// Whether something may be without it.
pub(super) fn may_lack(field: &Field) -> bool {
    !matches!(field, Field::Method | Field::Scheme | Field::Host | Field::Path | Field::ClientIp)
}

/// Whether two of them exclude each other.
fn refuted(field: &Field, literals: &[Literal<'_>], list: bool) -> bool {
    let root = Op::Starts("/".into());
    let always = (*field == Field::Path).then_some(Literal { op: &root, positive: true });
    let present = (!may_lack(field)).then_some(Literal { op: &Op::Exists, positive: true });
    let positive = || literals.iter().chain(&always).chain(&present).filter(|literal| literal.positive);
    let clash = |a: &Op, b: &Op| if list { same(a, b) || matches!(b, Op::Exists) } else { implies(a, b) };
    positive().any(|a| literals.iter().any(|b| !b.positive && clash(a.op, b.op)))
        || (!list && positive().any(|a| positive().any(|b| disjoint(a.op, b.op))))
}

/// All addresses fall into intervals on which every test is constant; one of each is tried.
fn address(literals: &[Literal<'_>]) -> Settled {
    let networks = literals.iter().flat_map(|literal| match literal.op {
        Op::InNetworks(networks) => &**networks,
        _ => &[],
    });
    let networks: Vec<&IpNet> = networks.take(MOST_TRIED + 1).collect();
    if networks.len() > MOST_TRIED {
        return Settled::Unknown;
    }
    let passes = |address| literals.iter().all(|literal| eval::test_address(literal.op, address) == literal.positive);
    match candidates::addresses(&networks).into_iter().find(|address| passes(*address)) {
        Some(address) => Settled::Value(Some(address.to_string().into())),
        None => Settled::Never,
    }
}

fn text(field: &Field, literals: &[Literal<'_>], prover: &mut Prover) -> Settled {
    let mut open = false;
    let mut passes = |value: &str, prover: &mut Prover| {
        literals.iter().all(|literal| match holds(literal.op, value, prover) {
            Some(held) => held == literal.positive,
            None => {
                open = true;
                true
            }
        })
    };
    let listed = literals.iter().filter(|literal| literal.positive).filter_map(|literal| match literal.op {
        Op::Equal(Operand::Text(text)) => Some(std::slice::from_ref(text)),
        Op::In(texts) => Some(&**texts),
        _ => None,
    });
    let closed: Option<Vec<Text>> = match listed.min_by_key(|texts| texts.len()) {
        Some(texts) if texts.len() > MOST_TRIED => return Settled::Unknown,
        Some(texts) => Some(texts.to_vec()),
        None if *field == Field::Scheme => Some(vec!["http".into(), "https".into()]),
        None => None,
    };
    let exact = closed.is_some();
    let tried = closed.unwrap_or_else(|| candidates::texts(field, literals));
    match tried.into_iter().find(|value| passes(value, prover)) {
        Some(_) if open => Settled::Unknown,
        Some(value) => Settled::Value(Some(value)),
        None if exact => Settled::Never,
        None => Settled::Unknown,
    }
}

/// What a test says of a value that is there; `None`: it cannot be asked here.
fn holds(op: &Op, value: &str, prover: &mut Prover) -> Option<bool> {
    match op {
        Op::Matches(pattern) => Some(prover.pattern(pattern)?.is_match(value.as_bytes())),
        Op::InFile(_) | Op::Equal(Operand::RequestLabel(_)) => None,
        op => Some(eval::test_text(op, value.as_bytes())),
    }
}

/// Whether every text that passes the first passes the second. False where it is not known.
fn implies(a: &Op, b: &Op) -> bool {
    let under = |outer: &str, inner: &str| eval::under(outer.as_bytes(), inner.as_bytes());
    match (a, b) {
        (_, Op::Exists) => true,
        (Op::Starts(p), Op::Starts(q)) | (Op::Under(p), Op::Starts(q)) => p.starts_with(&**q),
        (Op::Starts(p), Op::Under(q)) if &**q == "/" => p.starts_with('/'),
        (Op::Starts(p), Op::Under(q)) => p.strip_prefix(&**q).is_some_and(|rest| rest.starts_with('/')),
        (Op::Under(p), Op::Under(q)) => under(q, p),
        (Op::Ends(p), Op::Ends(q)) => p.ends_with(&**q),
        (Op::Starts(p) | Op::Under(p) | Op::Ends(p) | Op::Contains(p), Op::Contains(q)) => p.contains(&**q),
        (Op::Order(a, x), Op::Order(b, y)) => order_implies(*a, x, *b, y),
        (a, b) => same(a, b),
    }
}

/// Whether no text passes both. False where it is not known.
fn disjoint(a: &Op, b: &Op) -> bool {
    let under = |outer: &str, inner: &str| eval::under(outer.as_bytes(), inner.as_bytes());
    match (a, b) {
        (Op::Starts(p), Op::Starts(q)) => !p.starts_with(&**q) && !q.starts_with(&**p),
        (Op::Starts(p), Op::Under(q)) | (Op::Under(q), Op::Starts(p)) => !q.starts_with(&**p) && !under(q, p),
        (Op::Under(p), Op::Under(q)) => !under(p, q) && !under(q, p),
        (Op::Ends(p), Op::Ends(q)) => !p.ends_with(&**q) && !q.ends_with(&**p),
        (Op::Order(a, x), Op::Order(b, y)) => apart(*a, x, *b, y) || apart(*b, y, *a, x),
        _ => false,
    }
}

fn order_implies(a: Ordering, x: &Version, b: Ordering, y: &Version) -> bool {
    use Ordering::{Greater, GreaterOrEqual, Less, LessOrEqual};
    match (a, b) {
        (Greater, Greater | GreaterOrEqual) | (GreaterOrEqual, GreaterOrEqual) => x >= y,
        (GreaterOrEqual, Greater) => x > y,
        (Less, Less | LessOrEqual) | (LessOrEqual, LessOrEqual) => x <= y,
        (LessOrEqual, Less) => x < y,
        _ => false,
    }
}

/// Whether everything below `x` (by `a`) is below everything above `y` (by `b`).
fn apart(a: Ordering, x: &Version, b: Ordering, y: &Version) -> bool {
    use Ordering::{Greater, GreaterOrEqual, Less, LessOrEqual};
    match (a, b) {
        (LessOrEqual, GreaterOrEqual) => x < y,
        (Less | LessOrEqual, Greater | GreaterOrEqual) => x <= y,
        _ => false,
    }
}

/// Whether two tests are one.
pub(super) fn same(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Exists, Op::Exists) => true,
        (Op::Equal(Operand::Text(a)), Op::Equal(Operand::Text(b)))
        | (Op::Equal(Operand::RequestLabel(a)), Op::Equal(Operand::RequestLabel(b)))
        | (Op::InFile(a), Op::InFile(b))
        | (Op::Matches(a), Op::Matches(b))
        | (Op::Starts(a), Op::Starts(b))
        | (Op::Ends(a), Op::Ends(b))
        | (Op::Contains(a), Op::Contains(b))
        | (Op::Under(a), Op::Under(b)) => a == b,
        (Op::In(a), Op::In(b)) => a == b,
        (Op::InNetworks(a), Op::InNetworks(b)) => a == b,
        (Op::Order(a, x), Op::Order(b, y)) => a == b && x == y,
        (Op::Requirement(a), Op::Requirement(b)) => a == b,
        _ => false,
    }
}
