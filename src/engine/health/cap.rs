//! The ejection cap: how many of a pool's ejected members the pool skips.

use crate::engine::policy::WHOLE;

/// A pool's limits on honouring ejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Share of the pool that may be skipped, parts per million; at least one endpoint unless it is 0.
    pub max_ejection_percent: u32,
    /// Endpoints kept whatever their health.
    pub min_routable: u32,
}

impl Cap {
    /// SEMANTICS.md: 50 % (at least one) and one kept; where the pool is backed, all may go. Explicit settings win.
    #[must_use]
    pub fn of(backed: bool, max_ejection_percent: Option<u32>, min_routable: Option<u32>) -> Self {
        Self {
            max_ejection_percent: max_ejection_percent.unwrap_or(if backed { WHOLE } else { WHOLE / 2 }),
            min_routable: min_routable.unwrap_or(u32::from(!backed)),
        }
    }

    /// How many may be skipped of `eligible` members: those that would be routable but for their own evidence.
    #[must_use]
    pub fn allowed(self, eligible: usize) -> usize {
        let share = (eligible as u64 * u64::from(self.max_ejection_percent) / u64::from(WHOLE)) as usize;
        let at_least_one = usize::from(self.max_ejection_percent > 0);
        share.max(at_least_one).min(eligible.saturating_sub(self.min_routable as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_may_go_but_never_the_last_and_all_where_backed() {
        let own = Cap::of(false, None, None);
        assert_eq!([1, 2, 3, 4, 10].map(|n| own.allowed(n)), [0, 1, 1, 2, 5]);
        let backed = Cap::of(true, None, None);
        assert_eq!([1, 2, 10].map(|n| backed.allowed(n)), [1, 2, 10]);
        assert_eq!(Cap::of(true, Some(0), None).allowed(10), 0);
        assert_eq!(Cap::of(false, Some(WHOLE), Some(3)).allowed(10), 7);
        assert_eq!(Cap::of(false, Some(100_000), None).allowed(5), 1);
    }
}
