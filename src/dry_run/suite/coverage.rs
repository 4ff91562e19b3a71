//! What the cases reach: rules, both answers of each condition, arms, and the steps of the order of resort.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::Judged;
use crate::engine::route::reader::Reader;
use crate::engine::route::{Action, Outcome, PoolSlot, Router, RouterFile, RouterRule, RuleIdx, Step};
use crate::engine::rules::Else;
use crate::engine::trace::Trace;

/// Something that a case can reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// The rule file.
    pub file: String,
    /// The rule; `None`: the file's own `else`.
    pub rule: Option<String>,
    /// What of it.
    pub kind: Kind,
    /// Which: `true` or `false` of a condition, the name of an arm, of a pool, or `else`.
    pub which: String,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A rule decided.
    Rule,
    /// A `when` was true, was false.
    Condition,
    /// An arm of a split took requests, or its share was looked at.
    Arm,
    /// A pool stood in for the one before it; panic; `else`.
    Fallback,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rule, Self::Condition, Self::Arm, Self::Fallback];

    /// The word for several.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Rule => "rules",
            Self::Condition => "conditions",
            Self::Arm => "arms",
            Self::Fallback => "fallbacks",
        }
    }
}

/// All items, and whether a case reached them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage(BTreeMap<Item, bool>);

impl Coverage {
    /// Covered and all, of one kind or of all kinds.
    #[must_use]
    pub fn count(&self, kind: Option<Kind>) -> (usize, usize) {
        let of_kind = || self.0.iter().filter(|(item, _)| kind.is_none_or(|kind| item.kind == kind));
        (of_kind().filter(|(_, covered)| **covered).count(), of_kind().count())
    }

    /// The part of all items that is covered, from 0 to 1. Nothing to cover is covered.
    #[must_use]
    pub fn overall(&self) -> f64 {
        match self.count(None) {
            (_, 0) => 1.0,
            (covered, all) => covered as f64 / all as f64,
        }
    }

    /// What no case reached.
    pub fn missing(&self) -> impl Iterator<Item = &Item> {
        self.0.iter().filter(|(_, covered)| !**covered).map(|(item, _)| item)
    }

    /// Adds what a router's rules have to be covered.
    pub(super) fn know(&mut self, router: &Router) {
        for file in &router.files {
            for (at, rule) in file.rules.iter().enumerate() {
                self.item(file, Some(rule), Kind::Rule, "", false);
                if file.ruleset.rules[at].when.is_some() {
                    self.item(file, Some(rule), Kind::Condition, "true", false);
                    self.item(file, Some(rule), Kind::Condition, "false", false);
                }
                if let Action::Split(split) = &rule.action {
                    let live = split.arms.iter().filter(|arm| arm.weight > 0);
                    live.for_each(|arm| self.item(file, Some(rule), Kind::Arm, &arm.name, false));
                }
                let behind = lists(rule).flat_map(|list| list.iter().skip(1));
                behind.for_each(|pool| self.item(file, Some(rule), Kind::Fallback, file.pool_name(*pool), false));
                if rule.panic.is_some() {
                    self.item(file, Some(rule), Kind::Fallback, PANIC, false);
                }
                if rule.fallback.is_some() {
                    self.item(file, Some(rule), Kind::Fallback, ELSE, false);
                }
            }
            if file.fallback.is_some() {
                self.item(file, None, Kind::Fallback, ELSE, false);
            }
        }
    }

    /// Notes what a case reached. `shares`: it looks at the shares, so at all arms.
    pub(super) fn note(&mut self, judged: &Judged<'_>, watch: &Watch, shares: bool) {
        let Some(file) = judged.file else { return };
        for (rule, holds) in &watch.0 {
            let rule = &file.rules[*rule as usize];
            self.reach(file, Some(rule), Kind::Condition, if *holds { "true" } else { "false" });
        }
        let rule = judged.decision.rule.map(|rule| &file.rules[rule as usize]);
        if let Some(rule) = rule {
            self.reach(file, Some(rule), Kind::Rule, "");
        }
        let spread = if shares { &judged.everybody } else { &judged.here };
        if !shares && spread.parts.len() > 1 {
            return;
        }
        for part in &spread.parts {
            if let (Some(Action::Split(split)), Some(arm)) = (rule.map(|rule| &rule.action), part.arm) {
                self.reach(file, rule, Kind::Arm, &split.arms[arm as usize].name);
            }
            let step = match part.outcome {
                Outcome::Pool(choice) => match choice.step {
                    Step::Preferred | Step::AtLeastOne => Some((rule, &**file.pool_name(choice.pool))),
                    Step::Panic => Some((rule, PANIC)),
                    Step::RuleElse => Some((rule, ELSE)),
                    Step::FileElse => Some((None, ELSE)),
                },
                Outcome::Refuse { .. } => match rule.and_then(|rule| rule.fallback) {
                    Some(Else::Status(_)) => Some((rule, ELSE)),
                    _ => Some((None, ELSE)),
                },
                Outcome::Redirect | Outcome::Respond => None,
            };
            if let Some((rule, which)) = step {
                self.reach(file, rule, Kind::Fallback, which);
            }
        }
    }

    /// Only what is known can be reached: the first pool of a list is no fallback.
    fn reach(&mut self, file: &RouterFile, rule: Option<&RouterRule>, kind: Kind, which: &str) {
        if let Some(covered) = self.0.get_mut(&item(file, rule, kind, which)) {
            *covered = true;
        }
    }

    fn item(&mut self, file: &RouterFile, rule: Option<&RouterRule>, kind: Kind, which: &str, covered: bool) {
        self.0.entry(item(file, rule, kind, which)).or_insert(covered);
    }
}

const ELSE: &str = "else";
const PANIC: &str = "panic";

fn item(file: &RouterFile, rule: Option<&RouterRule>, kind: Kind, which: &str) -> Item {
    let file = file.ruleset.source.name.clone();
    Item { file, rule: rule.map(|rule| rule.name.to_string()), kind, which: which.to_owned() }
}

fn lists(rule: &RouterRule) -> impl Iterator<Item = &[PoolSlot]> {
    let (to, arms) = match &rule.action {
        Action::To(list) => (Some(list.as_slice()), &[][..]),
        Action::Split(split) => (None, &split.arms[..]),
        Action::Redirect { .. } | Action::Respond { .. } => (None, &[][..]),
    };
    to.into_iter().chain(arms.iter().filter(|arm| arm.weight > 0).map(|arm| arm.to.as_slice()))
}

/// Which rules were asked, and what they said.
#[derive(Debug, Default)]
pub(super) struct Watch(Vec<(RuleIdx, bool)>);

impl Trace for Watch {
    const ENABLED: bool = true;

    fn rule(&mut self, _file: &RouterFile, rule: RuleIdx, tried: bool, holds: bool, _reader: &mut Reader<'_, '_>) {
        if tried {
            self.0.push((rule, holds));
        }
    }
}
