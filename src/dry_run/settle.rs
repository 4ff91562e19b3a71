//! Decision to instance, as `forward` does it for the first try: pick, and when the pool proves empty its next resort.

use crate::engine::balance::{Asking, Picked, Tried, pick, pick_any};
use crate::engine::route::{Decision, Outcome, Step, after_empty};
use crate::engine::table::Table;
use crate::engine::time::{Draw, Millis};
use crate::engine::trace::Trace;

/// Pools that prove empty one after the other before it is given up; a decision has fewer.
const MOST_POOLS: usize = 64;

/// What a decision comes to with this luck, and whom it picks where it is a pool. Takes no probing permit.
#[must_use]
pub fn settle(
    table: &Table,
    decision: &Decision,
    draw: Draw,
    now: Millis,
    trace: &mut impl Trace,
) -> (Outcome, Option<Picked>) {
    let mut outcome = decision.outcome;
    for _ in 0..MOST_POOLS {
        let (Outcome::Pool(choice), Some(file)) = (outcome, decision.file) else { break };
        let (pool, endpoints) = (table.pool(file, choice.slot), table.endpoints(file));
        let (luck, tried) = (draw.fork(Draw::PICK), Tried::default());
        let picked = match choice.step {
            Step::Panic => pick_any(pool, endpoints, luck, &tried, trace),
            _ => {
                let asking = Asking { key: decision.hash_of(pool), ..Asking::new(now, luck, &tried) };
                pick(pool, endpoints, &asking, trace)
            }
        };
        if picked.is_some() {
            return (outcome, picked);
        }
        outcome = after_empty(table, decision, choice);
    }
    (outcome, None)
}
