//! Slow start: a new endpoint beside old ones gets its share little by little (Envoy's slow start mode, with its
//! `min_weight_percent` of 10 and its `aggression`).

use crate::engine::policy::SlowStart;
use crate::engine::time::Millis;

/// The least chance to be kept, in parts per million.
const LEAST: u64 = 100_000;
const WHOLE: u64 = 1_000_000;

/// A pool in which somebody may start slowly, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warming {
    /// The moment.
    pub now: Millis,
    /// How long it takes, and how early most of it is given.
    pub policy: SlowStart,
    /// When the first of the pool became routable: who came with it is not new beside it.
    pub oldest: Millis,
}

impl Warming {
    /// The chance to keep an endpoint that became routable then, in parts per million; `None`: certain.
    #[must_use]
    pub fn chance(&self, since: Millis) -> Option<u32> {
        let age = self.now.since(since);
        let SlowStart { window, aggression } = self.policy;
        if since <= self.oldest || age >= window {
            return None;
        }
        let grown = match aggression {
            1_000 => age.saturating_mul(WHOLE) / window,
            _ => {
                let part = age as f64 / window as f64;
                (part.powf(1_000.0 / f64::from(aggression.max(1))) * WHOLE as f64) as u64
            }
        };
        Some(grown.clamp(LEAST, WHOLE) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_grows_from_a_tenth_to_certainty() {
        let policy = SlowStart { window: 10_000, aggression: 1_000 };
        let at = |now| Warming { now: Millis(now), policy, oldest: Millis(50) }.chance(Millis(1_000));
        assert_eq!(at(1_000), Some(100_000));
        assert_eq!(at(1_500), Some(100_000));
        assert_eq!(at(6_000), Some(500_000));
        assert_eq!(at(10_999), Some(999_900));
        assert_eq!(at(11_000), None);
    }

    #[test]
    fn aggression_bends_the_curve_and_leaves_its_ends() {
        let after = |age: u64, aggression: u32| {
            let policy = SlowStart { window: 10_000, aggression };
            Warming { now: Millis(1_000 + age), policy, oldest: Millis(50) }.chance(Millis(1_000))
        };
        // By Envoy's formula: the square root, and the square, of the part of the window that has passed.
        for (age, double, half) in [(0, 100_000, 100_000), (2_500, 500_000, 100_000), (6_400, 800_000, 409_600)] {
            assert_eq!([after(age, 2_000), after(age, 500)], [Some(double), Some(half)], "after {age} ms");
        }
        for aggression in [100, 500, 1_000, 2_000, 10_000] {
            let curve: Vec<_> = (0..10_000).step_by(100).map(|age| after(age, aggression)).collect();
            assert!(curve.is_sorted() && curve.iter().all(|chance| *chance <= Some(1_000_000)), "{aggression}");
            assert_eq!((curve[0], after(10_000, aggression)), (Some(100_000), None));
        }
    }

    #[test]
    fn nobody_is_new_in_a_new_pool() {
        let policy = SlowStart { window: 10_000, aggression: 1_000 };
        let pool = Warming { now: Millis(1_100), policy, oldest: Millis(1_000) };
        assert_eq!(pool.chance(Millis(1_000)), None);
        assert_eq!(pool.chance(Millis(1_001)), Some(100_000));
    }
}
