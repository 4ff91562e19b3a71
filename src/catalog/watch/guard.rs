//! The guard against mass removal (CATALOGS.md E4): when within a few seconds more than a share of the whole catalog
//! would go, although each single answer is trusted, all of it is held back. Pure.

use std::collections::VecDeque;

use super::keeper::Group;
use crate::engine::label::Text;
use crate::engine::time::Millis;

/// When the guard trips.
#[derive(Clone, Copy, Debug)]
pub struct GuardPolicy {
    /// Percent of all instances; 100 or more: never.
    pub percent: u32,
    /// And at least so many.
    pub at_least: usize,
    /// Removals within this time count together, in milliseconds.
    pub within: u64,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self { percent: 50, at_least: 10, within: 5_000 }
    }
}

/// A removal that the guard may take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Which subscription it came from.
    pub part: usize,
    /// The service.
    pub service: Text,
    /// The identity.
    pub id: Text,
    /// What it was.
    pub group: Group,
}

/// The removals of the last few seconds.
#[derive(Debug, Default)]
pub struct Guard {
    recent: VecDeque<(Millis, Removal)>,
    tripped: Option<Millis>,
}

impl Guard {
    /// Notes removals; `left` is what the catalog holds after them. When the guard trips, returns everything that must
    /// be held instead, those of the last seconds that had gone already included. What follows a trip within the same time
    /// belongs to it.
    pub fn note(
        &mut self,
        removals: impl IntoIterator<Item = Removal>,
        left: usize,
        now: Millis,
        policy: GuardPolicy,
    ) -> Vec<Removal> {
        while self.recent.front().is_some_and(|(at, _)| now.since(*at) > policy.within) {
            self.recent.pop_front();
        }
        self.recent.extend(removals.into_iter().map(|removal| (now, removal)));
        if self.tripped.is_some_and(|at| now.since(at) <= policy.within) {
            self.tripped = Some(now);
            return self.recent.drain(..).map(|(_, removal)| removal).collect();
        }
        let gone = self.recent.len();
        let share = gone as u128 * 100 > (left + gone) as u128 * u128::from(policy.percent);
        if gone < policy.at_least || !share || policy.percent >= 100 {
            return Vec::new();
        }
        self.tripped = Some(now);
        self.recent.drain(..).map(|(_, removal)| removal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removals(count: usize) -> Vec<Removal> {
        let one = |n| Removal { part: 0, service: "web".into(), id: format!("{n}").into(), group: Vec::new() };
        (0..count).map(one).collect()
    }

    #[test]
    fn more_than_half_of_the_catalog_within_seconds_is_held_with_what_went_before() {
        let mut guard = Guard::default();
        let policy = GuardPolicy::default();
        assert!(guard.note(removals(6), 14, Millis(0), policy).is_empty());
        assert_eq!(guard.note(removals(5), 9, Millis(4_000), policy).len(), 11);
        assert_eq!(guard.note(removals(1), 19, Millis(9_000), policy).len(), 1, "the rest of the same removal");
        assert!(guard.note(removals(1), 19, Millis(14_001), policy).is_empty(), "it starts afresh");
    }

    #[test]
    fn slow_or_small_or_permitted_removals_pass() {
        let policy = GuardPolicy::default();
        let mut guard = Guard::default();
        assert!(guard.note(removals(6), 14, Millis(0), policy).is_empty());
        assert!(guard.note(removals(6), 8, Millis(5_001), policy).is_empty(), "apart in time");
        assert!(Guard::default().note(removals(9), 0, Millis(0), policy).is_empty(), "fewer than ten");
        assert!(Guard::default().note(removals(10), 10, Millis(0), policy).is_empty(), "exactly half");
        let off = GuardPolicy { percent: 100, ..policy };
        assert!(Guard::default().note(removals(99), 0, Millis(0), off).is_empty());
    }
}
