//! What luck could make of a decision: every outcome with its exact part, never sampled. For `test`, `diff` and the
//! guard, which must not have sampling noise.

use smallvec::{SmallVec, smallvec};

use super::decision::{Decision, Outcome};
use super::resolved::Resolved;
use super::resort::Walk;
use super::router::{Action, ArmIdx, FileIdx, PoolSlot, RuleIdx};

/// The outcomes of a decision over all draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Never empty; no outcome has a weight of 0.
    pub parts: SmallVec<[Part; 2]>,
    /// The sum of the weights.
    pub total: u64,
}

/// One outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The arm it belongs to; `None` without a split.
    pub arm: Option<ArmIdx>,
    /// Its part of [`Spread::total`].
    pub weight: u64,
    /// What happens.
    pub outcome: Outcome,
}

/// What of a decision does not depend on luck. Decisions of one table with equal shapes have equal spreads, and the
/// same instances in each part with the same chances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    file: Option<FileIdx>,
    rule: Option<RuleIdx>,
    /// `None`: luck decides the arm.
    outcome: Option<Outcome>,
    variants: SmallVec<[(PoolSlot, Option<PoolSlot>); 2]>,
    /// Where a pool goes by `hash(KEY)`, every key has an instance of its own.
    hashes: SmallVec<[(u32, u64); 1]>,
}

impl Decision {
    /// Whether luck, not a key, chose the arm. The value of a cookie that is minted now is luck, too.
    #[must_use]
    pub fn by_luck(&self) -> bool {
        !self.arms.is_empty() && self.key.is_none()
    }

    /// What of it does not depend on luck.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            file: self.file,
            rule: self.rule,
            outcome: (!self.by_luck()).then_some(self.outcome),
            variants: self.variants.clone(),
            hashes: self.hashes.clone(),
        }
    }
}

/// The outcomes that other draws would have given this request: one, unless luck chose the arm.
#[must_use]
pub fn spread(table: &impl Resolved, decision: &Decision) -> Spread {
    if decision.by_luck() { over_all(table, decision) } else { Spread::certain(decision) }
}

/// The outcomes over everybody whom the decision's rule matches as it matched this request: for a split with a key,
/// over all keys.
#[must_use]
pub fn spread_of_keys(table: &impl Resolved, decision: &Decision) -> Spread {
    if decision.arms.is_empty() { Spread::certain(decision) } else { over_all(table, decision) }
}

/// An arm with somebody routable has its weight's part of all such arms: whoever draws a dead one draws again among
/// the others by weight, so the first live one in the order has exactly that probability (Luce's choice axiom).
fn over_all(table: &impl Resolved, decision: &Decision) -> Spread {
    let Some(walk) = Walk::of(table, decision) else { return Spread::certain(decision) };
    let Some(Action::Split(split)) = walk.rule.map(|rule| &rule.action) else { return Spread::certain(decision) };
    let mut spread = Spread { parts: SmallVec::new(), total: 0 };
    for (at, arm) in split.arms.iter().enumerate().filter(|(_, arm)| arm.weight > 0) {
        let alone = Decision { arms: smallvec![at as u16], ..decision.clone() };
        let Some(choice) = (Walk { decision: &alone, ..walk }).lists(None) else { continue };
        let part = Part { arm: Some(at as ArmIdx), weight: arm.weight, outcome: Outcome::Pool(choice) };
        spread.total += part.weight;
        spread.parts.push(part);
    }
    if spread.parts.is_empty() { Spread::certain(decision) } else { spread }
}

impl Spread {
    fn certain(decision: &Decision) -> Self {
        Self { parts: smallvec![Part { arm: decision.arm, weight: 1, outcome: decision.outcome }], total: 1 }
    }
}
