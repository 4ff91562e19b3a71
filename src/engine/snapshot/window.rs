//! The sliding window of one endpoint: ten buckets in atomics.
//!
//! Failures are counted in the buckets. Requests are not counted here at all: the endpoint's own count of finished
//! requests is noted when a bucket opens, so a success costs two loads and no write, but for one a bucket.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::engine::health::Tally;
use crate::engine::time::Millis;

/// Buckets in a window.
const BUCKETS: usize = 10;

/// The window. Any worker writes it.
#[derive(Debug, Default)]
pub struct Window {
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Default)]
struct Bucket {
    /// High half: the bucket's number since the origin plus one, 0 when never used. Low half: failures.
    word: AtomicU64,
    /// Requests that had finished when it opened.
    finished: AtomicU32,
}

impl Window {
    /// Opens the bucket of `now` if nobody did. `finished` is read only then.
    pub fn touch(&self, now: Millis, window_ms: u64, finished: impl FnOnce() -> u32) {
        let tick = tick(now, window_ms);
        let bucket = &self.buckets[tick as usize % BUCKETS];
        let word = bucket.word.load(Relaxed);
        if (word >> 32) as u32 != tick {
            bucket.open(word, tick, finished());
        }
    }

    /// Counts a failure; `touch` comes first.
    pub fn fail(&self, now: Millis, window_ms: u64) {
        self.buckets[tick(now, window_ms) as usize % BUCKETS].word.fetch_add(1, Relaxed);
    }

    /// Requests and failures of the last ten buckets. `finished` is the count now (plus the request at hand, if any).
    #[must_use]
    pub fn tally(&self, now: Millis, window_ms: u64, finished: u32) -> Tally {
        let now = tick(now, window_ms);
        let (mut failed, mut oldest) = (0u32, None::<(u32, u32)>);
        for bucket in &self.buckets {
            let word = bucket.word.load(Relaxed);
            let age = now.wrapping_sub((word >> 32) as u32);
            if word == 0 || age >= BUCKETS as u32 {
                continue;
            }
            failed = failed.saturating_add(word as u32);
            if oldest.is_none_or(|(other, _)| age > other) {
                oldest = Some((age, bucket.finished.load(Relaxed)));
            }
        }
        let before = oldest.map_or(finished, |(_, count)| count);
        Tally { requests: finished.wrapping_sub(before).max(failed), failed }
    }

    /// Forgets everything: an endpoint that is readmitted starts afresh.
    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.word.store(0, Relaxed);
        }
    }
}

impl Bucket {
    fn open(&self, seen: u64, tick: u32, finished: u32) {
        if self.word.compare_exchange(seen, u64::from(tick) << 32, Relaxed, Relaxed).is_ok() {
            self.finished.store(finished, Relaxed);
        }
    }
}

/// The number of the bucket that holds `now`; never 0, so that an unused bucket is told apart.
fn tick(now: Millis, window_ms: u64) -> u32 {
    let bucket_ms = (window_ms / BUCKETS as u64).max(1);
    (now.0 / bucket_ms) as u32 | 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 10_000;

    #[test]
    fn requests_and_failures_leave_the_window_after_ten_buckets() {
        let window = Window::default();
        let mut finished = 0;
        for second in 0..20u64 {
            let now = Millis(second * 1_000);
            window.touch(now, WINDOW, || finished);
            window.fail(now, WINDOW);
            finished += 1;
            let held = (second + 1).min(10) as u32;
            assert_eq!(window.tally(now, WINDOW, finished), Tally { requests: held, failed: held }, "at {second} s");
        }
        assert_eq!(window.tally(Millis(60_000), WINDOW, finished), Tally::default());
        window.clear();
        assert_eq!(window.tally(Millis(19_000), WINDOW, finished).failed, 0);
    }

    #[test]
    fn failures_that_are_ahead_of_finished_requests_count_as_requests() {
        let window = Window::default();
        window.touch(Millis(5), WINDOW, || 0);
        for _ in 0..5 {
            window.fail(Millis(5), WINDOW);
        }
        assert_eq!(window.tally(Millis(5), WINDOW, 0), Tally { requests: 5, failed: 5 });
    }
}
