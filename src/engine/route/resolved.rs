//! What deciding needs to know of the resolved pools. The table implements it; tests and benches may have their own.

use super::router::{FileIdx, PoolSlot, Router};

/// A pool as of publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Instances of the catalog that the selector names.
    pub members: u32,
    /// Those that are routable.
    pub routable: u32,
    /// Those that a panic may pick.
    pub open: u32,
    /// Routable endpoints that the pool wants; at least 1.
    pub min: u32,
}

/// A router with its pools resolved.
pub trait Resolved {
    /// The router that the pools were resolved for.
    fn router(&self) -> &Router;

    /// The counts of a pool.
    fn pool_state(&self, file: FileIdx, slot: PoolSlot) -> PoolState;

    /// The variant of a pool with `refers` for these values, in the order of `refers`; `None`: no instance has them.
    fn variant(&self, file: FileIdx, slot: PoolSlot, values: &[&[u8]]) -> Option<PoolSlot>;
}
