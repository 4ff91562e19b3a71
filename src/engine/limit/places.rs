//! Places: how much goes on at once, and a guard that gives its place back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A count of what goes on, shared by all workers.
#[derive(Debug, Default)]
pub struct Places {
    held: AtomicU32,
}

impl Places {
    /// Takes a place if fewer than `limit` are held; exactly `limit` callers can hold one.
    #[must_use]
    pub fn take(self: &Arc<Self>, limit: u32) -> Option<Place> {
        let one_more = |held: u32| (held < limit).then_some(held + 1);
        self.held.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// Places that are held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let places = Arc::new(Places::default());
        let held: Vec<_> = (0..5).filter_map(|_| places.take(3)).collect();
        assert_eq!((held.len(), places.held()), (3, 3));
        drop(held);
        assert_eq!(places.held(), 0);
        assert!(places.take(0).is_none());
    }
}
