//! How much of one request goes elsewhere: half the sum of the absolute differences of its probabilities.

use serde::Serialize;

use super::vector::{Vector, vector};
use super::why::{Side, Why, why};
use crate::engine::route::{Action, Decision, Outcome, Part, spread};
use crate::engine::table::Table;

/// A whole request in the unit of [`Shift::moved`]: parts per billion, so that sums over millions of requests are exact.
pub const WHOLE: u64 = 1_000_000_000;

/// What two decisions differ in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// How much goes elsewhere, of [`WHOLE`].
    pub moved: u64,
    /// From where to where; the parts sum to `moved`, but for rounding.
    pub moves: Vec<Move>,
    /// Whether it was refused.
    pub refused_before: bool,
    /// Whether it is refused.
    pub refused_after: bool,
}

/// A part that goes elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// Where it went.
    pub from: Stop,
    /// Where it goes.
    pub to: Stop,
    /// Why.
    pub why: Why,
    /// How much, of [`WHOLE`].
    pub part: u64,
}

/// A rule and what it led to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Stop {
    /// `service/rule`; `service` when no rule matched; empty when no file claims the request.
    pub rule: String,
    /// The pool's name, or the answer such as `404 no_rule` or `redirect 302`.
    pub goal: String,
}

impl Shift {
    /// What the decisions of two tables about one request differ in.
    pub(super) fn of(old: (&Table, &Decision), new: (&Table, &Decision)) -> Self {
        let (before, after) = (spread(old.0, old.1), spread(new.0, new.1));
        let (was, is) = (vector(old.0, old.1, &before), vector(new.0, new.1, &after));
        let (lost, gained) = (excess(&was, &is, before.parts.len()), excess(&is, &was, after.parts.len()));
        let moved: f64 = lost.iter().sum();
        let refused = |parts: &[Part]| parts.iter().any(|part| matches!(part.outcome, Outcome::Refuse { .. }));
        let mut shift = Self {
            moved: billionths(moved),
            moves: Vec::new(),
            refused_before: refused(&before.parts),
            refused_after: refused(&after.parts),
        };
        if shift.moved == 0 {
            return shift;
        }
        for (from, lost) in before.parts.iter().zip(&lost) {
            for (to, gained) in after.parts.iter().zip(&gained) {
                let part = billionths(lost * gained / moved);
                if part > 0 {
                    let (from, to) = (Side::new(old.0, old.1, *from), Side::new(new.0, new.1, *to));
                    shift.moves.push(Move { from: from.stop(), to: to.stop(), why: why(&from, &to), part });
                }
            }
        }
        shift
    }
}

impl Stop {
    /// Where a decision leads with the luck that it had.
    pub(super) fn of(table: &Table, decision: &Decision) -> Self {
        let part = Part { arm: decision.arm, weight: 1, outcome: decision.outcome };
        Side::new(table, decision, part).stop()
    }
}

/// For each part of `ours`, how much more of it arrives than `theirs` has there.
fn excess(ours: &Vector, theirs: &Vector, parts: usize) -> Vec<f64> {
    let mut excess = vec![0.0; parts];
    for (destination, shares) in ours {
        let here: f64 = shares.iter().map(|(_, share)| share).sum();
        let there: f64 = theirs.get(destination).map_or(0.0, |shares| shares.iter().map(|(_, share)| share).sum());
        if here > there {
            shares.iter().for_each(|(part, share)| excess[*part] += (here - there) * share / here);
        }
    }
    excess
}

fn billionths(share: f64) -> u64 {
    (share * WHOLE as f64).round() as u64
}

impl Side<'_> {
    /// The names that people know it by.
    pub(super) fn stop(&self) -> Stop {
        let rule = match (self.file, self.rule()) {
            (Some(file), Some(rule)) => format!("{}/{}", file.service, rule.name),
            (Some(file), None) => file.service.to_string(),
            (None, _) => String::new(),
        };
        let goal = match (self.part.outcome, self.file, self.rule().map(|rule| &rule.action)) {
            (Outcome::Pool(choice), Some(file), _) => file.pool_name(choice.pool).to_string(),
            (Outcome::Refuse { status, detail }, ..) => format!("{status} {}", detail.word()),
            (Outcome::Redirect, _, Some(Action::Redirect { status, .. })) => format!("redirect {status}"),
            (Outcome::Respond, _, Some(Action::Respond { status, .. })) => format!("respond {status}"),
            _ => String::new(),
        };
        Stop { rule, goal }
    }
}
