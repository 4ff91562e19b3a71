//! When each endpoint is checked next. Pure: time and luck are arguments; what the answers mean is the engine's to say.
//!
//! | the endpoint | its next check |
//! |---|---|
//! | seen for the first time | at once |
//! | its last answer contradicts its verdict | after 1 s, or `interval` if that is shorter |
//! | passing, and no request for `idle_interval` | after `idle_interval` |
//! | otherwise | after `interval` divided by the digits of its requests a second (1–9: 1, 10–99: 2, …, at most 5), but not below 1 s, unless `interval` is |
//!
//! Each ± 20 %. Those whose time has come wait for a place, in the order of [`super::turns`]; commands have places of their
//! own, and so have instances whose last check had no answer in time, and those that were never asked: who is silent
//! holds a place for all of the timeout, and however many of a service are, its others are checked when they should be.
//! Starts are paced at a quarter more than all intervals together ask for (at least 1,000 a second), so that neither a
//! first table nor a stall of the process makes a pulse.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::turns::Turns;
use crate::engine::health::check::{Failure, Verdict};
use crate::engine::policy::{Check, Eject, Probe};
use crate::engine::snapshot::Endpoint;
use crate::engine::time::{Draw, Millis};
use crate::engine::upstream::Upstream;

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
    /// How the service's instances are spoken to.
    pub upstream: Arc<Upstream>,
}

/// What a check takes a place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A socket.
    Socket,
    /// A program of this machine.
    Program,
    /// A socket, to an instance whose last check had no answer in time.
    Silent,
    /// A socket, to an instance of which nothing is known yet: it may be silent too.
    First,
}

impl Means {
    const ALL: [Self; 4] = [Self::Socket, Self::Program, Self::Silent, Self::First];

    /// What the next check of this endpoint takes.
    #[must_use]
    pub fn of(Target { endpoint, check, .. }: &Target) -> Self {
        match (&check.probe, endpoint.live.check_failure()) {
            (Probe::Command { .. }, _) => Self::Program,
            (_, Some(Failure::Timeout)) => Self::Silent,
            (_, None) if endpoint.live.verdict() == Verdict::Unknown => Self::First,
            (Probe::Http { .. } | Probe::Tcp { .. } | Probe::Grpc { .. }, _) => Self::Socket,
        }
    }
}

/// The plan of all active checks.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<u64, Entry>,
    /// Whose time has not come yet.
    due: BinaryHeap<Reverse<(Millis, u64)>>,
    /// Whose time has come, by [`Means`].
    turns: [Turns; 4],
    pace: Pace,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// What its next check takes.
    means: Means,
    /// The moment that it is planned for; `None` while a check runs. What is planned for another one is void.
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
                Some(mut entry) => {
                    let means = Means::of(&target);
                    // It waits for a place of the other kind from now on.
                    if entry.means != means && entry.next.is_some() {
                        entry.next = Some(now);
                        self.due.push(Reverse((now, id)));
                    }
                    Entry { target, means, ..entry }
                }
                None => {
                    self.due.push(Reverse((now, id)));
                    let (means, ended) = (Means::of(&target), target.endpoint.live.ended());
                    Entry { target, means, next: Some(now), planned: (now, ended), busy: now }
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

    /// The moment of the next check for which there is `room`, if any is planned.
    #[must_use]
    pub fn next(&self, room: impl Fn(Means) -> bool) -> Option<Millis> {
        let waits = Means::ALL.into_iter().any(|means| room(means) && !self.turns[means as usize].is_empty());
        let planned = self.due.peek().map(|Reverse((at, _))| *at);
        let next = if waits { Some(self.pace.filled) } else { planned };
        next.map(|at| at.max(self.pace.free_at()))
    }

    /// Takes one endpoint whose time has come, whose turn it is and for which there is `room`, with what it takes. It is
    /// planned again, and its place given back, by [`Schedule::finished`].
    pub fn take_due(&mut self, now: Millis, room: impl Fn(Means) -> bool) -> Option<(Means, Target)> {
        self.pace.refill(now);
        self.call(now);
        if self.pace.free_at() > now {
            return None;
        }
        let Self { entries, turns, .. } = self;
        for means in Means::ALL.into_iter().filter(|means| room(*means)) {
            let is_wanted = |(at, id): (Millis, u64)| {
                let entry = entries.get(&id);
                entry.is_some_and(|entry| entry.next == Some(at) && entry.means == means)
            };
            let Some((_, id)) = turns[means as usize].next(is_wanted) else { continue };
            let entry = entries.get_mut(&id)?;
            entry.next = None;
            self.pace.spend();
            return Some((means, entry.target.clone()));
        }
        None
    }

    /// Those whose time has come wait for their turn.
    fn call(&mut self, now: Millis) {
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.due.pop();
            if let Some(Entry { target, means, .. }) = self.entries.get(&id).filter(|entry| entry.next == Some(at)) {
                let turns = &mut self.turns[*means as usize];
                turns.wait(&target.endpoint.instance.service, (at, id));
            }
        }
    }

    /// Gives back the place of a check that has ended, and plans the next one if the endpoint is still checked.
    /// The first pair is as it was taken. `changing`: its last answer contradicts its verdict. The moment of the next one, if this has planned it.
    pub fn finished(
        &mut self,
        (means, target): (Means, &Target),
        changing: bool,
        now: Millis,
        luck: Draw,
    ) -> Option<Millis> {
        let id = target.endpoint.live.id;
        self.turns[means as usize].ended(&target.endpoint.instance.service);
        // Planned already: it was taken out of the plan and put back while its check ran.
        let entry = self.entries.get_mut(&id).filter(|entry| entry.next.is_none())?;
        let gap = entry.gap(changing, now);
        let at = now.plus(jittered(gap, luck));
        (entry.next, entry.means) = (Some(at), Means::of(&entry.target));
        self.due.push(Reverse((at, id)));
        Some(at)
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
