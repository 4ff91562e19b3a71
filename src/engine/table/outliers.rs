//! The outliers of a table's pools: who is compared with whom, and over which window.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{FilePools, Pool, Table};
use crate::engine::health::outlier::{Seen, Times, outliers};
use crate::engine::health::{State, Transition};
use crate::engine::policy::Eject;
use crate::engine::snapshot::Endpoint;
use crate::engine::snapshot::answer_times::AnswerCounts;
use crate::engine::time::{Draw, Millis};

/// How often [`Outliers::judge`] wants to be called, in milliseconds.
pub const PERIOD: u64 = 1_000;

/// Readings in a window: it moves in steps of a quarter.
const READINGS: u64 = 4;

/// Compares the members of each pool, for files whose `eject` has `stdev_factor` or `latency_factor`. One owner, off
/// the request path; without such a file it costs a look at each file.
#[derive(Debug, Default)]
pub struct Outliers {
    measured: FxHashMap<u64, Measured>,
    pass: u64,
}

/// The readings of one endpoint's answer times, oldest first.
#[derive(Debug)]
struct Measured {
    readings: VecDeque<(Millis, AnswerCounts)>,
    /// When its health had last changed: what was before an ejection counts no longer after it.
    changed: Millis,
    /// The pass that last saw it.
    pass: u64,
}

impl Outliers {
    /// Judges every member of every pool against the others and moves those that are outliers; gives the transitions
    /// for whoever tells of them. Members that are out already are not compared. An endpoint is in the comparison of
    /// each pool that names it; `any` is compared where a file names no pools.
    pub fn judge(&mut self, table: &Table, now: Millis, mut luck: Draw) -> Vec<(Endpoint, Transition)> {
        self.pass += 1;
        let mut out = Vec::new();
        for (file, pools) in table.router.files.iter().zip(&table.files) {
            if file.eject.stdev_factor == 0 && file.eject.latency_factor == 0 {
                continue;
            }
            for members in compared(pools) {
                let endpoints = members.iter().map(|at| &pools.endpoints()[*at as usize]);
                let healthy: Vec<&Endpoint> =
                    endpoints.filter(|endpoint| matches!(endpoint.live.state(), State::Healthy { .. })).collect();
                let seen: Vec<Seen> = healthy.iter().map(|endpoint| self.seen(endpoint, now, &file.eject)).collect();
                for (at, reason) in outliers(&seen, &file.eject) {
                    let (endpoint, draw) = (healthy[at], Draw(luck.advance()));
                    let Some(transition) = endpoint.live.judge(reason, now, &file.eject, draw) else { continue };
                    self.measured.remove(&endpoint.live.id);
                    out.push((endpoint.clone(), transition));
                }
            }
        }
        let pass = self.pass;
        self.measured.retain(|_, measured| measured.pass == pass);
        out
    }

    fn seen(&mut self, endpoint: &Endpoint, now: Millis, policy: &Eject) -> Seen {
        let tally = endpoint.live.recent(now, policy.window);
        let times = (policy.latency_factor > 0).then(|| self.times(endpoint, now, policy.window)).flatten();
        Seen { tally, times }
    }

    /// The answers of the last window; `None` before it was measured for that long.
    fn times(&mut self, endpoint: &Endpoint, now: Millis, window: u64) -> Option<Times> {
        let live = &endpoint.live;
        let (counts, changed) = (live.answer_times(), live.changed());
        let fresh = || Measured { readings: VecDeque::new(), changed, pass: 0 };
        let measured = self.measured.entry(live.id).or_insert_with(fresh);
        if measured.changed != changed {
            *measured = fresh();
        }
        measured.pass = self.pass;
        let readings = &mut measured.readings;
        if readings.back().is_none_or(|(at, _)| now.since(*at) >= window / READINGS) {
            readings.push_back((now, counts.clone()));
        }
        while readings.get(1).is_some_and(|(at, _)| now.since(*at) >= window) {
            readings.pop_front();
        }
        let (_, before) = readings.front().filter(|(at, _)| now.since(*at) >= window)?;
        let answers = counts.since(before);
        Some(Times { answers: answers.total(), median: answers.percentile(50)?, p90: answers.percentile(90)? })
    }
}

