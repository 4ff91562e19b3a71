//! Many buckets in bounded memory: one for each value of a key, as long as there is room.
//!
//! A set-associative table: a key's hash names a set, the set holds eight buckets. A bucket that is full again holds no
//! information and is free. Where all eight are in use, the one nearest to full goes (the client that loses least), and
//! that is counted. The hash must be seeded at random by the caller, or a client could aim at a set, or at another
//! client's bucket.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::rate::{Bucket, Rate, Within};

/// Buckets of a set: one or two cache lines.
const WAYS: usize = 8;
/// Sets; with [`WAYS`] and 16 bytes a bucket, 1 MiB a limit with a key.
const SETS: usize = 8_192;

/// Keys that have a bucket of their own at once.
pub const MOST_KEYS: usize = WAYS * SETS;

/// The buckets.
#[derive(Debug)]
pub struct Keyed {
    sets: Box<[[Slot; WAYS]]>,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The key's hash; 0: never used.
    tag: AtomicU64,
    bucket: Bucket,
}

impl Default for Keyed {
    fn default() -> Self {
        Self::with_sets(SETS)
    }
}

impl Keyed {
    fn with_sets(sets: usize) -> Self {
        Self { sets: (0..sets).map(|_| <[Slot; WAYS]>::default()).collect(), evicted: AtomicU64::new(0) }
    }

    /// Takes a token from the bucket of a key. `hash`: seeded at random.
    ///
    /// # Errors
    /// There is none for so many nanoseconds.
    pub fn take(&self, hash: u64, rate: Rate, now: u64) -> Result<Within, u64> {
        self.slot(hash.max(1), now).bucket.take(rate, now)
    }

    /// Tokens left for a key. Looks only: a key that has no bucket gets none, and has them all.
    #[must_use]
    pub fn left(&self, hash: u64, rate: Rate, now: u64) -> u64 {
        let tag = hash.max(1);
        let known = self.set(tag).iter().find(|slot| slot.tag.load(Relaxed) == tag);
        rate.left(known.map_or(0, |slot| slot.bucket.tat()), now)
    }

    /// Buckets in use that had to go because their set was full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    fn set(&self, tag: u64) -> &[Slot; WAYS] {
        &self.sets[((tag >> 32) as usize) % self.sets.len()]
    }

    fn slot(&self, tag: u64, now: u64) -> &Slot {
        let set = self.set(tag);
        loop {
            if let Some(slot) = set.iter().find(|slot| slot.tag.load(Relaxed) == tag) {
                return slot;
            }
            // All callers look in the same order, so two that bring the same new key want the same place.
            let free = set.iter().find(|slot| slot.bucket.tat() <= now);
            let nearest = || set.iter().min_by_key(|slot| slot.bucket.tat());
            let Some(slot) = free.or_else(nearest) else { return &set[0] };
            let seen = slot.tag.load(Relaxed);
            if slot.tag.compare_exchange(seen, tag, Relaxed, Relaxed).is_ok() {
                if slot.bucket.tat() > now {
                    self.evicted.fetch_add(1, Relaxed);
                    slot.bucket.fill(now);
                }
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limit::rate::SECOND;
    use crate::engine::time::Draw;

    const RATE: Rate = Rate { interval: SECOND, burst: 2 };

    #[test]
    fn each_key_has_its_own_bucket() {
        let keyed = Keyed::default();
        for key in 0..1_000u64 {
            let hash = Draw(key).fork(1).0;
            let taken = (0..5).filter(|_| keyed.take(hash, RATE, SECOND).is_ok()).count();
            assert_eq!(taken, 2, "{key}");
        }
        assert_eq!(keyed.evicted(), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_had_to_go_is_counted() {
        let keyed = Keyed::with_sets(1);
        for key in 1..=20u64 {
            assert!(keyed.take(key, RATE, SECOND).is_ok(), "a newcomer is never refused for what another one spent");
        }
        assert_eq!(keyed.evicted(), 12);
        for key in 21..=28u64 {
            assert!(keyed.take(key, RATE, 100 * SECOND).is_ok());
        }
        assert_eq!(keyed.evicted(), 12, "full buckets are free places");
    }

    #[test]
    fn asking_what_is_left_takes_nothing_and_makes_no_bucket() {
        let keyed = Keyed::with_sets(1);
        for key in 1..=100 {
            assert_eq!(keyed.left(key, RATE, SECOND), 2, "nobody knows it");
        }
        assert!(keyed.sets[0].iter().all(|slot| slot.tag.load(Relaxed) == 0));
        assert!(keyed.take(7, RATE, SECOND).is_ok());
        assert_eq!((keyed.left(7, RATE, SECOND), keyed.left(7, RATE, SECOND)), (1, 1));
        assert!(keyed.take(7, RATE, SECOND).is_ok());
        assert_eq!((keyed.left(7, RATE, SECOND), keyed.left(7, RATE, 3 * SECOND)), (0, 2));
    }

    #[test]
    fn the_one_that_goes_is_the_nearest_to_full() {
        let keyed = Keyed::with_sets(1);
        assert!(keyed.take(1, RATE, SECOND).is_ok());
        for key in 2..=8u64 {
            assert!(keyed.take(key, RATE, SECOND).is_ok() && keyed.take(key, RATE, SECOND).is_ok());
        }
        assert!(keyed.take(9, RATE, SECOND).is_ok());
        assert_eq!(keyed.evicted(), 1);
        assert!((2..=8u64).all(|key| keyed.take(key, RATE, SECOND).is_err()), "the others still know what was spent");
    }
}
