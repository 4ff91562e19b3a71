//! When each endpoint is checked next. Pure: time and luck are arguments; what the answers mean is the engine's to say.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::engine::policy::{Check, Eject};
use crate::engine::snapshot::Endpoint;
use crate::engine::time::{Draw, Millis};

/// While results contradict the verdict, the next check comes this soon (or at `interval`, if that is sooner).
const CHANGING_INTERVAL: u64 = 1_000;

/// One endpoint to be checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Who is checked, and where the answers go.
    pub endpoint: Endpoint,
    /// What is asked, and how often.
    pub check: Arc<Check>,
    /// The service's ejection policy, which the verdict enters by.
    pub eject: Arc<Eject>,
}

/// The plan of all active checks.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<u64, Entry>,
    due: BinaryHeap<Reverse<(Millis, u64)>>,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// The moment it stands in the heap for; `None` while a check runs. An older heap entry is void.
    next: Option<Millis>,
}

impl Schedule {
    /// Takes over the endpoints that are to be checked from now on: new ones are due at once, staying ones keep their
    /// time. Gives those that are not checked any more.
    pub fn reconcile(&mut self, targets: impl IntoIterator<Item = Target>, now: Millis) -> Vec<Target> {
        let mut stale = std::mem::take(&mut self.entries);
        for target in targets {
            let id = target.endpoint.live.id;
            let entry = match stale.remove(&id) {
                Some(entry) => Entry { target, ..entry },
                None => {
                    self.due.push(Reverse((now, id)));
                    Entry { target, next: Some(now) }
                }
            };
            self.entries.insert(id, entry);
        }
        if self.due.len() > 2 * self.entries.len() + 64 {
            self.due = self.entries.iter().filter_map(|(id, entry)| Some(Reverse((entry.next?, *id)))).collect();
        }
        stale.into_values().map(|entry| entry.target).collect()
    }

    /// Whether nothing is checked at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The moment of the next check, if any is planned.
    #[must_use]
    pub fn next(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one endpoint whose time has come; it is planned again when its result arrives.
    pub fn take_due(&mut self, now: Millis) -> Option<Target> {
        while let Some(Reverse((at, id))) = self.due.peek().copied() {
            if at > now {
                return None;
            }
            self.due.pop();
            if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.next == Some(at)) {
                entry.next = None;
                return Some(entry.target.clone());
            }
        }
        None
    }

    /// Plans the next check of an endpoint whose check has ended. `changing`: its last answer contradicts its verdict.
    pub fn finished(&mut self, live_id: u64, changing: bool, now: Millis, luck: Draw) {
        let Some(entry) = self.entries.get_mut(&live_id) else { return };
        let interval = entry.target.check.interval;
        let base = if changing { interval.min(CHANGING_INTERVAL) } else { interval };
        let at = now.plus(jittered(base, luck));
        entry.next = Some(at);
        self.due.push(Reverse((at, live_id)));
    }
}

/// `base` ± 20 %.
fn jittered(base: u64, luck: Draw) -> u64 {
    let spread = base * 2 / 5;
    base - base / 5 + luck.fork(Draw::PICK).below(spread + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{instance, service};

    fn target(id: &str) -> Target {
        let both = ["a", "b"].map(|id| Arc::new(instance("web", id, 80, &[])));
        let web = service("web", both.into());
        let endpoint = web.by_id(id).expect("one of the two").1.clone();
        let check = Check { timeout: 1, ..Check::new(Check::CONNECTS) };
        Target { endpoint, check: Arc::new(check), eject: Arc::new(Eject::default()) }
    }

    fn gap(schedule: &mut Schedule, now: Millis, changing: bool) -> u64 {
        let target = schedule.take_due(now).expect("a check is due");
        schedule.finished(target.endpoint.live.id, changing, now, Draw(now.0));
        schedule.next().expect("planned").since(now)
    }

    #[test]
    fn a_new_endpoint_is_checked_at_once_then_at_its_interval_with_jitter() {
        let mut schedule = Schedule::default();
        schedule.reconcile([target("a")], Millis(100));
        let steady = gap(&mut schedule, Millis(100), false);
        assert!((4_000..=6_000).contains(&steady), "{steady}");
        assert!(schedule.take_due(Millis(100)).is_none());
    }

    #[test]
    fn checks_come_faster_while_the_verdict_is_in_doubt() {
        let mut schedule = Schedule::default();
        schedule.reconcile([target("a")], Millis(0));
        let doubtful = gap(&mut schedule, Millis(0), true);
        assert!((800..=1_200).contains(&doubtful), "{doubtful}");
    }

    #[test]
    fn reconciling_keeps_times_and_forgets_who_is_gone() {
        let (mut schedule, stays, goes) = (Schedule::default(), target("a"), target("b"));
        schedule.reconcile([stays.clone()], Millis(0));
        gap(&mut schedule, Millis(0), false);
        schedule.reconcile([stays.clone(), goes.clone()], Millis(5));
        assert_eq!(schedule.take_due(Millis(5)).expect("the new one").endpoint.instance.id, goes.endpoint.instance.id);
        let gone = schedule.reconcile([stays], Millis(10));
        assert_eq!(gone.iter().map(|target| &*target.endpoint.instance.id).collect::<Vec<_>>(), ["b"]);
        schedule.finished(goes.endpoint.live.id, false, Millis(20), Draw(1));
        assert!(schedule.take_due(Millis(20)).is_none(), "the staying one keeps its time");
        schedule.reconcile([], Millis(30));
        assert!(schedule.is_empty() && schedule.take_due(Millis(100_000)).is_none());
    }
}
