//! What an exchange with an instance says about the instance, and the counts kept of it.

use serde::Serialize;

/// One exchange's evidence. A client's own fault (4xx, gone away) is never given as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// An answer that speaks for the instance.
    Success,
    /// A 5xx, or 429.
    Status(u16),
    /// Connecting failed, TLS included.
    Connect,
    /// The connection broke before the head of the answer.
    Reset,
    /// No head in time, or a body that stalled.
    Timeout,
    /// What came is not HTTP, or its head is too large.
    Malformed,
}

impl Evidence {
    /// The evidence in an answer's status: 5xx and 429 speak against the instance, everything else for it.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            429 | 500..=599 => Self::Status(status),
            _ => Self::Success,
        }
    }

    /// Whether it counts as a failure in a row. A 429 does not: it is a healthy instance asking for less.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::Status(429))
    }

    /// Whether it counts as failed in the success-rate window: all failures and 429.
    #[must_use]
    pub fn is_against(self) -> bool {
        self != Self::Success
    }

    /// 502, 503, 504 and everything local.
    #[must_use]
    pub fn is_gateway_failure(self) -> bool {
        matches!(self, Self::Status(502..=504)) || self.is_local()
    }

    /// Made by us for want of an answer.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Connect | Self::Reset | Self::Timeout | Self::Malformed)
    }
}

/// Failures in a row, by kind. Saturates at [`Streak::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Failures of any kind (`consecutive_5xx`).
    pub any: u32,
    /// 502, 503, 504 and local ones (`consecutive_gateway_failure`).
    pub gateway: u32,
    /// Local ones (`consecutive_local_origin_failure`).
    pub local: u32,
}

impl Streak {
    /// The highest count that is kept (21 bits); higher thresholds act as this one.
    pub const MAX: u32 = (1 << 21) - 1;

    /// The counts after one more piece of evidence. 429 changes nothing.
    #[must_use]
    pub fn after(self, evidence: Evidence) -> Self {
        if evidence == Evidence::Success {
            return Self::default();
        }
        if !evidence.is_failure() {
            return self;
        }
        let next = |count: u32, counts: bool| if counts { (count + 1).min(Self::MAX) } else { 0 };
        Self {
            any: next(self.any, true),
            gateway: next(self.gateway, evidence.is_gateway_failure()),
            local: next(self.local, evidence.is_local()),
        }
    }

    /// One word, for an atomic.
    #[must_use]
    pub fn pack(self) -> u64 {
        u64::from(self.any) | u64::from(self.gateway) << 21 | u64::from(self.local) << 42
    }

    /// From [`Streak::pack`].
    #[must_use]
    pub fn unpack(word: u64) -> Self {
        let part = |shift: u32| ((word >> shift) & u64::from(Self::MAX)) as u32;
        Self { any: part(0), gateway: part(21), local: part(42) }
    }
}

/// Requests of the sliding window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All that ended, the one at hand included.
    pub requests: u32,
    /// Of these, failed or answered 429.
    pub failed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_ends_with_the_first_success_and_each_kind_counts_for_itself() {
        let all = [Evidence::Connect, Evidence::Status(503), Evidence::Status(500), Evidence::Status(429)];
        let streak = all.into_iter().fold(Streak::default(), Streak::after);
        assert_eq!(streak, Streak { any: 3, gateway: 0, local: 0 });
        let streak = streak.after(Evidence::Status(504)).after(Evidence::Reset);
        assert_eq!(streak, Streak { any: 5, gateway: 2, local: 1 });
        assert_eq!(Streak::unpack(streak.pack()), streak);
        assert_eq!(streak.after(Evidence::Success), Streak::default());
    }

    #[test]
    fn a_client_fault_is_no_evidence_against_the_instance() {
        for status in [200, 204, 301, 400, 404, 499] {
            assert_eq!(Evidence::of_status(status), Evidence::Success);
        }
        assert_eq!(Evidence::of_status(500), Evidence::Status(500));
        assert!(Evidence::of_status(429).is_against());
        assert!(!Evidence::of_status(429).is_failure());
    }
}
