//! Outliers: who does much worse than the other members of a pool. Judged off the request path, over a window.

use super::{Reason, Tally};
use crate::engine::policy::{Eject, WHOLE};

/// Endpoints that must have [`STDEV_REQUESTS`] before a standard deviation means anything (Envoy's
/// `success_rate_minimum_hosts`).
pub const STDEV_ENDPOINTS: usize = 5;
/// Requests of each of them in the window (Envoy's `success_rate_request_volume`).
pub const STDEV_REQUESTS: u32 = 100;
/// Answers in the window below which a p90 is chance: at least two of them have to be slow.
pub const LATENCY_ANSWERS: u32 = 20;

/// One member's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests and failures.
    pub tally: Tally,
    /// Its answers' times; `None` where they were not measured for a whole window.
    pub times: Option<Times>,
}

/// How long a member's answers took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many answers.
    pub answers: u32,
    /// Half took longer; microseconds.
    pub median: u64,
    /// One in ten took longer; microseconds.
    pub p90: u64,
}

/// The members that are outliers, and why; each once.
#[must_use]
pub fn outliers(members: &[Seen], policy: &Eject) -> Vec<(usize, Reason)> {
    let mut found = by_success_rate(members, policy);
    for (at, reason) in by_latency(members, policy) {
        if !found.iter().any(|(other, _)| *other == at) {
            found.push((at, reason));
        }
    }
    found
}

/// Success rates below the mean less `stdev_factor` standard deviations, of the members with enough requests (Envoy,
/// "outlier detection", success rate).
fn by_success_rate(members: &[Seen], policy: &Eject) -> Vec<(usize, Reason)> {
    let judged: Vec<(usize, f64)> = members
        .iter()
        .enumerate()
        .filter(|(_, seen)| seen.tally.requests >= STDEV_REQUESTS)
        .map(|(at, seen)| (at, 1.0 - f64::from(seen.tally.failed) / f64::from(seen.tally.requests)))
        .collect();
    if policy.stdev_factor == 0 || judged.len() < STDEV_ENDPOINTS {
        return Vec::new();
    }
    let count = judged.len() as f64;
    let mean = judged.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = judged.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - variance.sqrt() * f64::from(policy.stdev_factor) / 1_000.0;
    let ppm = |rate: f64| (rate.max(0.0) * f64::from(WHOLE)).round() as u32;
    let below = judged.into_iter().filter(|(_, rate)| *rate < threshold);
    below
        .map(|(at, _)| {
            let Tally { requests, failed } = members[at].tally;
            (at, Reason::SuccessRateOutlier { failed, requests, mean: ppm(mean), threshold: ppm(threshold) })
        })
        .collect()
}

/// A p90 above `latency_factor` times the pool's median: the lower middle one of the members' medians, so that of two
/// the faster one is the measure, and so that it stays where it is until most of the pool is slow.
fn by_latency(members: &[Seen], policy: &Eject) -> Vec<(usize, Reason)> {
    let enough = LATENCY_ANSWERS.max(policy.min_requests);
    let times = |seen: &Seen| seen.times.filter(|times| times.answers >= enough);
    let mut medians: Vec<u64> = members.iter().filter_map(times).map(|times| times.median).collect();
    if policy.latency_factor == 0 || medians.len() < 2 {
        return Vec::new();
    }
    medians.sort_unstable();
    let median = medians[(medians.len() - 1) / 2];
    let limit = u128::from(median) * u128::from(policy.latency_factor) / 1_000;
    let slow = members.iter().enumerate().filter_map(|(at, seen)| Some((at, times(seen)?)));
    slow.filter(|(_, times)| u128::from(times.p90) > limit)
        .map(|(at, times)| (at, Reason::Latency { answers: times.answers, p90_us: times.p90, median_us: median }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(failed: u32, requests: u32) -> Seen {
        Seen { tally: Tally { requests, failed }, times: None }
    }

    fn timed(answers: u32, median: u64, p90: u64) -> Seen {
        Seen { tally: Tally::default(), times: Some(Times { answers, median, p90 }) }
    }

    fn who(members: &[Seen], policy: &Eject) -> Vec<usize> {
        outliers(members, policy).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn one_far_below_the_mean_of_at_least_five_busy_ones_is_an_outlier() {
        let policy = Eject { stdev_factor: 1_900, ..Eject::default() };
        let mut members = vec![failing(2, 200); 9];
        members.push(failing(60, 200));
        let found = outliers(&members, &policy);
        let reason = Reason::SuccessRateOutlier { failed: 60, requests: 200, mean: 961_000, threshold: 795_700 };
        assert_eq!(found, [(9, reason)]);
        assert!(who(&members, &Eject::default()).is_empty(), "off unless asked for");
        assert!(who(&members[6..], &policy).is_empty(), "four are too few");
        members[9] = failing(30, 99);
        assert!(who(&members, &policy).is_empty(), "99 requests are too few");
        assert!(who(&vec![failing(20, 200); 10], &policy).is_empty(), "all alike");
    }

    #[test]
    fn a_slow_one_is_an_outlier_beside_a_faster_one_but_not_alone_and_not_when_most_are_slow() {
        let policy = Eject { latency_factor: 5_000, ..Eject::default() };
        let (fast, slow) = (timed(100, 22_000, 40_000), timed(100, 400_000, 480_000));
        let reason = Reason::Latency { answers: 100, p90_us: 480_000, median_us: 22_000 };
        assert_eq!(outliers(&[fast, slow], &policy), [(1, reason)]);
        assert_eq!(who(&[fast, fast, slow, fast], &policy), [2]);
        assert!(who(&[slow], &policy).is_empty());
        assert!(who(&[slow, Seen::default()], &policy).is_empty());
        assert!(who(&[slow, slow, fast], &policy).is_empty());
        assert!(who(&[fast, timed(19, 400_000, 480_000)], &policy).is_empty(), "19 answers are too few");
        assert!(who(&[fast, slow], &Eject::default()).is_empty());
    }
}
