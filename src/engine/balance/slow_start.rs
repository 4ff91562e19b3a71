//! Slow start: a new endpoint beside old ones gets its share little by little (Envoy's slow start mode, with its
//! `min_weight_percent` of 10 and an aggression of 1: the share grows with the age).

use crate::engine::time::Millis;

/// The least chance to be kept, in parts per million.
const LEAST: u64 = 100_000;
const WHOLE: u64 = 1_000_000;

/// A pool in which somebody may start slowly, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warming {
    /// The moment.
    pub now: Millis,
    /// How long it takes, in milliseconds.
    pub window: u64,
    /// When the first of the pool became routable: who came with it is not new beside it.
    pub oldest: Millis,
}

impl Warming {
    /// The chance to keep an endpoint that became routable then, in parts per million; `None`: certain.
    #[must_use]
    pub fn chance(&self, since: Millis) -> Option<u32> {
        let age = self.now.since(since);
        if since <= self.oldest || age >= self.window {
            return None;
        }
        Some((age.saturating_mul(WHOLE) / self.window).max(LEAST) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_grows_from_a_tenth_to_certainty() {
        let at = |now| Warming { now: Millis(now), window: 10_000, oldest: Millis(50) }.chance(Millis(1_000));
        assert_eq!(at(1_000), Some(100_000));
        assert_eq!(at(1_500), Some(100_000));
        assert_eq!(at(6_000), Some(500_000));
        assert_eq!(at(10_999), Some(999_900));
        assert_eq!(at(11_000), None);
    }

    #[test]
    fn nobody_is_new_in_a_new_pool() {
        let pool = Warming { now: Millis(1_100), window: 10_000, oldest: Millis(1_000) };
        assert_eq!(pool.chance(Millis(1_000)), None);
        assert_eq!(pool.chance(Millis(1_001)), Some(100_000));
    }
}
