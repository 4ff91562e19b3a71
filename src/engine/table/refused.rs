//! Ejections that a pool's cap does not honour, for events: what is new since another table.

use std::sync::Arc;

use super::{FilePools, Pool, Table};
use crate::engine::route::{FileIdx, PoolSlot};
use crate::engine::snapshot::EndpointIdx;

/// An ejected member that its pool keeps in traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub file: FileIdx,
    /// The pool in it, or a variant.
    pub slot: PoolSlot,
    /// The member.
    pub endpoint: EndpointIdx,
}

impl Table {
    /// Refusals of this table that `before` did not have. Files that both share cost a pointer comparison; with other
    /// rules (slots mean something else then) every refusal is new.
    #[must_use]
    pub fn newly_refused(&self, before: &Self) -> Vec<Refusal> {
        let same_rules = Arc::ptr_eq(&self.router, &before.router);
        let mut all = Vec::new();
        for (at, pools) in self.files.iter().enumerate() {
            let old = before.files.get(at).filter(|_| same_rules);
            if old.is_some_and(|old| Arc::ptr_eq(old, pools)) {
                continue;
            }
            for (slot, pool) in pools.pools.iter().enumerate() {
                let had = |live: u64| old.is_some_and(|old| had_refused(old, pool, slot, live));
                let new = pool.refused.iter().filter(|e| !had(pools.endpoints()[**e as usize].live.id));
                let refusal =
                    |endpoint: &EndpointIdx| Refusal { file: at as u32, slot: slot as u32, endpoint: *endpoint };
                all.extend(new.map(refusal));
            }
        }
        all
    }
}

/// A variant is known by its values: its slot may have moved.
fn had_refused(old: &FilePools, pool: &Pool, slot: usize, live: u64) -> bool {
    let same = |other: &&Arc<Pool>| other.name == pool.name && other.variant == pool.variant;
    let in_place = old.pools.get(slot).filter(same);
    let Some(other) = in_place.or_else(|| old.pools.iter().find(same)) else { return false };
    other.refused.iter().any(|endpoint| old.endpoints()[*endpoint as usize].live.id == live)
}
