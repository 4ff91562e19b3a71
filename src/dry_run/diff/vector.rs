//! A decision's exact distribution over instances: who gets which part of it while everybody is idle.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::engine::balance::{Asking, Tried, pick};
use crate::engine::instance::Status;
use crate::engine::label::Text;
use crate::engine::route::{Action, Decision, Outcome, PoolSlot, Spread, Step};
use crate::engine::snapshot::EndpointIdx;
use crate::engine::table::Table;
use crate::engine::time::Draw;
use crate::engine::trace::NoTrace;

/// What a request can come to, the same in both tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    /// The instance of this identity.
    Instance(Text),
    /// A redirect or a fixed answer: status and text.
    Answer(u16, Text),
    /// A refusal.
    Refused(u16),
}

/// By destination: the parts of the spread that lead there, each with its probability.
pub(super) type Vector = BTreeMap<Destination, SmallVec<[(usize, f64); 2]>>;

/// The vector of a decision with the given spread.
pub(super) fn vector(table: &Table, decision: &Decision, spread: &Spread) -> Vector {
    let mut vector = Vector::new();
    for (at, part) in spread.parts.iter().enumerate() {
        let weight = part.weight as f64 / spread.total as f64;
        let (Outcome::Pool(choice), Some(file)) = (part.outcome, decision.file) else {
            vector.entry(answer(table, decision, part.outcome)).or_default().push((at, weight));
            continue;
        };
        for (endpoint, share) in shares(table, file, decision, choice.slot, choice.step) {
            let identity = Text::clone(&table.endpoint(file, endpoint).instance.identity);
            vector.entry(Destination::Instance(identity)).or_default().push((at, weight * share));
        }
    }
    vector
}

/// Who gets which part of a pool's requests: by level and weight, which is exact while nobody has more in flight than
/// others (SEMANTICS.md, *Balancing*). With `hash(KEY)` and the key, the key's own endpoint. In a panic, of the members
/// that are neither drained nor in maintenance, as a scan from a random start finds them.
pub(in crate::dry_run) fn shares(
    table: &Table,
    file: u32,
    decision: &Decision,
    slot: PoolSlot,
    step: Step,
) -> Vec<(EndpointIdx, f64)> {
    let pool = table.pool(file, slot);
    if step == Step::Panic {
        return panicking(table, file, &pool.members);
    }
    if let Some(key) = decision.hash_of(pool) {
        let (now, tried) = (table.published, Tried::default());
        let asking = Asking { key: Some(key), ..Asking::new(now, Draw(key), &tried) };
        let picked = pick(pool, table.endpoints(file), &asking, &mut NoTrace);
        return picked.map(|picked| (picked.endpoint, 1.0)).into_iter().collect();
    }
    let mut shares = Vec::with_capacity(pool.routable as usize);
    for level in pool.levels.iter().filter(|level| level.load > 0) {
        let total: u64 = level.candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
        let part = f64::from(level.load) / 100.0;
        let share = |weight: u32| part * f64::from(weight) / total as f64;
        shares.extend(level.candidates.iter().map(|candidate| (candidate.endpoint, share(candidate.weight))));
    }
    shares
}

fn panicking(table: &Table, file: u32, members: &[EndpointIdx]) -> Vec<(EndpointIdx, f64)> {
    let open = |at: &EndpointIdx| {
        let endpoint = table.endpoint(file, *at);
        endpoint.status() != Status::Maintenance && !endpoint.live.drained()
    };
    let Some(first) = members.iter().position(open) else { return Vec::new() };
    let one = 1.0 / members.len() as f64;
    // Whoever follows a gap gets the starts within it, too; the first follows what stands after the last.
    let mut shares: Vec<(EndpointIdx, f64)> = Vec::new();
    let mut gap = 0.0;
    for step in 0..members.len() {
        let at = members[(first + 1 + step) % members.len()];
        gap += one;
        if open(&at) {
            shares.push((at, gap));
            gap = 0.0;
        }
    }
    shares
}

fn answer(table: &Table, decision: &Decision, outcome: Outcome) -> Destination {
    let file = decision.file.map(|file| &table.router.files[file as usize]);
    let rule = file.zip(decision.rule).map(|(file, rule)| &file.rules[rule as usize].action);
    match (outcome, rule) {
        (Outcome::Refuse { status, .. }, _) => Destination::Refused(status),
        (_, Some(Action::Redirect { status, location })) => Destination::Answer(*status, Text::clone(location)),
        (_, Some(Action::Respond { status, body, .. })) => Destination::Answer(*status, Text::clone(body)),
        _ => Destination::Refused(503),
    }
}
