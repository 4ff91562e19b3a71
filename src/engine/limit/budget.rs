//! What retries and hedges of a service may cost: over 10 s, a share of its requests plus 3 a second, at least 50
//! (SEMANTICS.md, *Retries*; the window and the floor are Finagle's `RetryBudget`).
//!
//! Each worker has its part of the floor and counts its own requests, on a cache line of its own: it alone writes there,
//! and whoever wants the whole reads all of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::policy::WHOLE;
use crate::engine::time::Millis;

/// Seconds of the window.
const WINDOW: usize = 10;
/// Retries a second that are always allowed.
const FLOOR_PER_SECOND: u64 = 3;
/// Retries in a window that are always allowed.
const LEAST: u64 = 50;

/// A service's budget.
#[derive(Debug)]
pub struct Budget {
    shards: Box<[Shard]>,
}

/// One worker's part. One writer.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    second: AtomicU64,
    /// Of each second: requests in the high half, retries in the low one.
    slots: [AtomicU64; WINDOW],
    /// Their sums, in the same way.
    sums: AtomicU64,
}

impl Budget {
    /// An unused budget of a process with so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| Shard::default()).collect() }
    }

    /// Counts a request at a worker.
    pub fn request(&self, worker: usize, now: Millis) {
        let shard = self.shard(worker);
        let at = shard.turn(now);
        shard.add(at, 1 << 32);
    }

    /// Takes one retry at a worker, if it is within the budget. `share`: parts per million of requests.
    pub fn take(&self, worker: usize, now: Millis, share: u32) -> bool {
        let shard = self.shard(worker);
        let at = shard.turn(now);
        let (requests, retries) = halves(shard.sums.load(Relaxed));
        if retries >= self.allowed(worker, requests, share) {
            return false;
        }
        shard.add(at, 1);
        true
    }

    /// Retries that all workers together may still make, as far as their counts are current.
    #[must_use]
    pub fn left(&self, now: Millis, share: u32) -> u64 {
        let left = |(worker, shard): (usize, &Shard)| {
            let stale = (now.0 / 1_000).saturating_sub(shard.second.load(Relaxed)) >= WINDOW as u64;
            let (requests, retries) = if stale { (0, 0) } else { halves(shard.sums.load(Relaxed)) };
            self.allowed(worker, requests, share).saturating_sub(retries)
        };
        self.shards.iter().enumerate().map(left).sum()
    }

    /// What a worker may spend in a window: its requests' share, and its part of the floor. The parts add up to the
    /// floor exactly.
    fn allowed(&self, worker: usize, requests: u64, share: u32) -> u64 {
        let earned = requests * u64::from(share) / u64::from(WHOLE);
        (earned + self.part(worker, FLOOR_PER_SECOND * WINDOW as u64)).max(self.part(worker, LEAST))
    }

    fn part(&self, worker: usize, whole: u64) -> u64 {
        let (count, worker) = (self.shards.len() as u64, (worker % self.shards.len()) as u64);
        whole / count + u64::from(worker < whole % count)
    }

    fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker % self.shards.len()]
    }
}

impl Shard {
    fn add(&self, slot: usize, what: u64) {
        for word in [&self.slots[slot], &self.sums] {
            word.store(word.load(Relaxed).wrapping_add(what), Relaxed);
        }
    }

    /// Forgets the seconds that left the window; the slot of this second.
    fn turn(&self, now: Millis) -> usize {
        let second = now.0 / 1_000;
        let before = self.second.load(Relaxed);
        if second > before {
            self.second.store(second, Relaxed);
            for gone in 1..=(second - before).min(WINDOW as u64) {
                let slot = &self.slots[((before + gone) % WINDOW as u64) as usize];
                self.sums.store(self.sums.load(Relaxed).wrapping_sub(slot.load(Relaxed)), Relaxed);
                slot.store(0, Relaxed);
            }
        }
        (second.max(before) % WINDOW as u64) as usize
    }
}

fn halves(word: u64) -> (u64, u64) {
    (word >> 32, word & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHARE: u32 = 200_000;

    fn granted(budget: &Budget, now: Millis) -> usize {
        (0..10_000).take_while(|_| budget.take(0, now, SHARE)).count()
    }

    #[test]
    fn a_budget_is_a_share_of_requests_with_a_floor() {
        let budget = Budget::new(1);
        assert_eq!(budget.left(Millis(0), SHARE), 50);
        assert_eq!(granted(&budget, Millis(0)), 50);
        assert_eq!(budget.left(Millis(0), SHARE), 0);
        let budget = Budget::new(1);
        (0..1_000).for_each(|_| budget.request(0, Millis(500)));
        assert_eq!(granted(&budget, Millis(900)), 230);
        assert!(!budget.take(0, Millis(9_999), SHARE));
        assert_eq!(budget.left(Millis(20_000), SHARE), 50, "nobody has looked since, and the window has passed");
        assert_eq!(granted(&budget, Millis(10_000)), 50, "the window has passed");
    }

    #[test]
    fn workers_share_the_floor_and_no_more() {
        for workers in [1, 3, 10, 64, 100] {
            let budget = Budget::new(workers);
            let all: usize =
                (0..workers).map(|worker| (0..100).filter(|_| budget.take(worker, Millis(3), SHARE)).count()).sum();
            assert_eq!(all, 50, "{workers}");
        }
    }

    proptest! {
        /// Whatever comes when: in no window of 10 s more retries than the share, 3 a second and 50.
        #[test]
        fn a_storm_is_impossible(steps in prop::collection::vec((0u64..700, any::<bool>()), 1..200)) {
            let (budget, mut now) = (Budget::new(1), 0);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (gap, retry) in steps {
                now += gap;
                budget.request(0, Millis(now));
                requests.push(now);
                for _ in 0..if retry { 20 } else { 1 } {
                    if budget.take(0, Millis(now), SHARE) {
                        retries.push(now);
                    }
                }
            }
            let spent = retries.len() as u64;
            prop_assert!(spent <= requests.len() as u64 / 5 + (now / 1_000 + 1) * 6 + 50 + now / 200, "{spent}");
            for second in 0..=now / 1_000 {
                let within = |at: &&u64| (second..second + 10).contains(&(**at / 1_000));
                let (asked, tried) = (requests.iter().filter(within).count() as u64, retries.iter().filter(within).count() as u64);
                // Requests of the ten seconds before may have earned what is spent at this window's start.
                let before = requests.iter().filter(|at| (second.saturating_sub(10)..second).contains(&(**at / 1_000))).count() as u64;
                prop_assert!(tried <= ((asked + before) / 5 + 30).max(50) + 50, "{tried} of {asked}");
            }
        }
    }
}
