//! A pool as a request uses it: who is routable as of publication, by level, ready to be picked from.

use std::sync::Arc;

use crate::engine::balance::Alias;
use crate::engine::label::Text;
use crate::engine::policy::{Balance, Panic};
use crate::engine::snapshot::EndpointIdx;

/// A resolved pool. Immutable; health that moved since is seen by `pick` in the endpoints' live state.
#[derive(Debug)]
pub struct Pool {
    /// Its name in the rule file; `any` for the last slot.
    pub name: Text,
    /// Values of the request labels that this variant is for, in the order of the pool's `refers`. Empty: no variant.
    pub variant: Arc<[Text]>,
    /// Every member that the catalog names, routable or not, ascending.
    pub members: Arc<[EndpointIdx]>,
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
    /// What it does when nobody is routable and every fallback was tried.
    pub panic: Option<Panic>,
    /// Members out by evidence, longest first: who may be probed.
    pub ejected: Box<[EndpointIdx]>,
    /// Of these, those that the cap keeps in traffic (`eject_refused`), ascending.
    pub refused: Box<[EndpointIdx]>,
    /// How long a probing permit lasts, in milliseconds (`first_byte`).
    pub permit_ms: u64,
}

/// One locality level of a pool.
#[derive(Debug)]
pub struct Level {
    /// 0 is nearest. Ranks are those before squeezing, so that with `[region, zone]` 1 is always the same region.
    pub rank: u8,
    /// Its part of the traffic, percent.
    pub load: u8,
    /// Members that the catalog names.
    pub total: u32,
    /// Routable ones.
    pub candidates: Box<[Candidate]>,
    /// Weighted drawing; `None`: all weights are equal.
    pub alias: Option<Alias>,
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
