//! The word of a [`super::Live`]: everything that decides whether an endpoint may take traffic, in 64 bits.

use crate::engine::health::check::Verdict;
use crate::engine::health::{Health, State, Streak, Tally};
use crate::engine::time::Millis;

const EJECTED: u64 = 1;
const PROBING: u64 = 1 << 1;
/// Out by evidence.
pub(super) const OUT: u64 = EJECTED | PROBING;
/// Out by an operator.
pub(super) const DRAINED: u64 = 1 << 2;
/// Out by the active check.
pub(super) const CHECK_FAILING: u64 = 1 << 3;
/// Out until the active check's first pass.
pub(super) const AWAITING: u64 = 1 << 4;
/// Any of them.
pub(super) const UNAVAILABLE: u64 = OUT | DRAINED | CHECK_FAILING | AWAITING;
const CHECK_PASSING: u64 = 1 << 5;
/// Out by evidence, and any request may prove it, also one that cannot be repeated.
pub(super) const OPEN: u64 = 1 << 6;
const TIMES: u32 = 8;
const TIMES_MASK: u64 = 0xF << TIMES;
/// A moment in milliseconds, 52 bits: 140,000 years.
const MOMENT: u32 = 12;

/// Flags, steps of ejection, and one moment: since when healthy, until when ejected, or when the permit lapses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    pub(super) fn state(self) -> State {
        let moment = Millis(self.0 >> MOMENT);
        match self.0 & OUT {
            0 => State::Healthy { since: moment },
            EJECTED => State::Ejected { until: moment },
            _ => State::Probing { permit_until: moment },
        }
    }

    pub(super) fn with_state(self, state: State, times: u8) -> Self {
        let (flag, moment) = match state {
            State::Healthy { since } => (0, since),
            State::Ejected { until } => (EJECTED, until),
            State::Probing { permit_until } => (PROBING, permit_until),
        };
        let kept = self.0 & ((1 << MOMENT) - 1) & !OUT & !TIMES_MASK;
        let kept = if flag == PROBING { kept } else { kept & !OPEN };
        let moment = moment.0.min(u64::MAX >> MOMENT);
        Self(kept | flag | u64::from(times.min(15)) << TIMES | moment << MOMENT)
    }

    pub(super) fn times(self) -> u8 {
        ((self.0 & TIMES_MASK) >> TIMES) as u8
    }

    pub(super) fn verdict(self) -> Verdict {
        match self.0 & (CHECK_FAILING | CHECK_PASSING) {
            0 => Verdict::Unknown,
            CHECK_PASSING => Verdict::Passing,
            _ => Verdict::Failing,
        }
    }

    /// A pass also ends the wait for it.
    pub(super) fn with_verdict(self, verdict: Verdict) -> Self {
        let kept = self.0 & !(CHECK_FAILING | CHECK_PASSING);
        Self(match verdict {
            Verdict::Unknown => kept,
            Verdict::Passing => kept & !AWAITING | CHECK_PASSING,
            Verdict::Failing => kept | CHECK_FAILING,
        })
    }

    pub(super) fn health(self, streak: Streak, window: Tally) -> Health {
        Health { state: self.state(), times: self.times(), streak, window }
    }

    pub(super) fn wants_probe(self, now: Millis) -> bool {
        let due = match self.state() {
            State::Healthy { .. } => false,
            State::Ejected { until } => until <= now,
            State::Probing { permit_until } => permit_until <= now,
        };
        due && self.0 & (UNAVAILABLE & !OUT) == 0
    }
}
