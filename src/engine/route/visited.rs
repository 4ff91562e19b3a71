//! The order of resort as one request walked it, for `explain`: the same lists and counts that decided.

use super::decision::{Choice, Decision, Outcome, Step};
use super::resolved::{PoolState, Resolved};
use super::resort::Walk;
use super::router::PoolSlot;

/// A pool that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    /// For which step.
    pub step: Step,
    /// As compiled.
    pub pool: PoolSlot,
    /// The variant for this request; `None`: no instance has its label values.
    pub slot: Option<PoolSlot>,
    /// Its counts.
    pub state: PoolState,
    /// It was chosen in the end.
    pub taken: bool,
}

/// The pools of list and arms that were looked at before `end`, and the one that `end` chose. For step (2) only pools
/// that step (1) passed over for their minimum.
#[must_use]
pub fn visited(table: &impl Resolved, decision: &Decision, end: &Outcome) -> Vec<Visited> {
    let mut seen = Vec::new();
    let Some(walk) = Walk::of(table, decision) else { return seen };
    let end = match end {
        Outcome::Pool(choice) => Some(*choice),
        Outcome::Redirect | Outcome::Respond | Outcome::Refuse { .. } => None,
    };
    for turn in 0..walk.turns() {
        for step in [Step::Preferred, Step::AtLeastOne] {
            for (place, pool) in walk.list(turn).iter().copied().enumerate() {
                let slot = walk.variant(pool);
                let state = slot.map(|slot| walk.state(slot)).unwrap_or_default();
                if step == Step::AtLeastOne && (state.routable == 0 || state.routable >= state.min) {
                    continue;
                }
                let at = |choice: Choice| (choice.step, choice.turn, usize::from(choice.place));
                let taken = end.map(at) == Some((step, turn, place));
                seen.push(Visited { step, pool, slot, state, taken });
                if taken {
                    return seen;
                }
            }
        }
    }
    seen
}

/// All pools of list and arms, in the order in which the request comes to them: as compiled, and the variant.
#[must_use]
pub fn lists(table: &impl Resolved, decision: &Decision) -> Vec<(PoolSlot, Option<PoolSlot>)> {
    let Some(walk) = Walk::of(table, decision) else { return Vec::new() };
    (0..walk.turns()).flat_map(|turn| walk.list(turn)).map(|pool| (*pool, walk.variant(*pool))).collect()
}
