//! Health of one endpoint as a pure state machine: evidence in, state and perhaps a transition out.
//!
//! `snapshot::live` keeps the state in atomics and calls [`step`]; nothing else decides.

pub mod cap;
pub mod check;
pub mod evidence;
pub mod outlier;
pub mod wilson;

use serde::Serialize;

use super::policy::{Eject, WHOLE};
use super::time::{Draw, Millis};
pub use evidence::{Evidence, Streak, Tally};

/// Whether an endpoint may take traffic, as its evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Takes traffic.
    Healthy {
        /// When it became so.
        since: Millis,
    },
    /// Takes none until `until`; from then on it waits to be probed.
    Ejected {
        /// When its time is over.
        until: Millis,
    },
    /// Waits for one request to prove it, or for the next active check.
    Probing {
        /// The permit given last lapses then; at or after it another request may take one.
        permit_until: Millis,
    },
}

/// Everything [`step`] judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state.
    pub state: State,
    /// How many steps the ejection time has been doubled to; 0 before the first ejection. Decays: [`Health::times_at`].
    pub times: u8,
    /// Failures in a row, the evidence at hand included.
    pub streak: Streak,
    /// The sliding window, the evidence at hand included.
    pub window: Tally,
}

/// The most steps that are remembered; 2^15 times any base is past every maximum.
pub const MAX_TIMES: u8 = 15;

impl Health {
    /// A healthy endpoint without history.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self { state: State::Healthy { since: now }, times: 0, streak: Streak::default(), window: Tally::default() }
    }

    /// Ejection steps in force: they fall by one for every `window` spent healthy (Envoy's interval).
    #[must_use]
    pub fn times_at(&self, now: Millis, policy: &Eject) -> u8 {
        match self.state {
            State::Healthy { since } => {
                let fallen = now.since(since) / policy.window.max(1);
                self.times.saturating_sub(u8::try_from(fallen).unwrap_or(u8::MAX))
            }
            State::Ejected { .. } | State::Probing { .. } => self.times,
        }
    }

    /// Whether it is not routable by its evidence.
    #[must_use]
    pub fn is_out(&self) -> bool {
        !matches!(self.state, State::Healthy { .. })
    }
}

/// A change of state, with what an event says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// What happened.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: Millis,
    /// False: `enforce: false`, the state did not change and this is only a report.
    pub enforced: bool,
}

/// What a transition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Kind {
    /// Out of traffic.
    Ejected {
        /// Until then.
        until: Millis,
        /// The how manieth step of the doubling, 1 for the first.
        times: u8,
    },
    /// A request (or check) may prove it.
    Probing,
    /// Back in traffic.
    Readmitted,
    /// The active check's verdict turned to failing.
    CheckFailing,
    /// The active check's verdict turned to passing.
    CheckPassing,
}

/// Why a transition happened, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// So many failures of any kind in a row.
    Consecutive5xx {
        /// How many.
        count: u32,
        /// The last one.
        last: Evidence,
    },
    /// So many 502, 503, 504 and local failures in a row.
    ConsecutiveGatewayFailure {
        /// How many.
        count: u32,
        /// The last one.
        last: Evidence,
    },
    /// So many connect failures, resets and timeouts in a row.
    ConsecutiveLocalOriginFailure {
        /// How many.
        count: u32,
        /// The last one.
        last: Evidence,
    },
    /// "6 of the last 7 failed, the last with 503".
    SuccessRate {
        /// How many failed in the window.
        failed: u32,
        /// Of how many.
        requests: u32,
        /// The last one.
        last: Evidence,
    },
    /// At least that share failed (`failure_percentage`).
    FailurePercentage {
        /// How many failed in the window.
        failed: u32,
        /// Of how many.
        requests: u32,
        /// The last one.
        last: Evidence,
    },
    /// Far below the success rates of the other members of a pool (`stdev_factor`). Shares are parts per million.
    SuccessRateOutlier {
        /// How many failed in the window.
        failed: u32,
        /// Of how many.
        requests: u32,
        /// The mean success rate.
        mean: u32,
        /// The lowest that would have passed.
        threshold: u32,
    },
    /// Far slower than the other members of a pool (`latency_factor`).
    Latency {
        /// How many answers were timed in the window.
        answers: u32,
        /// One in ten took longer; microseconds.
        p90_us: u64,
        /// The pool's median; microseconds.
        median_us: u64,
    },
    /// The probe failed.
    ProbeFailed {
        /// How.
        last: Evidence,
    },
    /// A request proved it.
    ProbeSucceeded,
    /// The active check answered that many times in a row as now.
    Check {
        /// In a row.
        count: u32,
        /// Why the last one failed; `None`: it passed.
        failure: Option<check::Failure>,
    },
    /// Its address or version changed.
    Changed,
    /// An operator asked.
    Operator,
}

