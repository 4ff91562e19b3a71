//! The moving cost of an endpoint: Finagle's `PeakEwma`, with a time constant of 10 seconds.

use crate::engine::time::Millis;

/// After this many milliseconds an old cost weighs 1/e.
const TAU_MS: f32 = 10_000.0;

/// A cost and when it was last fed; one word in an atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Milliseconds since the origin, truncated to 32 bits: only differences count.
    at: u32,
    /// Microseconds; 0: never fed.
    micros: f32,
}

impl Cost {
    /// A slower answer raises it at once, a faster one lowers it by the time that went by.
    pub(super) fn after(self, rtt_micros: u64, now: Millis) -> Self {
        let (rtt, at) = ((rtt_micros as f32).max(1.0), now.0 as u32);
        if rtt >= self.micros {
            return Self { at, micros: rtt };
        }
        let kept = self.kept(now);
        Self { at, micros: self.micros * kept + rtt * (1.0 - kept) }
    }

    /// Microseconds as of a moment: who is not asked any more is forgiven by and by, or nobody would find out that it
    /// is well again. `None`: never fed.
    pub(super) fn micros(self, now: Millis) -> Option<f32> {
        (self.micros > 0.0).then(|| self.micros * self.kept(now))
    }

    /// What is left of it, as a part of 1. The clock of another worker may be a little behind.
    fn kept(self, now: Millis) -> f32 {
        let age = (now.0 as u32).wrapping_sub(self.at);
        if age as i32 <= 0 { 1.0 } else { (-(age as f32) / TAU_MS).exp() }
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.micros.to_bits())
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self { at: (word >> 32) as u32, micros: f32::from_bits(word as u32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_decays_with_time() {
        let fed = Cost::default().after(1_000, Millis(0)).after(50_000, Millis(1));
        assert_eq!(fed.micros(Millis(1)), Some(50_000.0));
        assert_eq!(Cost::unpack(fed.pack()), fed);
        let later = fed.after(1_000, Millis(10_001)).micros(Millis(10_001)).unwrap();
        let expected = 50_000.0 / std::f64::consts::E + 1_000.0 * (1.0 - 1.0 / std::f64::consts::E);
        assert!((f64::from(later) - expected).abs() < 5.0, "{later}");
        let forgiven = f64::from(fed.micros(Millis(20_001)).unwrap());
        assert!((forgiven - 50_000.0 * (-2f64).exp()).abs() < 5.0, "{forgiven}");
        assert_eq!(fed.micros(Millis(0)), Some(50_000.0), "a clock a little behind");
        assert_eq!(Cost::default().micros(Millis(0)), None);
    }
}
