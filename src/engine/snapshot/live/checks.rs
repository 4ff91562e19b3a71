//! What active checks say of an endpoint.

use std::sync::atomic::Ordering::Relaxed;

use super::super::word::{AWAITING, CHECK_FAILING, Word};
use super::Live;
use crate::engine::health::check::{self, CheckState, Failure, Verdict};
use crate::engine::health::{self, Kind, Reason, State, Streak, Tally, Transition};
use crate::engine::policy::{Check, Eject};
use crate::engine::time::{Draw, Millis};

impl Live {
    /// The active check's verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.word().verdict()
    }

    /// Why the active check failed last; `None`: it passed since, or there is none.
    #[must_use]
    pub fn check_failure(&self) -> Option<Failure> {
        Failure::unpack(self.check_failure.load(Relaxed))
    }

    /// Whether it waits for its first passing check (`hold_new`).
    #[must_use]
    pub fn awaits_check(&self) -> bool {
        self.word.load(Relaxed) & AWAITING != 0
    }

    /// Not routable before the first pass of the active check, unless it passed already. True when that changed.
    pub fn set_awaits_check(&self, awaits: bool) -> bool {
        self.set_bit(AWAITING, awaits && self.verdict() != Verdict::Passing)
    }

    /// Takes one answer of the active check. A pass also ends probing, and, with `check_readmits`, an ejection before
    /// its time; a failure while probing ejects again. Returns the transition that this caller won; the verdict's own
    /// change comes first.
    pub fn record_check(
        &self,
        answer: Result<(), Failure>,
        now: Millis,
        check: &Check,
        policy: &Eject,
        jitter: Draw,
    ) -> Option<Transition> {
        let (passed, failure) = (answer.is_ok(), answer.err());
        self.check_failure.store(failure.map_or(0, Failure::pack), Relaxed);
        let turned = self.turn_verdict(failure, now, check);
        let count = if passed { check.rise } else { check.fall };
        let reason = Reason::Check { count, failure };
        let judged = self.change(|word| {
            let health = word.health(Streak::default(), Tally::default());
            match health.state {
                State::Probing { .. } if passed => health::readmit(health, reason, now),
                State::Probing { .. } => health::eject(health, reason, now, policy, jitter),
                State::Ejected { until } if passed && (check.check_readmits || until <= now) => {
                    health::readmit(health, reason, now)
                }
                State::Ejected { .. } | State::Healthy { .. } => (health, None),
            }
        });
        turned.or(judged)
    }

    /// Nobody checks it actively any more: the last verdict counts no longer, nor does the wait for a first pass. True
    /// when that brings it back into traffic.
    pub fn forget_verdict(&self) -> bool {
        self.check_against.store(0, Relaxed);
        loop {
            let word = self.word();
            let next = Word(word.with_verdict(Verdict::Unknown).0 & !AWAITING);
            if next == word {
                return false;
            }
            if self.swap(word, next) {
                self.check_failure.store(0, Relaxed);
                return word.0 & (CHECK_FAILING | AWAITING) != 0;
            }
        }
    }

    fn turn_verdict(&self, failure: Option<Failure>, now: Millis, check: &Check) -> Option<Transition> {
        let passed = failure.is_none();
        loop {
            let word = self.word();
            let against = self.check_against.load(Relaxed);
            let state = check::step(CheckState { verdict: word.verdict(), against }, passed, check.rise, check.fall);
            let next = word.with_verdict(state.verdict);
            if next != word && !self.swap(word, next) {
                continue;
            }
            self.check_against.store(state.against, Relaxed);
            let kind = match state.verdict {
                Verdict::Failing => Kind::CheckFailing,
                Verdict::Passing | Verdict::Unknown => Kind::CheckPassing,
            };
            let count = if passed { check.rise } else { check.fall };
            let transition = Transition { kind, reason: Reason::Check { count, failure }, at: now, enforced: true };
            return (next != word).then_some(transition);
        }
    }
}