/// Judges one piece of evidence that `health` already counts (`streak`, `window`).
///
/// Success readmits whoever is being probed, or whose ejection time is over; failure ejects it again, a step longer.
/// A 429 does neither. While the ejection time runs nothing changes. A healthy endpoint is ejected when a threshold of
/// SEMANTICS.md, *Ejection, passive*, is reached. With `enforce: false` the state stays and the transition is a report.
#[must_use]
pub fn step(
    health: Health,
    evidence: Evidence,
    now: Millis,
    policy: &Eject,
    jitter: Draw,
) -> (Health, Option<Transition>) {
    let on_trial = match health.state {
        State::Healthy { .. } => None,
        State::Ejected { until } => Some(until <= now),
        State::Probing { .. } => Some(true),
    };
    match on_trial {
        Some(false) => (health, None),
        Some(true) if evidence == Evidence::Success => readmit(health, Reason::ProbeSucceeded, now),
        Some(true) if evidence.is_failure() => {
            eject(health, Reason::ProbeFailed { last: evidence }, now, policy, jitter)
        }
        Some(true) => (health, None),
        None if evidence == Evidence::Success => (health, None),
        None => match trip(&health, evidence, policy) {
            Some(reason) => eject(health, reason, now, policy, jitter),
            None => (health, None),
        },
    }
}

/// Back to healthy; the doubling is remembered and decays from now on.
#[must_use]
pub fn readmit(health: Health, reason: Reason, now: Millis) -> (Health, Option<Transition>) {
    if !health.is_out() {
        return (health, None);
    }
    let next = Health { times: health.times, ..Health::new(now) };
    (next, Some(Transition { kind: Kind::Readmitted, reason, at: now, enforced: true }))
}

/// Out for the base time doubled per step, at most the maximum, plus up to 10 % jitter.
#[must_use]
pub fn eject(
    health: Health,
    reason: Reason,
    now: Millis,
    policy: &Eject,
    mut jitter: Draw,
) -> (Health, Option<Transition>) {
    let times = health.times_at(now, policy).saturating_add(1).min(MAX_TIMES);
    let doubled = policy.base_ejection_time.saturating_mul(1 << (times - 1));
    let bounded = doubled.min(policy.max_ejection_time.max(policy.base_ejection_time)).max(1);
    let until = now.plus(bounded.saturating_add(jitter.below(bounded / 10 + 1)));
    let kind = Kind::Ejected { until, times };
    let transition = Transition { kind, reason, at: now, enforced: policy.enforce };
    if !policy.enforce {
        return (health, Some(transition));
    }
    let next = Health { state: State::Ejected { until }, times, ..Health::new(now) };
    (next, Some(transition))
}

/// The threshold that is reached, if any. A 429 counts in the window but not in a row.
fn trip(health: &Health, last: Evidence, policy: &Eject) -> Option<Reason> {
    let reached = |count: u32, threshold: u32| threshold > 0 && count >= threshold.min(Streak::MAX);
    let streak = health.streak;
    if last.is_failure() {
        if reached(streak.any, policy.consecutive_5xx) {
            return Some(Reason::Consecutive5xx { count: streak.any, last });
        }
        if reached(streak.gateway, policy.consecutive_gateway_failure) {
            return Some(Reason::ConsecutiveGatewayFailure { count: streak.gateway, last });
        }
        if reached(streak.local, policy.consecutive_local_origin_failure) {
            return Some(Reason::ConsecutiveLocalOriginFailure { count: streak.local, last });
        }
    }
    let Tally { requests, failed } = health.window;
    if requests < policy.min_requests.max(1) {
        return None;
    }
    let percentage = u64::from(policy.failure_percentage);
    if percentage > 0 && u64::from(failed) * u64::from(WHOLE) >= percentage * u64::from(requests) {
        return Some(Reason::FailurePercentage { failed, requests, last });
    }
    let below = |rate| rate > 0 && wilson::upper_bound_below(requests - failed.min(requests), requests, rate);
    below(policy.success_rate).then_some(Reason::SuccessRate { failed, requests, last })
}

#[cfg(test)]
mod tests;
