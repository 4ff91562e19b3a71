//! Which worker keeps a connection: the one that accepted it, unless it has clearly more than the least loaded one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Connections of every worker. Each count on a cache line of its own.
#[derive(Clone, Debug)]
pub struct Placement {
    counts: Arc<[Count]>,
    /// Each worker keeps what it accepts: the others may have ended.
    settled: Arc<AtomicBool>,
    limit: usize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

impl Placement {
    /// Nobody has any yet. `limit`: connections at once over all workers.
    #[must_use]
    pub fn new(workers: usize, limit: usize) -> Self {
        Self { counts: (0..workers.max(1)).map(|_| Count::default()).collect(), settled: Arc::default(), limit }
    }

    /// From now on nothing is handed over: a drain begins.
    pub fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    /// Whether one more connection is within the limit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.total() < self.limit
    }

    /// Connections of all workers.
    #[must_use]
    pub fn total(&self) -> usize {
        self.counts.iter().map(|count| count.0.load(Relaxed)).sum()
    }

    /// The worker for a connection that `own` accepted; counts it there.
    #[must_use]
    pub fn place(&self, own: usize) -> usize {
        let mine = self.counts[own].0.load(Relaxed);
        let loads = self.counts.iter().map(|count| count.0.load(Relaxed));
        let (least, at) = loads.zip(0..).min().unwrap_or((mine, own));
        let clearly_more = mine > least + (least / 10).max(8) && !self.settled.load(Relaxed);
        let chosen = if clearly_more { at } else { own };
        self.counts[chosen].0.fetch_add(1, Relaxed);
        chosen
    }

    /// Counts a connection at a worker.
    pub fn count(&self, worker: usize) {
        self.counts[worker].0.fetch_add(1, Relaxed);
    }

    /// A connection of this worker has ended.
    pub fn leave(&self, worker: usize) {
        self.counts[worker].0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_keeps_what_it_accepts_until_it_has_clearly_more() {
        let placement = Placement::new(2, 100);
        for _ in 0..9 {
            assert_eq!(placement.place(0), 0);
        }
        assert_eq!(placement.place(0), 1);
        assert_eq!(placement.place(1), 1);
        placement.settle();
        assert_eq!(placement.place(0), 0);
        placement.leave(0);
        placement.leave(1);
        assert_eq!(placement.total(), 10);
        assert!(placement.has_room());
        assert!(!Placement::new(2, 0).has_room());
    }
}
