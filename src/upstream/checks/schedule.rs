//! When each endpoint is checked next. Pure: time and luck are arguments; what the answers mean is the engine's to say.
//!
//! | the endpoint | its next check |
//! |---|---|
//! | seen for the first time | at once |
//! | its last answer contradicts its verdict | after 1 s, or `interval` if that is shorter |
//! | passing, and no request for `idle_interval` | after `idle_interval` |
//! | otherwise | after `interval` divided by the digits of its requests a second (1–9: 1, 10–99: 2, …, at most 5), but not below 1 s, unless `interval` is |
//!
//! Each ± 20 %. Starts are paced at a quarter more than all intervals together ask for (at least 1,000 a second), so
//! that neither a first table nor a stall of the process makes a pulse.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::engine::health::check::Verdict;
use crate::engine::policy::{Check, Eject};
use crate::engine::snapshot::Endpoint;
use crate::engine::time::{Draw, Millis};

/// While results contradict the verdict, and under load, the next check comes this soon at the earliest (or at
/// `interval`, if that is sooner).
const SHORTEST: u64 = 1_000;
/// An endpoint is checked at most this many times as often as `interval` says.
const MOST_OFTEN: u64 = 5;
/// Checks a second that are always allowed to start.
const LEAST_RATE: u64 = 1_000;
/// Checks that may start together.
const LEAST_BURST: u64 = 64;

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
    pace: Pace,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// The moment it stands in the heap for; `None` while a check runs. An older heap entry is void.
    next: Option<Millis>,
    /// When it was planned last, and how many requests had ended by then.
    planned: (Millis, u32),
    /// When it was last seen with a request.
    busy: Millis,
}

impl Schedule {
    /// Takes over the endpoints that are to be checked from now on: new ones are due at once, staying ones keep their
    /// time. Gives those that are not checked any more.
    pub fn reconcile(&mut self, targets: impl IntoIterator<Item = Target>, now: Millis) -> Vec<Target> {
        let mut stale = std::mem::take(&mut self.entries);
        for target in targets {
            let id = target.endpoint.live.id;
            // Two files may be for one service; the instance is checked once.
            if self.entries.contains_key(&id) {
                continue;
            }
            let entry = match stale.remove(&id) {
                Some(entry) => Entry { target, ..entry },
                None => {
                    self.due.push(Reverse((now, id)));
                    Entry { next: Some(now), planned: (now, target.endpoint.live.ended()), busy: now, target }
                }
            };
            self.entries.insert(id, entry);
        }
        if self.due.len() > 2 * self.entries.len() + 64 {
            self.due = self.entries.iter().filter_map(|(id, entry)| Some(Reverse((entry.next?, *id)))).collect();
        }
        self.pace.follow(self.entries.values().map(|entry| entry.target.check.interval), now);
        stale.into_values().map(|entry| entry.target).collect()
    }

    /// Whether an endpoint is checked.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether nothing is checked at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The moment of the next check, if any is planned.
    #[must_use]
    pub fn next(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((at, _))| (*at).max(self.pace.free_at()))
    }

    /// Takes one endpoint whose time has come; it is planned again when its result arrives.
    pub fn take_due(&mut self, now: Millis) -> Option<Target> {
        self.pace.refill(now);
        while let Some(Reverse((at, id))) = self.due.peek().copied() {
            if at > now || self.pace.free_at() > now {
                return None;
            }
            self.due.pop();
            if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.next == Some(at)) {
                entry.next = None;
                self.pace.spend();
                return Some(entry.target.clone());
            }
        }
        None
    }

    /// Plans the next check of an endpoint whose check has ended. `changing`: its last answer contradicts its verdict.
    pub fn finished(&mut self, live_id: u64, changing: bool, now: Millis, luck: Draw) {
        let Some(entry) = self.entries.get_mut(&live_id) else { return };
        let gap = entry.gap(changing, now);
        let at = now.plus(jittered(gap, luck));
        entry.next = Some(at);
        self.due.push(Reverse((at, live_id)));
    }
}

impl Entry {
    /// Until the next check, before jitter.
    fn gap(&mut self, changing: bool, now: Millis) -> u64 {
        let Target { endpoint, check, .. } = &self.target;
        let ended = endpoint.live.ended();
        let (since, before) = std::mem::replace(&mut self.planned, (now, ended));
        let requests = u64::from(ended.wrapping_sub(before));
        if requests > 0 || endpoint.live.in_flight() > 0 {
            self.busy = now;
        }
        let shortest = check.interval.min(SHORTEST);
        if changing {
            return shortest;
        }
        if endpoint.live.verdict() == Verdict::Passing && now.since(self.busy) >= check.idle_interval {
            return check.idle_interval;
        }
        let per_second = requests * 1_000 / now.since(since).max(1);
        let digits = u64::from(per_second.max(1).ilog10() + 1).min(MOST_OFTEN);
        (check.interval / digits).max(shortest)
    }
}

