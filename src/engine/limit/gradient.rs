//! How much an instance, or a service, carries at once, found by its latency: Netflix's `Gradient2`
//! (concurrency-limits, `Gradient2Limit.java`), fed with the mean of short windows as its `WindowedLimit` does.
//!
//! While latency stays near its base the limit grows by a small queue; when it rises above it the limit shrinks by
//! their ratio, at most by half. A limit that is not used is not moved: it says nothing. Unlike `Gradient2`, whose base
//! is a mean that follows a lasting overload upwards until nothing is limited any more, the base rises only while few
//! requests go on: the idea of `minRTT` in Envoy's adaptive concurrency filter, without pausing traffic for it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::time::Millis;

/// Where it starts (Netflix: 20).
const INITIAL: f32 = 20.0;
/// The least: somebody must be able to show that it got better (Netflix: 20, for whole services; an instance has less).
const LEAST: f32 = 4.0;
/// The most.
const MOST: f32 = 10_000.0;
/// Growth that is allowed beyond what is used (Netflix: 4).
const QUEUE: f32 = 4.0;
/// A latency up to this many times the base is no sign of a queue (Netflix: 1.5).
const TOLERANCE: f32 = 1.5;
/// Weight of a new limit (Netflix: 0.2).
const SMOOTHING: f32 = 0.2;
/// Weight of a window that is faster than the base, and of a slower one while few requests go on.
const FALL: f32 = 0.1;
const RISE: f32 = 0.05;
/// A window's length in milliseconds, and the answers that it needs.
const WINDOW_MS: u64 = 100;
const WINDOW_SAMPLES: u32 = 10;

/// A limit and the latency that it goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// Requests at once.
    pub limit: f32,
    /// Latency without a queue, in microseconds; 0: none yet.
    pub base: f32,
}

impl Default for Gradient {
    fn default() -> Self {
        Self { limit: INITIAL, base: 0.0 }
    }
}

/// Takes the mean latency of a window (microseconds, above 0) and the most that was in flight in it.
#[must_use]
pub fn step(before: Gradient, short: f32, in_flight: u32) -> Gradient {
    let idle = (in_flight as f32) < before.limit / 2.0;
    let weight = match before.base {
        0.0 => 1.0,
        base if short < base => FALL,
        _ if idle || before.limit < 3.0 * LEAST => RISE,
        _ => 0.0,
    };
    let base = before.base + (short - before.base) * weight;
    if idle {
        return Gradient { base, ..before };
    }
    let gradient = (TOLERANCE * base / short).clamp(0.5, 1.0);
    let wanted = before.limit * gradient + QUEUE;
    let limit = before.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
    Gradient { limit: limit.clamp(LEAST, MOST), base }
}

/// The limit of one instance or service, fed by all workers.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// A [`Gradient`]: limit in the high half, base in the low one; 0: the initial one.
    word: AtomicU64,
    /// The window: answers in the high 20 bits, the sum of their microseconds below.
    window: AtomicU64,
    /// When the window ends.
    ends: AtomicU64,
}

const SUM_BITS: u32 = 44;
const SUM: u64 = (1 << SUM_BITS) - 1;

