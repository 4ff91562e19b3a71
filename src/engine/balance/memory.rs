//! A worker's own memory for picking: whose turn it is, and how loaded a hashed level is. It starts empty, and loses
//! nothing that matters when it is dropped.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::engine::time::Millis;

/// A level of a pool: file, slot and rank. A key that comes to mean another pool, by new rules, does no harm: any turn
/// is as good as another to start from, and a mean is counted anew soon.
pub(super) type LevelKey = (u32, u32, u8);

/// More entries than rules have pools; beyond it, it starts anew.
const MOST: usize = 1 << 16;

/// One per worker; never shared between threads.
#[derive(Debug, Default)]
pub struct Memory {
    turns: RefCell<FxHashMap<LevelKey, u64>>,
    loads: RefCell<FxHashMap<LevelKey, Load>>,
}

/// Requests in flight over a whole level, as of a moment.
#[derive(Clone, Copy, Debug)]
struct Load {
    total: u64,
    at: Millis,
    /// Picks before it is counted anew.
    picks: u32,
}

/// A count is used no longer than this, in milliseconds.
const COUNT_LASTS: u64 = 20;

impl Memory {
    /// Lends the turn of a level; the first time it is `start`.
    pub(super) fn turn<T>(&self, key: LevelKey, start: u64, take: impl FnOnce(&mut u64) -> T) -> T {
        let mut turns = self.turns.borrow_mut();
        if turns.len() >= MOST {
            turns.clear();
        }
        take(turns.entry(key).or_insert(start))
    }

    /// The load of a level of `size` endpoints, counted once in as many picks as keep the count's part of a pick small.
    pub(super) fn load(&self, key: LevelKey, size: usize, now: Millis, count: impl FnOnce() -> u64) -> u64 {
        let mut loads = self.loads.borrow_mut();
        if let Some(known) = loads.get_mut(&key)
            && known.picks > 0
            && now.since(known.at) < COUNT_LASTS
        {
            known.picks -= 1;
            return known.total;
        }
        if loads.len() >= MOST {
            loads.clear();
        }
        let total = count();
        loads.insert(key, Load { total, at: now, picks: (size / 4) as u32 });
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_used_for_a_quarter_of_the_size_and_twenty_milliseconds() {
        let memory = Memory::default();
        let (mut counted, key) = (0, (1, 2, 3));
        for _ in 0..9 {
            memory.load(key, 8, Millis(5), || {
                counted += 1;
                counted
            });
        }
        assert_eq!(counted, 3, "each count serves two more picks of eight endpoints");
        let late = memory.load((1, 2, 4), 1_000, Millis(5), || 7) + memory.load((1, 2, 4), 1_000, Millis(25), || 8);
        assert_eq!(late, 15);
        assert_eq!(memory.load((1, 2, 4), 1_000, Millis(44), || 9), 8);
    }

    #[test]
    fn a_turn_goes_on_where_it_was() {
        let memory = Memory::default();
        let next = |turn: &mut u64| {
            *turn += 1;
            *turn
        };
        assert_eq!(memory.turn((0, 0, 0), 100, next), 101);
        assert_eq!(memory.turn((0, 0, 0), 500, next), 102);
        assert_eq!(memory.turn((0, 1, 0), 7, next), 8);
    }
}
