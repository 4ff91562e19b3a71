//! Maglev hashing (D. E. Eisenbud et al.: "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4),
//! with weights: each member fills as many entries of the table as its weight asks for, in the order of its own
//! permutation, one at a time in turns. A table depends on identities and weights alone, never on health.

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Entries for each member, at least, so that shares are within a percent.
const ENTRIES_EACH: usize = 100;
const EMPTY: u32 = u32::MAX;

/// A member of a table.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'m> {
    /// What it is known by, in every replica.
    pub identity: &'m str,
    /// Tells apart several addresses of one identity; 0 for the first.
    pub ordinal: u32,
    /// Above 0.
    pub weight: u32,
}

/// What a table depends on: equal fingerprints have equal tables.
#[must_use]
pub fn fingerprint<'m>(seats: impl Iterator<Item = Seat<'m>>) -> u128 {
    let mut state = Xxh3::new();
    for seat in seats {
        state.update(&(seat.identity.len() as u64).to_le_bytes());
        state.update(seat.identity.as_bytes());
        state.update(&seat.ordinal.to_le_bytes());
        state.update(&seat.weight.to_le_bytes());
    }
    state.digest128()
}

/// The table: each entry is the place of a member among `seats`. Its size is the first prime from a hundred entries for
/// each member of a full [`size_class`] on, so that one who comes or goes does not change it; empty without members.
#[must_use]
pub fn table(seats: &[Seat<'_>]) -> Arc<[u32]> {
    if seats.is_empty() {
        return Arc::default();
    }
    let size = prime_from(size_class(seats.len()) * ENTRIES_EACH) as u64;
    let total: u64 = seats.iter().map(|seat| u64::from(seat.weight)).sum();
    let mut walks: Vec<Walk> = seats.iter().map(|seat| Walk::of(seat, size, total)).collect();
    let mut entries = vec![EMPTY; size as usize];
    let mut left = size;
    let mut turns: Vec<u32> = (0..seats.len() as u32).collect();
    while left > 0 {
        for at in &turns {
            if left > 0 {
                let walk = &mut walks[*at as usize];
                let entry = walk.take(&entries, size);
                entries[entry] = *at;
                walk.quota = walk.quota.saturating_sub(1);
                left -= 1;
            }
        }
        turns.retain(|at| walks[*at as usize].quota > 0);
        if turns.is_empty() {
            // What rounding down left over goes around once more.
            turns = (0..seats.len() as u32).collect();
        }
    }
    entries.into()
}

/// A member's way through its permutation.
struct Walk {
    next: u64,
    skip: u64,
    /// Entries that it still wants.
    quota: u64,
}

impl Walk {
    fn of(seat: &Seat<'_>, size: u64, total: u64) -> Self {
        let seed = u64::from(seat.ordinal) << 1;
        let hash = |of: u64| xxh3_64_with_seed(seat.identity.as_bytes(), seed | of);
        let quota = (u128::from(size) * u128::from(seat.weight) / u128::from(total.max(1))) as u64;
        Self { next: hash(0) % size, skip: hash(1) % (size - 1) + 1, quota: quota.max(1) }
    }

    /// Its next entry that nobody has. There is one: the size is prime, so the walk comes by every entry.
    fn take(&mut self, entries: &[u32], size: u64) -> usize {
        loop {
            let at = self.next as usize;
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            if entries[at] == EMPTY {
                return at;
            }
        }
    }
}

/// Members that a table has room for: 16, 128, 1,024, then doubling. Another size moves nearly every key, so small pools,
/// which change most in proportion, stay in theirs.
fn size_class(members: usize) -> usize {
    [16, 128].into_iter().find(|class| members <= *class).unwrap_or_else(|| members.max(1_024).next_power_of_two())
}

fn prime_from(least: usize) -> usize {
    let is_prime = |n: &usize| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (least.max(3)..).find(is_prime).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(members: &[(String, u32)]) -> Arc<[u32]> {
        let seats: Vec<Seat<'_>> =
            members.iter().map(|(identity, weight)| Seat { identity, ordinal: 0, weight: *weight }).collect();
        table(&seats)
    }

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().enumerate().map(|(at, weight)| (format!("node-{at}"), *weight)).collect()
    }

    fn counts(entries: &[u32], members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        entries.iter().for_each(|at| counts[*at as usize] += 1);
        counts
    }

    #[test]
    fn the_size_is_a_prime_with_room_for_a_class() {
        assert_eq!([1, 16, 17, 129, 1_025, 10_000].map(size_class), [16, 16, 128, 1_024, 2_048, 16_384]);
        assert_eq!([1_600, 12_800, 102_400].map(prime_from), [1_601, 12_809, 102_407]);
        assert!(table(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_member_has_its_share(weights in prop::collection::vec(1u32..50, 1..30)) {
            let entries = build(&named(&weights));
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (count, weight) in counts(&entries, weights.len()).iter().zip(&weights) {
                let fair = (entries.len() as u64 * u64::from(*weight) / total) as usize;
                prop_assert!(count.abs_diff(fair.max(1)) <= 2, "{count} for {fair}");
            }
        }

        #[test]
        fn one_that_leaves_moves_its_own_entries_and_few_others(n in 3usize..16, gone in 0usize..16) {
            let gone = gone % n;
            let all = named(&vec![1; n]);
            let mut rest = all.clone();
            rest.remove(gone);
            let (before, after) = (build(&all), build(&rest));
            prop_assert_eq!(before.len(), after.len());
            let mut moved = 0;
            for (was, is) in before.iter().zip(after.iter()) {
                if *was as usize != gone && all[*was as usize] != rest[*is as usize] {
                    moved += 1;
                }
            }
            let moved = f64::from(moved) / before.len() as f64;
            prop_assert!(moved < 0.05, "{moved} of the table moved though its member stayed");
        }
    }

    #[test]
    fn a_huge_weight_leaves_the_others_an_entry() {
        let weights: Vec<u32> = [60_000].into_iter().chain([1; 99]).collect();
        let counted = counts(&build(&named(&weights)), 100);
        assert!(counted.iter().all(|count| *count >= 1));
        assert!(counted[0] > 9_700, "{}", counted[0]);
    }
}
