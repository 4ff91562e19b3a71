//! The table: what a request loads, once. Snapshot, router, and the pools resolved from both.

mod build;
mod ground;
mod heritage;
mod left_out;
mod levels;
pub mod outliers;
mod pool;
mod refused;
mod resolve;

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::label::Text;
use super::locality::Place;
use super::route::{FileIdx, PoolSlot, PoolState, Resolved, Router};
use super::selector::Selector;
use super::snapshot::{Endpoint, EndpointIdx, ServiceSnapshot, Snapshot};
use super::time::Millis;
pub use ground::Ground;
pub use left_out::LeftOut;
pub use pool::{Candidate, Level, Method, Pool};
pub use refused::Refusal;

/// Everything that must agree, behind one pointer. Immutable; a change makes a new one that shares what stays.
#[derive(Debug)]
pub struct Table {
    /// Counts publications.
    pub generation: u64,
    /// When it was made.
    pub published: Millis,
    /// The instances.
    pub snapshot: Snapshot,
    /// The rules.
    pub router: Arc<Router>,
    /// The pools of each of the router's files, in its order.
    pub files: Vec<Arc<FilePools>>,
    /// Where this proxy is.
    pub place: Place,
    plan: Arc<Plan>,
}

/// What follows from the router alone.
#[derive(Debug)]
struct Plan {
    /// One entry a file.
    selectors: Vec<Arc<[PoolSelector]>>,
    /// Files by the service that they are for.
    by_service: FxHashMap<Text, Vec<FileIdx>>,
}

/// A pool's selector, compiled.
#[derive(Debug)]
struct PoolSelector {
    /// `None`: every instance.
    select: Option<Selector>,
    /// Whether lane isolation concerns it: the file has lanes, and the selector does not mention the label.
    isolated: bool,
}

/// One file's resolved pools.
#[derive(Debug)]
pub struct FilePools {
    /// The service's instances; `None`: not in the catalog.
    pub service: Option<Arc<ServiceSnapshot>>,
    /// By slot: the router file's pools in order (the last is `any`), then the variants of pools with `refers`.
    pub pools: Vec<Arc<Pool>>,
    /// When a load of theirs may rise again by itself (`failback`); the end of time: never.
    due: Millis,
    /// Slots of pools with `refers`, and the variants of each, sorted by their values.
    variants: Vec<(PoolSlot, Vec<Variant>)>,
}

/// Values of a pool's `refers` that the catalog holds.
#[derive(Clone, Debug)]
struct Variant {
    values: SmallVec<[Text; 2]>,
    slot: PoolSlot,
}

/// Why a table cannot be built; the last one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A pool that refers to request labels has too many combinations of values.
    #[error(
        "pool `{pool}` of service `{service}`: the catalog holds {count} combinations of the labels that it compares \
         with the request's, more than {MAX_VARIANTS}; compare a label with fewer values"
    )]
    TooManyVariants {
        /// The service.
        service: Text,
        /// The pool.
        pool: Text,
        /// How many there are.
        count: usize,
    },
    /// A selector cannot be used.
    #[error("pool `{pool}` of service `{service}`: {why}")]
    Selector {
        /// The service.
        service: Text,
        /// The pool.
        pool: Text,
        /// What is wrong.
        why: String,
    },
    /// A service that came cannot be given the rules of `service: "*"`.
    #[error("the file for every service cannot be used for a service that came: {0}")]
    Expanding(String),
}

/// The most combinations of request label values that are kept for a pool.
pub const MAX_VARIANTS: usize = 1_000;

/// The end of time.
const NEVER: Millis = Millis(u64::MAX);

impl Table {
    /// A pool. Slots come from `decide`.
    #[must_use]
    pub fn pool(&self, file: FileIdx, slot: PoolSlot) -> &Arc<Pool> {
        &self.files[file as usize].pools[slot as usize]
    }

    /// When the next load of a level may rise again by itself (`failback`): [`Table::with_time`] then makes the table that
    /// lets it. `None`: nothing waits.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.files.iter().map(|file| file.due).min().filter(|due| *due < NEVER)
    }

    /// The endpoints of a file's service; empty when the catalog does not know it.
    #[must_use]
    pub fn endpoints(&self, file: FileIdx) -> &[Endpoint] {
        self.files[file as usize].endpoints()
    }

    /// An endpoint that `pick` gave for a pool of this file.
    #[must_use]
    pub fn endpoint(&self, file: FileIdx, endpoint: EndpointIdx) -> &Endpoint {
        &self.endpoints(file)[endpoint as usize]
    }
}

impl FilePools {
    /// The endpoints of the service; empty when the catalog does not know it.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        self.service.as_ref().map_or(&[], |service| &service.endpoints)
    }

    /// The slot as compiled of a variant; any other slot is its own.
    #[must_use]
    pub fn compiled(&self, slot: PoolSlot) -> PoolSlot {
        let of_variant = |(_, list): &&(PoolSlot, Vec<Variant>)| list.iter().any(|variant| variant.slot == slot);
        self.variants.iter().find(of_variant).map_or(slot, |(compiled, _)| *compiled)
    }
}

impl Resolved for Table {
    fn router(&self) -> &Router {
        &self.router
    }

    fn pool_state(&self, file: FileIdx, slot: PoolSlot) -> PoolState {
        let pool = self.pool(file, slot);
        PoolState { members: pool.members.len() as u32, routable: pool.routable, open: pool.open, min: pool.min }
    }

    fn variant(&self, file: FileIdx, slot: PoolSlot, values: &[&[u8]]) -> Option<PoolSlot> {
        let (_, variants) = self.files[file as usize].variants.iter().find(|(of, _)| *of == slot)?;
        let wanted = || values.iter().copied();
        let found = variants.binary_search_by(|have| have.values.iter().map(|text| text.as_bytes()).cmp(wanted()));
        found.ok().map(|at| variants[at].slot)
    }
}

#[cfg(test)]
mod failback_tests;
#[cfg(test)]
mod stars;
#[cfg(test)]
mod tests;
