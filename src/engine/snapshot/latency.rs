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
        let kept = (-(at.wrapping_sub(self.at) as f32) / TAU_MS).exp();
        Self { at, micros: self.micros * kept + rtt * (1.0 - kept) }
    }

    pub(super) fn micros(self) -> Option<u64> {
        (self.micros > 0.0).then_some(self.micros as u64)
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
        assert_eq!(fed.micros(), Some(50_000));
        assert_eq!(Cost::unpack(fed.pack()), fed);
        let later = fed.after(1_000, Millis(10_001)).micros().unwrap();
        let expected = 50_000.0 / std::f64::consts::E + 1_000.0 * (1.0 - 1.0 / std::f64::consts::E);
        assert!((later as f64 - expected).abs() < 5.0, "{later}");
        assert_eq!(Cost::default().micros(), None);
    }
}
