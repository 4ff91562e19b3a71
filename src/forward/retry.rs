//! Whether a request may be tried again: what is safe, what the policy wants, what the budget allows.

use std::cell::{Cell, RefCell};

use super::error::Detail;
use crate::engine::policy::{Retry, WHOLE};
use crate::engine::time::{Draw, Millis};

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

/// Back-off before a try: none before the first retry to another endpoint, then 25 ms doubling to 250 ms, full jitter.
#[must_use]
pub fn backoff(attempts: u32, mut draw: Draw) -> u64 {
    match attempts {
        0 | 1 => 0,
        _ => draw.below((25u64 << (attempts - 2).min(4)).min(250) + 1),
    }
}

/// Seconds of the window.
const WINDOW: usize = 10;
/// Retries a second that are always allowed.
const FLOOR_PER_SECOND: u64 = 3;
/// Retries in a window that are always allowed.
const LEAST: u64 = 50;

/// A service's retry budget, one worker's share: over 10 s, a share of its requests plus 3 a second, at least 50.
#[derive(Debug)]
pub struct Budget {
    workers: u64,
    second: Cell<u64>,
    /// (requests, retries) of each second.
    slots: RefCell<[(u32, u32); WINDOW]>,
    /// Their sums.
    sums: Cell<(u64, u64)>,
}

impl Budget {
    /// An unused budget of a process with so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1) as u64,
            second: Cell::new(0),
            slots: RefCell::default(),
            sums: Cell::new((0, 0)),
        }
    }

    /// Counts a request.
    pub fn request(&self, now: Millis) {
        let at = self.turn(now);
        self.slots.borrow_mut()[at].0 += 1;
        let (requests, retries) = self.sums.get();
        self.sums.set((requests + 1, retries));
    }

    /// Takes one retry, if it is within the budget. `share`: parts per million of requests.
    pub fn take(&self, now: Millis, share: u32) -> bool {
        let at = self.turn(now);
        let (requests, retries) = self.sums.get();
        let earned = requests * u64::from(share) / u64::from(WHOLE);
        let allowed = (earned + FLOOR_PER_SECOND * WINDOW as u64 / self.workers).max(LEAST / self.workers).max(1);
        if retries >= allowed {
            return false;
        }
        self.slots.borrow_mut()[at].1 += 1;
        self.sums.set((requests, retries + 1));
        true
    }

    /// Forgets the seconds that left the window; the slot of this second.
    fn turn(&self, now: Millis) -> usize {
        let second = now.0 / 1_000;
        let before = self.second.replace(second);
        for gone in 1..=second.saturating_sub(before).min(WINDOW as u64) {
            let slot = &mut self.slots.borrow_mut()[((before + gone) % WINDOW as u64) as usize];
            let (requests, retries) = self.sums.get();
            self.sums.set((requests - u64::from(slot.0), retries - u64::from(slot.1)));
            *slot = (0, 0);
        }
        (second % WINDOW as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(budget: &Budget, now: Millis) -> usize {
        (0..10_000).take_while(|_| budget.take(now, 200_000)).count()
    }

    #[test]
    fn a_budget_is_a_share_of_requests_with_a_floor() {
        let budget = Budget::new(1);
        assert_eq!(granted(&budget, Millis(0)), 50);
        let budget = Budget::new(1);
        (0..1_000).for_each(|_| budget.request(Millis(500)));
        assert_eq!(granted(&budget, Millis(900)), 230);
        assert!(!budget.take(Millis(9_999), 200_000));
        assert_eq!(granted(&budget, Millis(10_000)), 50, "the window has passed");
    }

    #[test]
    fn workers_share_the_floor() {
        assert_eq!(granted(&Budget::new(10), Millis(3)), 5);
    }

    #[test]
    fn the_first_retry_is_at_once_and_later_ones_wait_longer() {
        assert_eq!(backoff(1, Draw(7)), 0);
        for seed in 0..100 {
            assert!(backoff(2, Draw(seed)) <= 25);
            assert!(backoff(9, Draw(seed)) <= 250);
        }
    }
}
