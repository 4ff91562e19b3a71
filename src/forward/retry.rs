//! Whether a request may be tried again: what is safe, what the policy wants. The budget is `engine::limit::budget`.

use super::error::Detail;
use crate::engine::policy::Retry;
use crate::engine::time::Draw;

/// Why a try did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection: nothing was sent.
    Connect,
    /// The connection broke before the answer's head, or what came was no answer.
    Reset,
    /// No head in time.
    Timeout,
    /// An answer with this status.
    Status(u16),
}

impl Cause {
    /// The word in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
        }
    }

    /// Whether the policy wants another try for it.
    #[must_use]
    pub fn is_wanted(self, policy: &Retry) -> bool {
        match self {
            Self::Connect => policy.connect,
            Self::Reset => policy.reset,
            Self::Timeout => policy.timeout,
            Self::Status(status) => policy.statuses.contains(&status),
        }
    }
}

/// A try that failed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the client is told if it was the last.
    pub detail: Detail,
    /// What the policy asks; `None`: another try would not help, or it was not the instance's doing.
    pub cause: Option<Cause>,
    /// Some of the request may have reached the instance.
    pub sent: bool,
}

/// Back-off before a try: none before the first retry to another endpoint, then 25 ms doubling to 250 ms, full jitter.
#[must_use]
pub fn backoff(attempts: u32, mut draw: Draw) -> u64 {
    match attempts {
        0 | 1 => 0,
        _ => draw.below((25u64 << (attempts - 2).min(4)).min(250) + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_at_once_and_later_ones_wait_longer() {
        assert_eq!(backoff(1, Draw(7)), 0);
        for seed in 0..100 {
            assert!(backoff(2, Draw(seed)) <= 25);
            assert!(backoff(9, Draw(seed)) <= 250);
        }
    }
}
