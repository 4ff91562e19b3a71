//! A worker's own memory for deciding: what was read from the current request, and the caches of the regexes.
//! Reused from request to request, so that deciding does not allocate once it is warm.

use std::sync::Arc;

use regex_automata::PatternSet;
use regex_automata::meta::Cache;

use super::patterns::Patterns;

/// One per worker (or dry run); never shared.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The current request; what carries another number is left over from an earlier one.
    stamp: u64,
    /// Where the value of each of the file's fields is.
    pub(super) located: Vec<(u64, Located)>,
    /// The values.
    pub(super) bytes: Vec<u8>,
    /// By [`Patterns::index`].
    pub(super) sets: Vec<Option<Box<SetCache>>>,
    /// What a hash is taken of.
    pub(super) hashed: Vec<u8>,
}

/// Where a field's value is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Located {
    /// The request does not have it.
    #[default]
    Missing,
    /// In `Scratch::bytes`.
    Bytes { start: u32, end: u32 },
}

/// What matching one set of patterns needs, and its result for the current request.
#[derive(Debug)]
pub(super) struct SetCache {
    /// Whose cache it is: another router's set of the same number needs another cache.
    pub(super) of: Arc<Patterns>,
    pub(super) cache: Cache,
    pub(super) matched: PatternSet,
    /// The request that `matched` belongs to.
    pub(super) stamp: u64,
}

impl Scratch {
    /// An empty one; it grows to what the rules need.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the last request.
    pub(super) fn begin(&mut self, fields: usize) {
        self.stamp += 1;
        self.bytes.clear();
        if self.located.len() < fields {
            self.located.resize(fields, (0, Located::Missing));
        }
    }

    /// The current request's number.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }
}
