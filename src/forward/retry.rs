//! Whether a request may be tried again: what is safe, what the policy wants. The budget is `engine::limit::budget`.

use super::attempt::{Answered, Ended};
use super::error::Detail;
use crate::engine::grpc;
use crate::engine::health::Evidence;
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
    /// An answer to a call with this status of gRPC, and no message.
    Grpc(u8),
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
            Self::Grpc(_) => "grpc_status",
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
            Self::Grpc(status) => policy.grpc.checked_shr(u32::from(status)).unwrap_or(0) & 1 == 1,
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

impl Failure {
    /// Something is missing that cannot be.
    pub const INTERNAL: Self = Self { detail: Detail::Internal, cause: None, sent: false };
}

/// A reason for another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it is.
    pub cause: Cause,
    /// Some of the request may have reached the instance.
    pub sent: bool,
}

/// What a try that came to its end says.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// About the instance; `None`: nothing.
    pub evidence: Option<Evidence>,
    /// In metrics.
    pub word: &'static str,
    /// Why another one is wanted; `None`: it is not.
    pub trouble: Option<Trouble>,
}

impl Reading {
    /// Reads a try by the policy in force. A client that was made to prove an ejected endpoint (`probe`) is not told of
    /// its failure, whatever the policy says of it.
    #[must_use]
    pub fn of(ended: &Ended, policy: &Retry, probe: bool) -> Self {
        let (evidence, word, trouble) = match ended {
            Ok(answered) => {
                let (evidence, word, cause) = of_head(answered, probe);
                (evidence, word, Some(Trouble { cause, sent: true }))
            }
            Err(failure) => {
                let trouble = failure.cause.map(|cause| Trouble { cause, sent: failure.sent });
                (failure.detail.evidence(), failure.detail.word(), trouble)
            }
        };
        let failed_probe = probe && evidence.is_some_and(Evidence::is_failure);
        let wanted = |trouble: &Trouble| failed_probe || trouble.cause.is_wanted(policy);
        Self { evidence, word, trouble: trouble.filter(wanted) }
    }
}

/// What an answer's head says. A call's status may come behind its messages, and is judged then; that a probed instance
/// began to answer is enough for it.
fn of_head(answered: &Answered, probe: bool) -> (Option<Evidence>, &'static str, Cause) {
    let status = answered.response.status().as_u16();
    match (answered.call, answered.call_status()) {
        (Some(_), Some(ended)) if status == 200 => {
            (Some(grpc::evidence(ended)), if ended == 0 { "2xx" } else { "grpc_status" }, Cause::Grpc(ended))
        }
        (Some(_), None) if status == 200 => (probe.then_some(Evidence::Success), "2xx", Cause::Status(status)),
        _ => (Some(Evidence::of_status(status)), class_word(status), Cause::Status(status)),
    }
}

fn class_word(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
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
