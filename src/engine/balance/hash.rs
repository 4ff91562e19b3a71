//! `hash(KEY)`: a key has an endpoint of its own, by a Maglev table over all members of the level, ejected ones included.
//!
//! An endpoint that is not usable or overloaded (bounded load, V. Mirrokni et al. 2016: 125 % of the mean) is passed over
//! by hashing the key again, then by the next in the table: so an ejection moves only its own keys, over all others.

use std::sync::Arc;

use super::asking::PassedOver;
use super::{Choosing, LevelKey};
use crate::engine::time::Draw;
use crate::engine::trace::Trace;

/// How often a key is hashed again.
const REHASHES: u64 = 8;

/// Entries that are walked for each candidate before any usable one will do.
const WALK_EACH: usize = 4;

/// A level's Maglev table.
#[derive(Clone, Debug)]
pub struct Ring {
    /// The place of a member; shared while identities and weights stay.
    pub entries: Arc<[u32]>,
    /// What the entries depend on.
    pub fingerprint: u128,
    /// By member: its position among the level's candidates; [`Ring::NOBODY`] while it is not routable.
    pub candidates: Box<[u32]>,
    /// Sum of the candidates' weights.
    pub weight: u64,
}

impl Ring {
    /// A member that is not routable.
    pub const NOBODY: u32 = u32::MAX;

    fn candidate(&self, place: usize) -> Option<usize> {
        let candidate = self.candidates[self.entries[place] as usize];
        (candidate != Self::NOBODY).then_some(candidate as usize)
    }

    fn place(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.entries.len() as u128) >> 64) as usize
    }
}

/// Position of the key's candidate; `None`: nobody is usable.
pub(super) fn pick(
    choice: &Choosing<'_>,
    ring: &Ring,
    key: u64,
    of: LevelKey,
    trace: &mut impl Trace,
) -> Option<usize> {
    if ring.entries.is_empty() || choice.level.candidates.is_empty() {
        return None;
    }
    let mut hash = key;
    for again in 0..=REHASHES {
        let place = ring.place(hash);
        if let Some(at) = ring.candidate(place) {
            match judge(choice, ring, at, hash, of) {
                None => {
                    trace.placed(key, place, ring.entries.len(), again as u32);
                    return Some(at);
                }
                Some(why) => choice.tell(at, why, trace),
            }
        }
        hash = Draw(key).fork(again + 1).0;
    }
    let start = ring.place(key);
    let walk = (choice.level.candidates.len() * WALK_EACH).clamp(64, ring.entries.len());
    let next = (1..=walk)
        .filter_map(|step| ring.candidate((start + step) % ring.entries.len()))
        .find(|at| judge(choice, ring, *at, hash, of).is_none());
    trace.placed(key, start, ring.entries.len(), REHASHES as u32 + 1);
    // Nobody is below the bound: the key decides all the same.
    next.or_else(|| choice.scan(&mut Draw(key), |_| true))
}

/// Slow start goes by the key: as the chance grows, keys come to the new endpoint and stay.
fn judge(choice: &Choosing<'_>, ring: &Ring, at: usize, hash: u64, of: LevelKey) -> Option<PassedOver> {
    choice.judge(at, || hash).or_else(|| is_overloaded(choice, ring, at, of).then_some(PassedOver::Overloaded))
}

/// Whether one more request would bring it over its part, by weight, of 125 % of all in flight, rounded up.
fn is_overloaded(choice: &Choosing<'_>, ring: &Ring, at: usize, of: LevelKey) -> bool {
    let in_flight = u128::from(choice.in_flight(at));
    if in_flight == 0 {
        return false;
    }
    let count = || (0..choice.level.candidates.len()).map(|at| u64::from(choice.in_flight(at))).sum::<u64>();
    let size = choice.level.candidates.len();
    let total = match choice.asking.memory {
        Some(memory) => memory.load(of, size, choice.asking.now, count),
        None => count(),
    };
    // A count that is a little old may lack what is in flight here.
    let total = u128::from(total).max(in_flight) + 1;
    let weight = u128::from(choice.level.candidates[at].weight);
    in_flight * 4 * u128::from(ring.weight) >= 5 * total * weight
}
