//! A token bucket in one word: the generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling).
//!
//! The word is the *theoretical arrival time*: when the bucket would be full again. A request moves it by one interval;
//! it may run ahead of the clock by `burst` intervals. Times are nanoseconds since the caller's origin.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// How often, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds between two requests at the full rate; at least 1.
    pub interval: u64,
    /// Requests that may come at once after a pause; at least 1.
    pub burst: u64,
}

/// One request is within the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// The next theoretical arrival time.
    pub next: u64,
    /// How many more may come now.
    pub left: u64,
    /// Nanoseconds until the bucket is full again.
    pub full_in: u64,
}

impl Rate {
    /// A rate in thousandths a second. `burst` 0: a second's worth, at least 1.
    #[must_use]
    pub fn new(milli_per_second: u64, burst: u64) -> Self {
        let interval = (SECOND * 1_000 / milli_per_second.max(1)).max(1);
        let burst = if burst == 0 { milli_per_second / 1_000 } else { burst };
        Self { interval, burst: burst.max(1) }
    }

    /// Judges one request at `now`, when the word is `tat`.
    ///
    /// # Errors
    /// It comes too early: by so many nanoseconds.
    pub fn judge(self, tat: u64, now: u64) -> Result<Within, u64> {
        let next = tat.max(now).saturating_add(self.interval);
        let ahead = next - now;
        let allowed = self.interval.saturating_mul(self.burst);
        if ahead > allowed {
            return Err(ahead - allowed);
        }
        Ok(Within { next, left: (allowed - ahead) / self.interval, full_in: ahead })
    }

    /// How many may come at `now`, when the word is `tat`.
    #[must_use]
    pub fn left(self, tat: u64, now: u64) -> u64 {
        self.judge(tat, now).map_or(0, |within| within.left + 1)
    }

    /// Nanoseconds in which an empty bucket fills: the window of `RateLimit-Policy`.
    #[must_use]
    pub fn window(self) -> u64 {
        self.interval.saturating_mul(self.burst)
    }
}

/// One bucket, shared by all workers.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token by compare-and-swap: of several callers exactly as many pass as there are tokens.
    ///
    /// # Errors
    /// There is none for so many nanoseconds.
    pub fn take(&self, rate: Rate, now: u64) -> Result<Within, u64> {
        let mut tat = self.0.load(Relaxed);
        loop {
            let within = rate.judge(tat, now)?;
            match self.0.compare_exchange_weak(tat, within.next, Relaxed, Relaxed) {
                Ok(_) => return Ok(within),
                Err(seen) => tat = seen,
            }
        }
    }

    /// When it is full again; what is past is full.
    #[must_use]
    pub fn tat(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Makes it full as of `now`.
    pub(super) fn fill(&self, now: u64) {
        self.0.store(now, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_at_once_and_then_one_an_interval() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10_000, 5));
        let now = 7 * SECOND;
        let left: Vec<u64> = (0..5).map(|_| bucket.take(rate, now).unwrap().left).collect();
        assert_eq!(left, [4, 3, 2, 1, 0]);
        assert_eq!(bucket.take(rate, now), Err(SECOND / 10));
        assert!(bucket.take(rate, now + SECOND / 10).is_ok());
        assert!(bucket.take(rate, now + SECOND / 10).is_err());
        assert_eq!(bucket.take(rate, now + 100 * SECOND).unwrap().left, 4, "a pause fills it, and no more than that");
    }

    #[test]
    fn the_burst_is_a_seconds_worth_unless_it_is_written() {
        assert_eq!(Rate::new(100_000, 0), Rate { interval: SECOND / 100, burst: 100 });
        assert_eq!(Rate::new(500, 0), Rate { interval: 2 * SECOND, burst: 1 });
        assert_eq!(Rate::new(500, 3).window(), 6 * SECOND);
    }

    #[test]
    fn threads_together_get_exactly_the_burst() {
        let (bucket, rate) = (Bucket::default(), Rate::new(1, 1_000));
        let taken: usize = std::thread::scope(|scope| {
            let one = || (0..1_000).filter(|_| bucket.take(rate, SECOND).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }

    proptest! {
        /// In no window of any length more than burst + rate × length pass; and at a pace below the rate all do.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            milli in 1u64..2_000_000,
            burst in 1u64..50,
            gaps in prop::collection::vec(0u64..3 * SECOND, 1..40),
        ) {
            let (rate, mut tat, mut now) = (Rate::new(milli, burst), 0, 0);
            let mut passed: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                if let Ok(within) = rate.judge(tat, now) {
                    tat = within.next;
                    passed.push(now);
                }
            }
            for (from, start) in passed.iter().enumerate() {
                for (to, end) in passed.iter().enumerate().skip(from) {
                    prop_assert!((to - from + 1) as u64 <= burst + (end - start) / rate.interval);
                }
            }
        }

        #[test]
        fn a_steady_pace_below_the_rate_always_passes(milli in 1u64..2_000_000, count in 1usize..200) {
            let (rate, mut tat) = (Rate::new(milli, 1), 0);
            for at in 0..count as u64 {
                let within = rate.judge(tat, SECOND + at * rate.interval);
                prop_assert!(within.is_ok());
                tat = within.map_or(0, |within| within.next);
            }
        }
    }
}
