//! What the cases are decided in: a table, or rules whose pools are taken to have somebody.

use std::sync::Arc;

use crate::engine::diagnostic::Spanned;
use crate::engine::label::Text;
use crate::engine::route::{FileIdx, PoolSlot, PoolState, Resolved, Router};
use crate::engine::table::Table;

/// Rules with or without instances.
#[derive(Debug)]
pub enum World {
    /// No catalog: every pool has one instance, and it is routable.
    Assumed(Arc<Router>),
    /// The catalog's instances.
    Table(Box<Table>),
}

/// A world in which some pools have nobody routable.
pub(super) struct Standing<'w> {
    pub(super) world: &'w World,
    pub(super) down: &'w [Spanned<Text>],
}

impl World {
    /// The rules.
    #[must_use]
    pub fn router(&self) -> &Router {
        match self {
            Self::Assumed(router) => router,
            Self::Table(table) => &table.router,
        }
    }
}

impl Resolved for Standing<'_> {
    fn router(&self) -> &Router {
        self.world.router()
    }

    fn pool_state(&self, file: FileIdx, slot: PoolSlot) -> PoolState {
        let (state, compiled) = match self.world {
            World::Assumed(_) => (PoolState { members: 1, routable: 1, open: 1, min: 1 }, slot),
            World::Table(table) => (table.pool_state(file, slot), table.files[file as usize].compiled(slot)),
        };
        let name = self.router().files[file as usize].pool_name(compiled);
        let down = self.down.iter().any(|pool| pool.value == *name);
        PoolState { routable: if down { 0 } else { state.routable }, ..state }
    }

    fn variant(&self, file: FileIdx, slot: PoolSlot, values: &[&[u8]]) -> Option<PoolSlot> {
        match self.world {
            World::Assumed(_) => Some(slot),
            World::Table(table) => table.variant(file, slot, values),
        }
    }
}
