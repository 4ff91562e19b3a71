//! How long an endpoint's answers took: a histogram in atomics of bounded size.
//!
//! Logarithmic with four linear steps an octave, as HdrHistogram divides its range (G. Tene, hdrhistogram.org): a
//! quantile is at most a quarter too high or too low. An answer costs one relaxed addition.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Steps an octave, as a power of two.
const STEP_BITS: u32 = 2;
/// Everything below 2^6 µs falls into the first bucket.
const FIRST_OCTAVE: u32 = 6;
/// Everything from 2^26 µs (67 s) on falls into the last.
const LAST_OCTAVE: u32 = 26;
const BUCKETS: usize = ((LAST_OCTAVE - FIRST_OCTAVE) << STEP_BITS) as usize;

/// Counts since the endpoint is measured. Any worker adds; they wrap around, only differences mean anything.
#[derive(Debug)]
pub(super) struct AnswerTimes([AtomicU32; BUCKETS]);

impl Default for AnswerTimes {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl AnswerTimes {
    pub(super) fn add(&self, micros: u64) {
        self.0[bucket(micros)].fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> AnswerCounts {
        AnswerCounts(std::array::from_fn(|at| self.0[at].load(Relaxed)))
    }
}

/// A reading of the histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerCounts([u32; BUCKETS]);

impl AnswerCounts {
    /// The answers between an earlier reading and this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].wrapping_sub(earlier.0[at])))
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time in microseconds that this share of the answers, in percent, did not exceed (nearest rank); `None`
    /// without answers.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> Option<u64> {
        let total = self.total();
        let rank = (u64::from(total) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        at.filter(|_| total > 0).map(middle)
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.clamp(1 << FIRST_OCTAVE, (1 << LAST_OCTAVE) - 1);
    let octave = 63 - micros.leading_zeros();
    let step = (micros >> (octave - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
    (((octave - FIRST_OCTAVE) as usize) << STEP_BITS) + step
}

/// The middle of a bucket, in microseconds.
fn middle(bucket: usize) -> u64 {
    let octave = FIRST_OCTAVE + (bucket >> STEP_BITS) as u32;
    let step = (bucket & ((1 << STEP_BITS) - 1)) as u64;
    let width = 1u64 << (octave - STEP_BITS);
    (1 << octave) + step * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_the_truth_over_the_whole_range() {
        for truth in [70u64, 1_000, 22_000, 480_000, 60_000_000] {
            let times = AnswerTimes::default();
            times.add(truth);
            let found = times.counts().percentile(90).unwrap();
            assert!(found.abs_diff(truth) * 8 <= truth, "{truth} was read as {found}");
        }
        let times = AnswerTimes::default();
        times.add(0);
        times.add(u64::MAX);
        assert_eq!(times.counts().total(), 2);
    }

    #[test]
    fn a_reading_is_told_from_an_earlier_one_and_ranks_are_exact() {
        let times = AnswerTimes::default();
        (0..50).for_each(|_| times.add(1_000_000));
        let before = times.counts();
        (0..90).for_each(|_| times.add(1_000));
        (0..10).for_each(|_| times.add(500_000));
        let window = times.counts().since(&before);
        assert_eq!(window.total(), 100);
        let [median, p90, p91] = [50, 90, 91].map(|percent| window.percentile(percent).unwrap());
        assert!(median == p90 && p90 < 1_200 && p91 > 400_000, "{median} {p90} {p91}");
        assert_eq!(before.since(&before).percentile(90), None);
    }
}
