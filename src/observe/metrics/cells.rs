//! The cells that hold figures. Each is written by one worker (relaxed load and store, so no locked instruction) and
//! read by the scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A figure with one writing thread. Readers see a recent value, never a torn one.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds; only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes away, for gauges; only the owning worker may call it.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Adds from any thread (control plane).
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The figure as of about now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets, in microseconds; one more bucket is +Inf.
pub const BOUNDS_US: [u64; 17] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Durations: counts by bucket and their sum. One writing thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Tally; BOUNDS_US.len() + 1],
    sum_us: Tally,
}

impl Histogram {
    /// Counts one duration; only the owning worker may call it.
    pub fn observe(&self, micros: u64) {
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < micros)].add(1);
        self.sum_us.add(micros);
    }

    /// Counts one duration from any thread.
    pub fn observe_shared(&self, micros: u64) {
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < micros)].add_shared(1);
        self.sum_us.add_shared(micros);
    }

    /// Adds this histogram's figures to a sum.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (total, cell) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += cell.value();
        }
        sum.sum_us = sum.sum_us.wrapping_add(self.sum_us.value());
    }
}

/// A histogram summed over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// By bucket, not cumulative.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// Microseconds.
    pub sum_us: u64,
}

/// What one worker keeps for one (service, rule, pool). On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCells {
    /// Whole requests.
    pub duration: Histogram,
    /// Heads of instances' answers.
    pub first_byte: Histogram,
    /// Body bytes from clients.
    pub bytes_in: Tally,
    /// Body bytes to clients.
    pub bytes_out: Tally,
}

/// One worker's counter of one series. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct CountCell(pub Tally);

/// One worker's unlabelled figures. On cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCells {
    /// Requests and tunnels between head and last byte (gauge).
    pub in_flight: Tally,
    /// Tunnels open (gauge).
    pub tunnels: Tally,
    /// Client connections open (gauge).
    pub connections: Tally,
    /// Client connections accepted.
    pub accepted: Tally,
    /// Client connections given to another worker.
    pub handed_over: Tally,
    /// Client connections that chose HTTP/2.
    pub h2_connections: Tally,
    /// Streams that clients opened.
    pub h2_streams: Tally,
    /// Streams that clients took back before the answer's end.
    pub h2_resets: Tally,
    /// Client connections that were told to leave.
    pub h2_goaways: Tally,
    /// Connections to instances opened.
    pub upstream_opened: Tally,
    /// Pooled connections taken.
    pub upstream_reused: Tally,
    /// Connections over HTTP/2 that instances told us to leave.
    pub upstream_h2_goaways: Tally,
    /// Streams that instances took back before the answer's end.
    pub upstream_h2_resets: Tally,
    /// Connections to instances open (gauge).
    pub upstream_connections: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_counts_below_it() {
        let histogram = Histogram::default();
        for micros in [250, 251, u64::MAX / 4] {
            histogram.observe(micros);
        }
        let mut sum = HistogramSum::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[BOUNDS_US.len()]), (1, 1, 1));
    }
}
