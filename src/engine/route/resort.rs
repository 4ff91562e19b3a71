//! The order of resort (RULES.md): the list or arm at full strength, then at all, then panic, then the two `else`.

use super::decision::{Choice, Decision, Detail, Outcome, Step};
use super::resolved::{PoolState, Resolved};
use super::router::{Action, FileIdx, PoolSlot, RouterFile, RouterRule};
use crate::engine::policy::Panic;
use crate::engine::rules::Else;

/// The next pool of the list, or of the next arm, after one that was tried; only pools with somebody routable.
/// For retries: it ends with the last arm and never comes to panic or `else`.
#[must_use]
pub fn next_choice(table: &impl Resolved, decision: &Decision, after: Choice) -> Option<Choice> {
    let walk = Walk::of(table, decision)?;
    walk.lists(Some(after))
}

/// What is left when a chosen pool proved empty: the next step of the whole order.
#[must_use]
pub fn after_empty(table: &impl Resolved, decision: &Decision, after: Choice) -> Outcome {
    match Walk::of(table, decision) {
        Some(walk) => walk.outcome(Some(after)),
        None => Outcome::Refuse { status: 503, detail: Detail::NoRoutableInstance },
    }
}

/// Every pool of the list or of the arms that stands at or before a choice, in order (without a choice: all of them):
/// what the request *reached*, so that a pool that was passed over because nobody in it is routable still gets its
/// probe.
pub fn reached<'t>(
    table: &'t impl Resolved,
    decision: &'t Decision,
    choice: Option<Choice>,
) -> impl Iterator<Item = PoolSlot> + 't {
    let walk = Walk::of(table, decision);
    let within = choice.and_then(|choice| match choice.step {
        Step::Preferred => Some((choice.turn, choice.place)),
        Step::AtLeastOne => Some((choice.turn, u16::MAX)),
        Step::Panic | Step::RuleElse | Step::FileElse => None,
    });
    walk.into_iter().flat_map(move |walk| {
        (0..walk.turns()).flat_map(move |turn| {
            let list = walk.list(turn);
            list.iter().enumerate().filter_map(move |(place, slot)| {
                let passed = within.is_none_or(|(to_turn, to_place)| {
                    turn < to_turn || (turn == to_turn && place <= usize::from(to_place))
                });
                if passed { walk.variant(*slot) } else { None }
            })
        })
    })
}

/// One decision's lists, and what to do after them.
pub(super) struct Walk<'t, R> {
    pub table: &'t R,
    pub file_idx: FileIdx,
    pub file: &'t RouterFile,
    /// `None`: no rule matched.
    pub rule: Option<&'t RouterRule>,
    pub decision: &'t Decision,
}

impl<R> Clone for Walk<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Walk<'_, R> {}

impl<'t, R: Resolved> Walk<'t, R> {
    pub(super) fn of(table: &'t R, decision: &'t Decision) -> Option<Self> {
        let file_idx = decision.file?;
        let file: &'t RouterFile = table.router().files.get(file_idx as usize)?;
        let rule = decision.rule.and_then(|rule| file.rules.get(rule as usize));
        Some(Self { table, file_idx, file, rule, decision })
    }

    /// The first outcome after a choice, or of all.
    pub(super) fn outcome(&self, after: Option<Choice>) -> Outcome {
        let step = after.map(|choice| choice.step);
        if step <= Some(Step::AtLeastOne)
            && let Some(choice) = self.lists(after)
        {
            return Outcome::Pool(choice);
        }
        if step < Some(Step::Panic)
            && let Some(outcome) = self.panic()
        {
            return outcome;
        }
        let no_rule = if self.rule.is_none() { Detail::NoRule } else { Detail::NoRoutableInstance };
        for (at, fallback, detail) in [
            (Step::RuleElse, self.rule.and_then(|rule| rule.fallback), Detail::NoRoutableInstance),
            (Step::FileElse, self.file.fallback, no_rule),
        ] {
            match fallback {
                Some(Else::Status(status)) if step < Some(at) => return Outcome::Refuse { status, detail },
                Some(Else::Any) if step < Some(at) && self.any().routable > 0 => {
                    let any = self.file.any();
                    return Outcome::Pool(Choice { slot: any, pool: any, step: at, turn: 0, place: 0 });
                }
                _ => {}
            }
        }
        match (self.rule, self.file.fallback) {
            (None, None) => Outcome::Refuse { status: 404, detail: Detail::NoRule },
            _ => Outcome::Refuse { status: 503, detail: Detail::NoRoutableInstance },
        }
    }

    /// The next pool with enough routable, or then with somebody, in this arm; then the arms after it.
    pub(super) fn lists(&self, after: Option<Choice>) -> Option<Choice> {
        let (mut turn, mut step, mut place) = match after {
            None => (0, Step::Preferred, 0),
            Some(choice) if choice.step <= Step::AtLeastOne => (choice.turn, choice.step, choice.place + 1),
            Some(_) => return None,
        };
        while turn < self.turns() {
            let list = self.list(turn);
            while let Some(pool) = list.get(usize::from(place)).copied() {
                if let Some(slot) = self.variant(pool) {
                    let state = self.state(slot);
                    let full = state.routable >= state.min.max(1);
                    if (step == Step::Preferred && full) || (step == Step::AtLeastOne && !full && state.routable > 0) {
                        return Some(Choice { slot, pool, step, turn, place });
                    }
                }
                place += 1;
            }
            place = 0;
            (turn, step) = match step {
                Step::Preferred => (turn, Step::AtLeastOne),
                _ => (turn + 1, Step::Preferred),
            };
        }
        None
    }

    fn panic(&self) -> Option<Outcome> {
        let (pool, panic) = self.rule?.panic?;
        if panic == Panic::Fail {
            return Some(Outcome::Refuse { status: 503, detail: Detail::NoRoutableInstance });
        }
        let slot = self.variant(pool)?;
        let choice = Choice { slot, pool, step: Step::Panic, turn: 0, place: 0 };
        (self.state(slot).open > 0).then_some(Outcome::Pool(choice))
    }

    /// How many lists there are: one, or the arms that take anything.
    pub(super) fn turns(&self) -> u16 {
        match self.rule.map(|rule| &rule.action) {
            Some(Action::To(_)) => 1,
            Some(Action::Split(_)) => self.decision.arms.len() as u16,
            _ => 0,
        }
    }

    pub(super) fn list(&self, turn: u16) -> &'t [PoolSlot] {
        match self.rule.map(|rule| &rule.action) {
            Some(Action::To(list)) => list,
            Some(Action::Split(split)) => {
                self.decision.arms.get(usize::from(turn)).map_or(&[], |arm| &split.arms[usize::from(*arm)].to)
            }
            _ => &[],
        }
    }

    /// The slot that stands for a pool in this request; `None`: a combination of request labels that nobody has.
    pub(super) fn variant(&self, pool: PoolSlot) -> Option<PoolSlot> {
        self.decision.variant(pool)
    }

    pub(super) fn state(&self, slot: PoolSlot) -> PoolState {
        self.table.pool_state(self.file_idx, slot)
    }

    fn any(&self) -> PoolState {
        self.state(self.file.any())
    }
}
