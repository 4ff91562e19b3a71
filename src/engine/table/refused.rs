//! What health brings about in pools, for events: ejections that a cap does not honour, and panic. What is new since
//! another table.

use std::sync::Arc;

use super::{FilePools, Pool, Table};
use crate::engine::policy::Panic;
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
                let had = |live: u64| {
                    let known = old.and_then(|old| Some((old, same_pool(old, pool, slot)?)));
                    known.is_some_and(|(old, known)| refuses(old, known, live))
                };
                let new = pool.refused.iter().filter(|e| !had(pools.endpoints()[**e as usize].live.id));
                let refusal =
                    |endpoint: &EndpointIdx| Refusal { file: at as u32, slot: slot as u32, endpoint: *endpoint };
                all.extend(new.map(refusal));
            }
        }
        all
    }

    /// Pools with `panic: any` that have nobody routable now and had somebody, or were not there, in `before`.
    #[must_use]
    pub fn newly_in_panic(&self, before: &Self) -> Vec<(FileIdx, PoolSlot)> {
        let same_rules = Arc::ptr_eq(&self.router, &before.router);
        let panics = |pool: &Pool| pool.panic == Some(Panic::Any) && pool.routable == 0 && !pool.members.is_empty();
        let mut all = Vec::new();
        for (at, pools) in self.files.iter().enumerate() {
            let old = before.files.get(at).filter(|_| same_rules);
            if old.is_some_and(|old| Arc::ptr_eq(old, pools)) {
                continue;
            }
            for (slot, pool) in pools.pools.iter().enumerate().filter(|(_, pool)| panics(pool)) {
                if !old.and_then(|old| same_pool(old, pool, slot)).is_some_and(panics) {
                    all.push((at as u32, slot as u32));
                }
            }
        }
        all
    }
}

/// What a pool was. A variant is known by its values: its slot may have moved.
fn same_pool<'t>(old: &'t FilePools, pool: &Pool, slot: usize) -> Option<&'t Pool> {
    let same = |other: &&Arc<Pool>| other.name == pool.name && other.variant == pool.variant;
    let in_place = old.pools.get(slot).filter(same);
    in_place.or_else(|| old.pools.iter().find(same)).map(|pool| &**pool)
}

fn refuses(of: &FilePools, pool: &Pool, live: u64) -> bool {
    pool.refused.iter().any(|endpoint| of.endpoints()[*endpoint as usize].live.id == live)
}
