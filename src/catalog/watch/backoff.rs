//! How long to wait after a failure (CATALOGS.md L3). Pure: the draw is an argument.

use crate::engine::time::Draw;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Transport errors, time-outs, 5xx, unusable bodies.
    Ordinary,
    /// Nobody listens. Costs nobody anything, so it is tried often.
    Refused,
    /// 429, 503, or the silent form of the connection limit. Milliseconds of `Retry-After`, 0 when there was none.
    Congested(u64),
    /// 403: the token.
    Forbidden,
    /// 400: a request that will never be right.
    Configuration,
}

/// The delays of one watch; a success resets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: milliseconds to wait. The first retry comes soon (a change of leader is healed by it), then
    /// half a second doubling to 30 s with full jitter.
    pub fn after(&mut self, failure: Failure, mut draw: Draw) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let doubled = |first: u64, cap: u64, times: u32| first.saturating_mul(1 << times.min(20)).min(cap);
        let nth = self.failures;
        match failure {
            Failure::Ordinary | Failure::Refused if nth == 1 => 100 + draw.below(201),
            Failure::Ordinary => 100 + draw.below(doubled(500, 30_000, nth - 2)),
            Failure::Refused => 100 + draw.below(doubled(500, 1_400, nth - 2)),
            Failure::Congested(retry_after) => retry_after.clamp(5_000, 300_000) + draw.below(1_000),
            Failure::Forbidden => {
                let full = doubled(1_000, 30_000, nth - 1);
                full / 2 + draw.below(full / 2 + 1)
            }
            Failure::Configuration => 60_000,
        }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(failure: Failure, failures: u32) -> (u64, u64) {
        let draws = (0..2_000).map(|seed| {
            let mut backoff = Backoff::default();
            (0..failures).map(|_| backoff.after(failure, Draw(seed))).last().unwrap_or(0)
        });
        draws.fold((u64::MAX, 0), |(low, high), one| (low.min(one), high.max(one)))
    }

    #[test]
    fn the_first_retry_is_soon_and_later_ones_grow_to_half_a_minute() {
        let (low, high) = longest(Failure::Ordinary, 1);
        assert!(low >= 100 && high <= 300, "{low} {high}");
        let (low, high) = longest(Failure::Ordinary, 20);
        assert!(low < 2_000 && (25_000..=30_100).contains(&high), "{low} {high}");
    }

    #[test]
    fn a_refused_connection_is_tried_every_second_and_a_half_at_most() {
        assert!(longest(Failure::Refused, 20).1 <= 1_500);
    }

    #[test]
    fn other_failures_have_their_own_pace() {
        let (low, high) = longest(Failure::Congested(0), 3);
        assert!(low >= 5_000 && high <= 6_000);
        assert!(longest(Failure::Congested(20_000), 1).0 >= 20_000);
        let (low, high) = longest(Failure::Forbidden, 1);
        assert!(low >= 500 && high <= 1_000);
        assert!(longest(Failure::Forbidden, 9).1 <= 30_000);
        assert_eq!(longest(Failure::Configuration, 1), (60_000, 60_000));
    }
}
