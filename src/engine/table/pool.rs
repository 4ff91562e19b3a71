//! A pool as a request uses it: who is routable as of publication, by level, ready to be picked from.

use std::sync::Arc;

use crate::engine::balance::{Alias, Ring, Stride, Warming};
use crate::engine::label::Text;
use crate::engine::locality::History;
use crate::engine::policy::{Balance, Panic, SlowStart};
use crate::engine::route::{FileIdx, PoolSlot};
use crate::engine::snapshot::EndpointIdx;
use crate::engine::time::Millis;

/// A resolved pool. Immutable; health that moved since is seen by `pick` in the endpoints' live state.
#[derive(Debug)]
pub struct Pool {
    /// The file.
    pub file: FileIdx,
    /// Its place among the file's resolved pools.
    pub slot: PoolSlot,
    /// Its name in the rule file; `any` for the last slot.
    pub name: Text,
    /// Values of the request labels that this variant is for, in the order of the pool's `refers`. Empty: no variant.
    pub variant: Arc<[Text]>,
    /// Every member that the catalog names, routable or not, ascending.
    pub members: Arc<[EndpointIdx]>,
    /// How far away each of them is, in the same order: the rank of its level.
    pub ranks: Box<[u8]>,
    /// Members that are routable, refused ejections included.
    pub routable: u32,
    /// Members that a panic may pick: neither in maintenance nor drained.
    pub open: u32,
    /// Routable endpoints that the pool wants; at least 1.
    pub min: u32,
    /// Members by locality, nearest first, empty levels squeezed out.
    pub levels: Box<[Level]>,
    /// The algorithm.
    pub balance: Balance,
    /// The request field whose hash `hash(KEY)` goes by: a slot of the file's fields.
    pub key: Option<u32>,
    /// How who is new gets its share.
    pub slow_start: SlowStart,
    /// Until then somebody starts slowly beside older ones; 0: nobody does.
    pub warm_at: Millis,
    /// When the first of its routable members became so.
    pub oldest: Millis,
    /// How well each rank was lately (`failback`), nearest first. Empty: nothing waits in this pool.
    pub past: Box<[History]>,
    /// What it does when nobody is routable and every fallback was tried.
    pub panic: Option<Panic>,
    /// Members out by evidence, longest first: who may be probed.
    pub ejected: Box<[EndpointIdx]>,
    /// Of these, those that the cap keeps in traffic (`eject_refused`), ascending.
    pub refused: Box<[EndpointIdx]>,
    /// How long a probing permit lasts, in milliseconds (`first_byte`).
    pub permit_ms: u64,
}

impl Pool {
    /// Slow start as of a moment; `None`: nobody starts slowly.
    #[must_use]
    pub fn warming(&self, now: Millis) -> Option<Warming> {
        (now < self.warm_at).then_some(Warming { now, policy: self.slow_start, oldest: self.oldest })
    }
}

/// One locality level of a pool.
#[derive(Debug)]
pub struct Level {
    /// 0 is nearest. Ranks are those before squeezing, so that with `[region, zone]` 1 is always the same region.
    pub rank: u8,
    /// Its part of the traffic, percent.
    pub load: u8,
    /// When it may take more again, for what came back waits for `failback`; `None`: nothing waits.
    pub waits: Option<Millis>,
    /// Members that the catalog names.
    pub total: u32,
    /// Routable ones.
    pub candidates: Box<[Candidate]>,
    /// Weighted drawing; `None`: all weights are equal.
    pub alias: Option<Alias>,
    /// What the pool's algorithm goes by.
    pub method: Method,
}

/// An algorithm, with what it needs made at publication.
#[derive(Clone, Debug)]
pub enum Method {
    /// `random`.
    Drawn,
    /// `least`.
    Least,
    /// `ewma`: the mean cost of those who have answered, microseconds; 0: nobody has.
    Ewma {
        /// What a new endpoint starts at.
        mean: u32,
    },
    /// `round_robin`.
    Stride(Stride),
    /// `hash(KEY)`.
    Ring(Ring),
}

/// A routable member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub endpoint: EndpointIdx,
    /// Its weight; above 0.
    pub weight: u32,
    /// Ejected, but kept by the cap.
    pub refused: bool,
}