/// The distinct sets of members that are compared: of the named pools, or of `any` where there is no other.
fn compared(pools: &FilePools) -> Vec<&[u32]> {
    let mut sets: Vec<&[u32]> = Vec::new();
    let named = |pool: &&std::sync::Arc<Pool>| &*pool.name != "any";
    for pool in pools.pools.iter().filter(named) {
        if !pool.members.is_empty() && !sets.contains(&&*pool.members) {
            sets.push(&pool.members);
        }
    }
    if !pools.pools.iter().any(|pool| named(&pool)) {
        sets.extend(pools.pools.iter().map(|pool| &*pool.members));
    }
    sets
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::health::{Evidence, Kind, Reason};
    use crate::engine::testing::{instance, service, table};

    fn web(rules: &str, count: u16) -> Table {
        let one = |at: u16| Arc::new(instance("web", &format!("i{at}"), 80 + at, &[("version", "1.2")]));
        table(rules, vec![service("web", (0..count).map(one).collect())]).unwrap()
    }

    fn rules(eject: &str) -> String {
        format!("service: web\npools: {{all: version == 1.2}}\neject: {{{eject}}}\nrules: [{{name: r, to: all}}]\n")
    }

    /// Serves ten requests a second of every endpoint for so many seconds, judging each second.
    fn serve(
        table: &Table,
        outliers: &mut Outliers,
        seconds: std::ops::Range<u64>,
        answer: impl Fn(usize) -> (Evidence, u64),
    ) -> Vec<(String, Transition)> {
        let mut out = Vec::new();
        for second in seconds {
            let now = Millis(second * 1_000);
            for (at, endpoint) in table.endpoints(0).iter().enumerate() {
                for _ in 0..10 {
                    let (evidence, micros) = answer(at);
                    endpoint.live.begin();
                    endpoint.live.time_answer(micros);
                    endpoint.live.record(evidence, now, &table.router.files[0].eject, Draw(1));
                    endpoint.live.end();
                }
            }
            let moved = outliers.judge(table, now, Draw(second));
            out.extend(moved.into_iter().map(|(endpoint, moved)| (endpoint.instance.id.to_string(), moved)));
        }
        out
    }

    #[test]
    fn a_slow_endpoint_is_ejected_after_a_window_and_its_past_is_forgotten_when_it_is_back() {
        let table = web(&rules("latency_factor: 5"), 3);
        let mut outliers = Outliers::default();
        let slow = |at| (Evidence::Success, if at == 1 { 480_000 } else { 22_000 });
        assert!(serve(&table, &mut outliers, 0..10, slow).is_empty(), "not measured for a whole window yet");
        let moved = serve(&table, &mut outliers, 10..12, slow);
        let [(id, transition)] = moved.as_slice() else { panic!("one transition, not {moved:?}") };
        assert_eq!(id, "i1");
        assert!(matches!(transition.kind, Kind::Ejected { .. }) && transition.enforced);
        let Reason::Latency { answers, p90_us, median_us } = transition.reason else { panic!("{transition:?}") };
        assert!(answers >= 90 && p90_us > 400_000 && median_us < 25_000, "{transition:?}");

        table.endpoint(0, 1).live.readmit(Millis(13_000));
        let fast = |_| (Evidence::Success, 22_000);
        assert!(serve(&table, &mut outliers, 13..30, fast).is_empty());
    }

    #[test]
    fn far_below_the_others_is_ejected_and_without_enforcement_told_once_a_window() {
        let bad = |at| (if at == 3 { Evidence::Status(429) } else { Evidence::Success }, 1_000);
        // A 429 does not count in a row.
        let only_stdev = "success_rate: 0%, stdev_factor: 1.9";
        let eight = web(&rules(only_stdev), 8);
        let moved = serve(&eight, &mut Outliers::default(), 0..20, bad);
        let [(id, transition)] = moved.as_slice() else { panic!("one transition, not {moved:?}") };
        assert_eq!(id, "i3");
        assert!(matches!(transition.reason, Reason::SuccessRateOutlier { requests: 100.., .. }), "{transition:?}");

        let reporting = web(&rules(&format!("{only_stdev}, enforce: false")), 8);
        let moved = serve(&reporting, &mut Outliers::default(), 0..25, bad);
        assert!((1..=2).contains(&moved.len()), "{moved:?}");
        assert!(moved.iter().all(|(id, transition)| id == "i3" && !transition.enforced));
        assert!(reporting.endpoint(0, 3).live.available());
    }

    #[test]
    fn nothing_is_measured_where_no_rule_wants_it() {
        let table = web(&rules("consecutive_5xx: 5"), 3);
        let slow = |at| (Evidence::Success, if at == 1 { 480_000 } else { 22_000 });
        let mut outliers = Outliers::default();
        assert!(serve(&table, &mut outliers, 0..15, slow).is_empty());
        assert!(outliers.measured.is_empty());
        assert_eq!(table.endpoint(0, 1).live.answer_times().total(), 0, "the first call starts the measuring");
    }
}
