//! How many keys there are and how many of them move, in bounded memory: exact up to a limit, from there on an estimate
//! by distinct sampling (Gibbons, "Distinct sampling for highly-accurate answers to distinct values queries", 2001).

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::shift::WHOLE;

/// Keys that are kept.
const KEPT: usize = 1 << 16;

/// Keys seen, by their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySample {
    /// Keys are kept whose hash begins with this many zeros.
    level: u32,
    /// How much of the key moved at most, of [`WHOLE`].
    kept: FxHashMap<u64, u64>,
}

/// What a sample says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Keys {
    /// Keys seen.
    pub seen: u64,
    /// The part of them that moved, from 0 to 1.
    pub moved: f64,
    /// There were too many to keep them all, so both are estimates.
    pub estimated: bool,
}

impl KeySample {
    /// A request with this key moved by so much.
    pub fn add(&mut self, key: u64, moved: u64) {
        if !self.keeps(key) {
            return;
        }
        let known = self.kept.entry(key).or_default();
        *known = (*known).max(moved);
        while self.kept.len() > KEPT {
            self.raise(self.level + 1);
        }
    }

    /// Takes over what another one saw.
    pub fn merge(&mut self, other: Self) {
        self.raise(other.level.max(self.level));
        other.kept.into_iter().for_each(|(key, moved)| self.add(key, moved));
    }

    /// What it says of all keys.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let kept = self.kept.len() as u64;
        let moved: u128 = self.kept.values().map(|moved| u128::from(*moved)).sum();
        let all = u128::from(kept) * u128::from(WHOLE);
        Keys {
            seen: kept << self.level,
            moved: if kept == 0 { 0.0 } else { moved as f64 / all as f64 },
            estimated: self.level > 0,
        }
    }

    fn raise(&mut self, level: u32) {
        self.level = level;
        let mut kept = std::mem::take(&mut self.kept);
        kept.retain(|key, _| self.keeps(*key));
        self.kept = kept;
    }

    /// The hash chose an arm already, so it is mixed again before it chooses a sample.
    fn keeps(&self, key: u64) -> bool {
        let mixed = crate::engine::time::Draw(key).fork(u64::from(u32::MAX)).0;
        mixed.leading_zeros() >= self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_keys_are_counted_exactly_and_many_estimated_whoever_saw_them() {
        let mut few = KeySample::default();
        (0..1_000u64).for_each(|n| few.add(n % 100, if n % 100 < 5 { WHOLE } else { 0 }));
        assert_eq!(few.keys(), Keys { seen: 100, moved: 0.05, estimated: false });
        let (mut all, mut halves) = (KeySample::default(), [KeySample::default(), KeySample::default()]);
        for key in 0..300_000u64 {
            let moved = if key % 10 == 0 { WHOLE } else { 0 };
            all.add(key, moved);
            halves[usize::from(key % 3 == 0)].add(key, moved);
        }
        let [mut first, second] = halves;
        first.merge(second);
        assert_eq!(first, all);
        let keys = all.keys();
        assert!(keys.estimated && (285_000..315_000).contains(&keys.seen), "{keys:?}");
        assert!((0.09..0.11).contains(&keys.moved), "{keys:?}");
    }
}
