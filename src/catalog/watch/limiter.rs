//! A token bucket, so that a busy catalog is asked at a bounded rate and a quiet one without delay. Pure.

use crate::engine::time::Millis;

/// A bucket of request permits. Thousandths of a permit, so that slow rates are exact.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    burst: u64,
    per_second: u64,
    milli_permits: u64,
    at: Millis,
}

impl Limiter {
    /// A full bucket of `burst` permits that gains `per_second` (at least 1).
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Millis) -> Self {
        let burst = u64::from(burst.max(1)) * 1_000;
        Self { burst, per_second: u64::from(per_second.max(1)), milli_permits: burst, at: now }
    }

    /// Takes a permit, or says how many milliseconds to wait before asking again.
    pub fn take(&mut self, now: Millis) -> Result<(), u64> {
        let gained = now.since(self.at).saturating_mul(self.per_second);
        self.milli_permits = self.milli_permits.saturating_add(gained).min(self.burst);
        self.at = self.at.max(now);
        if self.milli_permits >= 1_000 {
            self.milli_permits -= 1_000;
            return Ok(());
        }
        Err((1_000 - self.milli_permits).div_ceil(self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let mut limiter = Limiter::new(5, 1, Millis(0));
        let taken = (0..10_000).filter(|ms| limiter.take(Millis(*ms)).is_ok()).count();
        assert_eq!(taken, 5 + 9);
        assert_eq!(limiter.take(Millis(10_000)), Ok(()));
        assert_eq!(limiter.take(Millis(10_500)), Err(500));
    }
}