/// How fast checks may start: a token bucket, in thousandths of a check.
#[derive(Debug, Default)]
struct Pace {
    /// Checks a second.
    rate: u64,
    tokens: u64,
    filled: Millis,
}

impl Pace {
    /// A quarter more than these intervals ask for.
    fn follow(&mut self, intervals: impl Iterator<Item = u64>, now: Millis) {
        let asked: u64 = intervals.map(|interval| 1_000_000 / interval.max(1)).sum();
        let rate = (asked / 800).max(LEAST_RATE);
        if self.rate == 0 {
            (self.tokens, self.filled) = (LEAST_BURST * 1_000, now);
        }
        self.rate = rate;
    }

    fn refill(&mut self, now: Millis) {
        // A twentieth of a second's worth may start together.
        let most = (self.rate * 50).max(LEAST_BURST * 1_000);
        self.tokens = self.tokens.saturating_add(now.since(self.filled).saturating_mul(self.rate)).min(most);
        self.filled = self.filled.max(now);
    }

    /// When the next one may start.
    fn free_at(&self) -> Millis {
        self.filled.plus(1_000u64.saturating_sub(self.tokens).div_ceil(self.rate.max(1)))
    }

    fn spend(&mut self) {
        self.tokens = self.tokens.saturating_sub(1_000);
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

    #[test]
    fn a_busy_endpoint_is_checked_more_often_and_an_idle_one_less() {
        let (mut schedule, one) = (Schedule::default(), target("a"));
        let live = Arc::clone(&one.endpoint.live);
        live.record_check(Ok(()), Millis(0), &one.check, &Eject::default(), Draw(1));
        schedule.reconcile([one], Millis(0));
        let mut now = Millis(0);
        let serve = |per_second: u64, now: &mut Millis, schedule: &mut Schedule| {
            let wait = gap(schedule, *now, false);
            (0..per_second * wait / 1_000).for_each(|_| {
                live.begin();
                live.end();
            });
            *now = now.plus(wait);
            wait
        };
        serve(250, &mut now, &mut schedule);
        let busy = serve(250, &mut now, &mut schedule);
        assert!((1_333..=2_000).contains(&busy), "5 s by three digits: {busy}");
        serve(0, &mut now, &mut schedule);
        let quiet = serve(0, &mut now, &mut schedule);
        assert!((4_000..=6_000).contains(&quiet), "not idle for long enough: {quiet}");
        let waits: Vec<u64> = (0..20).map(|_| serve(0, &mut now, &mut schedule)).collect();
        assert!((48_000..=72_000).contains(waits.last().unwrap()), "{waits:?}");
    }

    #[test]
    fn fifty_thousand_endpoints_are_checked_evenly_and_never_many_at_once() {
        const COUNT: usize = 50_000;
        const TOOK: u64 = 20;
        let instances = (0..COUNT).map(|at| Arc::new(instance("web", &format!("i{at:05}"), 80, &[]))).collect();
        let web = service("web", instances);
        let check = Arc::new(Check { interval: 10_000, idle_interval: 10_000, ..Check::new(Check::CONNECTS) });
        let eject = Arc::new(Eject::default());
        let target = |endpoint: &Endpoint| Target {
            endpoint: endpoint.clone(),
            check: Arc::clone(&check),
            eject: Arc::clone(&eject),
        };
        let mut schedule = Schedule::default();
        schedule.reconcile(web.endpoints.iter().map(target), Millis(0));
        let mut running = std::collections::VecDeque::new();
        let mut started = [0usize; 600];
        let (mut most, mut last) = (0, HashMap::<u64, u64>::new());
        let mut longest = 0;
        for now in 0..60_000u64 {
            while running.front().is_some_and(|(ends, _)| *ends <= now) {
                let (_, id) = running.pop_front().unwrap();
                schedule.finished(id, false, Millis(now), Draw(now ^ id << 20));
            }
            while let Some(due) = schedule.take_due(Millis(now)) {
                let id = due.endpoint.live.id;
                running.push_back((now + TOOK, id));
                longest = longest.max(last.insert(id, now).map_or(now, |before| now - before));
                started[now as usize / 100] += 1;
            }
            most = most.max(running.len());
        }
        assert_eq!(last.len(), COUNT, "each was checked");
        assert!(longest <= 13_000, "the longest wait was {longest} ms");
        assert!(most <= 450, "{most} at once");
        let steady = &started[300..];
        let (least, peak) = (steady.iter().min().unwrap(), steady.iter().max().unwrap());
        assert!(*least >= 330 && *peak <= 700, "between {least} and {peak} in a tenth of a second, on average 500");
    }
}
