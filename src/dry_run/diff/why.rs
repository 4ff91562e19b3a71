//! Why a request goes elsewhere: because somebody turned a split's knob, which is expected, or because of anything else.

use serde::Serialize;

use crate::engine::label::Text;
use crate::engine::route::{Action, Decision, FileIdx, Outcome, Part, RouterFile, RouterRule, Split};
use crate::engine::table::Table;

/// The reason of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A split's shares changed, and this part moved with them.
    Weights,
    /// A split's epoch was raised: everybody draws afresh.
    Epoch,
    /// A split's shares changed, but this part moved against them: the growing arm does not stand first.
    NotMonotone,
    /// A split's salt or key changed: everybody draws afresh.
    Reshuffled,
    /// The pool has other instances, or gives them other parts.
    Members,
    /// The rule's action names other pools, or became another one.
    Action,
    /// The same rule as before, but nobody is in the pool any more that took it.
    Emptied,
    /// The same rule as before, but another step of its order of resort: a pool gained or lost who is routable.
    Resort,
    /// The rule that matched before is still there, behind one that matches now.
    Shadowed,
    /// The rule that matched before is gone.
    RuleGone,
    /// A rule that was not there matches what none did.
    RuleNew,
    /// A condition changed.
    Condition,
    /// Another file claims the request.
    OtherFile,
}

impl Why {
    /// Whether it is what whoever changed the rules asked for; anything else is a surprise.
    #[must_use]
    pub fn expected(self) -> bool {
        matches!(self, Self::Weights | Self::Epoch)
    }

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Weights => "the split's shares changed",
            Self::Epoch => "the split's epoch was raised",
            Self::NotMonotone => "moved against the split's change: put the arm that grows first",
            Self::Reshuffled => "the split's salt or key changed: every key draws afresh",
            Self::Members => "the pool has other instances, or other weights",
            Self::Action => "the rule's pools or action changed",
            Self::Emptied => "the pool has no instance any more",
            Self::Resort => "another step of the order of resort",
            Self::Shadowed => "the rule before is now shadowed by the one after",
            Self::RuleGone => "the rule before is gone",
            Self::RuleNew => "the rule after is new",
            Self::Condition => "a condition changed",
            Self::OtherFile => "another file claims the request",
        }
    }
}

/// One side of a move.
pub(super) struct Side<'t> {
    pub(super) file: Option<&'t RouterFile>,
    pub(super) part: Part,
    rule: Option<u32>,
    table: &'t Table,
    at: Option<FileIdx>,
}

impl<'t> Side<'t> {
    pub(super) fn new(table: &'t Table, decision: &Decision, part: Part) -> Self {
        let file: Option<&'t RouterFile> = decision.file.map(|file| &*table.router.files[file as usize]);
        Self { file, part, rule: decision.rule, table, at: decision.file }
    }

    pub(super) fn rule(&self) -> Option<&'t RouterRule> {
        Some(&self.file?.rules[self.rule? as usize])
    }

    fn pool(&self) -> Option<&'t Text> {
        match (self.part.outcome, self.file) {
            (Outcome::Pool(choice), Some(file)) => Some(file.pool_name(choice.pool)),
            _ => None,
        }
    }

    /// Whether a pool of this name is here, with nobody in it.
    fn is_empty(&self, pool: &Text) -> bool {
        let Some(at) = self.at else { return false };
        let mut variants = self.table.files[at as usize].pools.iter().filter(|here| here.name == *pool).peekable();
        variants.peek().is_some() && variants.all(|here| here.members.is_empty())
    }
}

/// Why what stopped at `from` stops at `to`.
pub(super) fn why(from: &Side<'_>, to: &Side<'_>) -> Why {
    let (Some(old), Some(new)) = (from.file, to.file) else { return Why::OtherFile };
    if old.service != new.service {
        return Why::OtherFile;
    }
    let at = |file: &RouterFile, name: &Text| file.rules.iter().position(|rule| rule.name == *name);
    match (from.rule(), to.rule()) {
        (None, None) => Why::Resort,
        (Some(a), Some(b)) if a.name == b.name => same_rule(from, to, a, b),
        (None, Some(b)) => at(old, &b.name).map_or(Why::RuleNew, |_| Why::Condition),
        (Some(a), None) => at(new, &a.name).map_or(Why::RuleGone, |_| Why::Condition),
        (Some(a), Some(b)) => match (at(new, &a.name), at(new, &b.name)) {
            (None, _) => Why::RuleGone,
            (Some(a), Some(b)) if b < a => Why::Shadowed,
            _ => Why::Condition,
        },
    }
}

fn same_rule(from: &Side<'_>, to: &Side<'_>, a: &RouterRule, b: &RouterRule) -> Why {
    let within = match from.pool() {
        Some(pool) if Some(pool) == to.pool() => Why::Members,
        Some(pool) if to.is_empty(pool) => Why::Emptied,
        _ => Why::Resort,
    };
    let (Some(old), Some(new)) = (from.file, to.file) else { return Why::OtherFile };
    match (&a.action, &b.action) {
        (Action::To(was), Action::To(is)) => {
            let same = was.iter().map(|pool| old.pool_name(*pool)).eq(is.iter().map(|pool| new.pool_name(*pool)));
            if same { within } else { Why::Action }
        }
        (Action::Split(was), Action::Split(is)) => {
            let arm = |split: &Split, part: Part| part.arm.map(|arm| Text::clone(&split.arms[arm as usize].name));
            match (arm(was, from.part), arm(is, to.part)) {
                (Some(from_arm), Some(to_arm)) if from_arm == to_arm => within,
                (Some(from_arm), Some(to_arm)) => between_arms((was, old), (is, new), &from_arm, &to_arm),
                _ => within,
            }
        }
        _ => Why::Action,
    }
}

fn between_arms(was: (&Split, &RouterFile), is: (&Split, &RouterFile), from: &str, to: &str) -> Why {
    let known = |split: &Split, name: &str| split.arms.iter().any(|arm| &*arm.name == name);
    let (old, new) = (was.0, is.0);
    if !known(new, from) || !known(old, to) {
        return Why::Action;
    }
    let fields = |(split, file): (&Split, &RouterFile)| -> Vec<_> {
        split.key.iter().map(|slot| file.fields.slots[*slot as usize].field.clone()).collect()
    };
    if old.salt != new.salt || fields(was) != fields(is) {
        return Why::Reshuffled;
    }
    if old.epoch != new.epoch {
        return Why::Epoch;
    }
    // Compared as fractions, because totals may differ.
    let share = |split: &Split, other: &Split, name: &str| {
        let weight: u64 = split.arms.iter().filter(|arm| &*arm.name == name).map(|arm| arm.weight).sum();
        u128::from(weight) * u128::from(other.total)
    };
    let change = |name: &str| share(new, old, name).cmp(&share(old, new, name));
    match (change(from), change(to)) {
        (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) if !any_change(old, new) => Why::Resort,
        (from, to) if from.is_gt() || to.is_lt() => Why::NotMonotone,
        _ => Why::Weights,
    }
}

fn any_change(old: &Split, new: &Split) -> bool {
    let shares = |split: &Split, other: &Split| -> Vec<(Text, u128)> {
        let share = |weight: u64| u128::from(weight) * u128::from(other.total);
        split.arms.iter().map(|arm| (Text::clone(&arm.name), share(arm.weight))).collect()
    };
    shares(old, new) != shares(new, old)
}