impl Adaptive {
    /// Requests at once.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.gradient().limit as u32
    }

    /// As it stands.
    #[must_use]
    pub fn gradient(&self) -> Gradient {
        match self.word.load(Relaxed) {
            0 => Gradient::default(),
            word => Gradient {
                limit: f32::from_bits((word >> 32) as u32),
                base: f32::from_bits((word & 0xFFFF_FFFF) as u32),
            },
        }
    }

    /// Takes the latency of one answer, and how many were in flight with it. At the end of a window one caller moves
    /// the limit.
    pub fn observe(&self, micros: u64, in_flight: u32, now: Millis) {
        let one = (1 << SUM_BITS) | micros.clamp(1, 60_000_000);
        let window = self.window.fetch_add(one, Relaxed).wrapping_add(one);
        let (count, sum) = ((window >> SUM_BITS) as u32, window & SUM);
        let ends = self.ends.load(Relaxed);
        if count < WINDOW_SAMPLES || now.0 < ends {
            return;
        }
        let next = now.0 + WINDOW_MS;
        if self.ends.compare_exchange(ends, next, Relaxed, Relaxed).is_err() {
            return;
        }
        self.window.store(0, Relaxed);
        let moved = step(self.gradient(), sum as f32 / count as f32, in_flight);
        let word = u64::from(moved.limit.to_bits()) << 32 | u64::from(moved.base.to_bits());
        self.word.store(word, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server of `capacity` requests at once, 10 ms each, in virtual time: all above it waits in its queue.
    fn settled(capacity: f32, windows: usize, mut gradient: Gradient) -> Gradient {
        for _ in 0..windows {
            let in_flight = gradient.limit;
            let latency = 10_000.0 * (in_flight / capacity).max(1.0);
            gradient = step(gradient, latency, in_flight as u32);
        }
        gradient
    }

    #[test]
    fn it_finds_what_a_server_carries() {
        for capacity in [30.0, 100.0, 400.0] {
            let found = settled(capacity, 1_000, Gradient::default()).limit;
            assert!(found > capacity * 0.9 && found < capacity * 2.0, "{capacity}: {found}");
        }
    }

    #[test]
    fn a_slow_server_is_given_less_and_a_recovered_one_more_again() {
        let well = settled(100.0, 300, Gradient::default());
        let mut slow = well;
        for _ in 0..30 {
            slow = step(slow, 100_000.0, slow.limit as u32);
        }
        assert!(slow.limit < well.limit / 4.0, "{slow:?}");
        let again = settled(100.0, 300, slow);
        assert!(again.limit > 90.0, "{again:?}");
    }

    #[test]
    fn an_overload_that_lasts_does_not_become_the_base() {
        let minutes = settled(100.0, 6_000, Gradient::default());
        assert!(minutes.limit < 200.0 && minutes.base < 10_500.0, "{minutes:?}");
    }

    #[test]
    fn a_server_that_stays_slower_gets_a_new_base_at_the_least_limit() {
        let mut gradient = Gradient { limit: 100.0, base: 1_000.0 };
        (0..500).for_each(|_| gradient = step(gradient, 10_000.0, gradient.limit as u32));
        assert!(gradient.base > 5_000.0 && gradient.limit > 20.0, "{gradient:?}");
    }

    #[test]
    fn what_is_not_used_is_not_moved() {
        let before = Gradient { limit: 100.0, base: 10_000.0 };
        assert_eq!(step(before, 10_000.0, 49).limit, 100.0);
        assert!(step(before, 10_000.0, 50).limit > 100.0);
    }

    #[test]
    fn a_window_moves_it_once() {
        let adaptive = Adaptive::default();
        assert_eq!(adaptive.limit(), 20);
        (0..9).for_each(|_| adaptive.observe(1_000, 20, Millis(1)));
        assert_eq!(adaptive.gradient(), Gradient::default(), "too few answers");
        adaptive.observe(1_000, 20, Millis(1));
        let once = adaptive.gradient();
        assert!(once.limit > 20.0, "{once:?}");
        (0..50).for_each(|_| adaptive.observe(1_000, 20, Millis(90)));
        assert_eq!(adaptive.gradient(), once, "the window lasts 100 ms");
        adaptive.observe(1_000, 20, Millis(101));
        assert!(adaptive.gradient().limit > once.limit);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(samples in prop::collection::vec((1f32..6e7, 0u32..100_000), 1..100)) {
            let mut gradient = Gradient::default();
            for (short, in_flight) in samples {
                gradient = step(gradient, short, in_flight);
                prop_assert!((LEAST..=MOST).contains(&gradient.limit) && gradient.base.is_finite() && gradient.base > 0.0);
            }
        }
    }
}
