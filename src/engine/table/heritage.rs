//! What a file's pools take over from the ones before: how their levels were lately, and tables that are dear to make.

use std::cell::RefCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{FilePools, Method, Pool};
use crate::engine::label::Text;
use crate::engine::route::PoolSlot;

/// The pools of one service as they were.
#[derive(Debug, Default)]
pub(super) struct Heritage<'t> {
    files: SmallVec<[&'t FilePools; 1]>,
    /// Made since.
    made: RefCell<Vec<(u128, Arc<[u32]>)>>,
}

impl<'t> Heritage<'t> {
    pub(super) fn of(files: impl IntoIterator<Item = &'t FilePools>) -> Self {
        Self { files: files.into_iter().collect(), made: RefCell::default() }
    }

    /// The pool of this name and variant: in its place, or wherever new rules have put it.
    pub(super) fn pool(&self, slot: PoolSlot, name: &Text, variant: &[Text]) -> Option<&'t Pool> {
        let same = |pool: &&Arc<Pool>| pool.name == *name && *pool.variant == *variant;
        let in_place = self.files.iter().find_map(|file| file.pools.get(slot as usize).filter(same));
        in_place.or_else(|| self.files.iter().find_map(|file| file.pools.iter().find(same))).map(|pool| &**pool)
    }

    /// A Maglev table that was made of the same members.
    pub(super) fn entries(&self, fingerprint: u128) -> Option<Arc<[u32]>> {
        let made = self.made.borrow();
        let known = made.iter().find(|(of, _)| *of == fingerprint).map(|(_, entries)| entries);
        let levels = || self.files.iter().flat_map(|file| &file.pools).flat_map(|pool| &pool.levels);
        let inherited = || {
            levels().find_map(|level| match &level.method {
                Method::Ring(ring) if ring.fingerprint == fingerprint => Some(&ring.entries),
                _ => None,
            })
        };
        known.or_else(inherited).cloned()
    }

    pub(super) fn keep(&self, fingerprint: u128, entries: Arc<[u32]>) {
        self.made.borrow_mut().push((fingerprint, entries));
    }
}
