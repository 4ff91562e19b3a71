use std::sync::Arc;

use super::*;
use crate::engine::instance::Status;
use crate::engine::instance::{Instance, Weights};
use crate::engine::table::Table;
use crate::engine::testing::{instance, service, table};
use crate::engine::trace::NoTrace;

const RULES: &str =
    "service: web\npools: {all: {select: version exists, balance: least}}\nrules: [{name: r, to: all}]\n";

fn web(weights: &[u32], balance: &str) -> Table {
    let one = |(at, weight): (usize, &u32)| {
        let weights = Weights { passing: *weight, warning: *weight };
        Arc::new(Instance { weights, ..instance("web", &format!("i{at:04}"), 80, &[("version", "1")]) })
    };
    let web = service("web", weights.iter().enumerate().map(one).collect());
    table(&RULES.replace("least", balance), vec![web]).unwrap()
}

fn pick_one(table: &Table, seed: u64, tried: &Tried, may_probe: bool, now: u64) -> Option<Picked> {
    let pool = table.pool(0, 0);
    let asking = Asking { may_probe, ..Asking::new(Millis(now), Draw(seed).fork(Draw::PICK), tried) };
    pick(pool, table.endpoints(0), &asking, &mut NoTrace)
}

/// How often each endpoint is picked in `rounds`.
fn shares(table: &Table, rounds: u64) -> Vec<u64> {
    let mut counts = vec![0; table.endpoints(0).len()];
    for seed in 0..rounds {
        let picked = pick_one(table, seed, &Tried::default(), false, 0).expect("somebody is routable");
        counts[picked.endpoint as usize] += 1;
    }
    counts
}

#[test]
fn idle_shares_follow_the_weights_within_three_sigma() {
    for balance in ["least", "ewma", "random", "round_robin", "hash(client.ip)"] {
        for weights in [&[1, 1, 1][..], &[90, 10], &[1, 10], &[5, 1, 1, 1, 1, 1], &[3, 2, 1, 3, 2, 1, 7]] {
            let (rounds, total) = (60_000f64, weights.iter().sum::<u32>());
            for (count, weight) in shares(&web(weights, balance), rounds as u64).iter().zip(weights) {
                let p = f64::from(*weight) / f64::from(total);
                let sigma = (rounds * p * (1.0 - p)).sqrt();
                let off = (*count as f64 - rounds * p).abs();
                assert!(off <= 3.0 * sigma, "{balance} {weights:?}: {count} for {weight}, {:.1} sigma", off / sigma);
            }
        }
    }
}

#[test]
fn least_prefers_the_one_with_fewer_in_flight() {
    for count in [3, 50] {
        let table = web(&vec![1; count], "least");
        for endpoint in &table.endpoints(0)[1..] {
            endpoint.live.begin();
        }
        let counts = shares(&table, 30_000);
        let idle = counts[0] as f64 / 30_000.0;
        let expected = if count == 3 { 1.0 } else { 2.0 / 50.0 };
        assert!((idle - expected).abs() < 0.01, "{count}: {idle}");
    }
}

#[test]
fn a_heavy_endpoint_is_relieved_when_its_load_is_out_of_proportion() {
    let table = web(&[60_000, 1, 1, 1, 1, 1], "least");
    (0..200_000).for_each(|_| table.endpoint(0, 0).live.begin());
    assert!(shares(&table, 200)[0] < 5, "3.3 in flight per weight against 1");
}

#[path = "algorithm_tests.rs"]
mod algorithms;

#[test]
fn under_load_shares_stay_near_the_weights() {
    let table = web(&[10, 1], "least");
    let mut busy = std::collections::VecDeque::new();
    let mut counts = [0u32; 2];
    for seed in 0..40_000 {
        let picked = pick_one(&table, seed, &Tried::default(), false, 0).unwrap().endpoint;
        counts[picked as usize] += 1;
        table.endpoint(0, picked).live.begin();
        busy.push_back(picked);
        if busy.len() > 22 {
            table.endpoint(0, busy.pop_front().unwrap()).live.end();
        }
    }
    let share = f64::from(counts[1]) / 40_000.0;
    assert!((share - 1.0 / 11.0).abs() < 0.03, "{share}");
}

#[test]
fn an_endpoint_that_fell_since_publication_is_passed_over() {
    let table = web(&[1; 40], "least");
    for endpoint in &table.endpoints(0)[..39] {
        endpoint.live.eject(Millis(0), 30_000);
    }
    for seed in 0..200 {
        assert_eq!(
            pick_one(&table, seed, &Tried::default(), true, 1).unwrap().endpoint,
            39,
            "the scan finds the one left"
        );
    }
    table.endpoint(0, 39).live.set_drained(true);
    assert_eq!(pick_one(&table, 1, &Tried::default(), true, 1), None, "the pool proves empty");
}

#[test]
fn a_tried_endpoint_is_not_tried_again() {
    let table = web(&[100, 1, 1], "random");
    let mut tried = Tried::default();
    for _ in 0..3 {
        tried.add(pick_one(&table, 5, &tried, false, 0).expect("one is left").endpoint);
    }
    assert_eq!(tried.len(), 3);
    assert_eq!(pick_one(&table, 5, &tried, false, 0), None);
}

#[test]
fn ejected_endpoint_is_probed_once_after_its_time() {
    let table = web(&[1, 1, 1], "least");
    let live = Arc::clone(&table.endpoint(0, 1).live);
    live.eject(Millis(0), 1_000);
    let table = table.with_health(2, &[Arc::clone(&live)], Millis(0));
    let early = pick_one(&table, 1, &Tried::default(), true, 500).unwrap();
    assert!(!early.probe && early.endpoint != 1);
    assert!(!pick_one(&table, 1, &Tried::default(), false, 5_000).unwrap().probe, "this one could not be retried");
    let probing = pick_one(&table, 1, &Tried::default(), true, 5_000).unwrap();
    assert_eq!((probing.endpoint, probing.probe), (1, true));
    assert!(!pick_one(&table, 1, &Tried::default(), true, 5_001).unwrap().probe, "one permit only");
}

#[test]
fn a_refused_ejection_stays_in_traffic() {
    let table = web(&[1], "least");
    let live = Arc::clone(&table.endpoint(0, 0).live);
    live.eject(Millis(0), 1_000);
    assert_eq!(pick_one(&table, 1, &Tried::default(), false, 1), None, "the publisher has not judged yet");
    let table = table.with_health(2, &[Arc::clone(&live)], Millis(0));
    assert_eq!(pick_one(&table, 1, &Tried::default(), false, 1).map(|picked| picked.endpoint), Some(0));
    live.set_drained(true);
    assert_eq!(pick_one(&table, 1, &Tried::default(), false, 1), None, "but an operator is obeyed");
}

#[test]
fn panic_takes_anybody_but_maintenance_and_drained() {
    use crate::engine::instance::Status::{Critical, Maintenance, Passing};
    let one =
        |(at, status)| Arc::new(Instance { status, ..instance("web", &format!("i{at}"), 80, &[("version", "1")]) });
    let web = service("web", [Maintenance, Critical, Passing].into_iter().enumerate().map(one).collect());
    web.endpoints[2].live.set_drained(true);
    let table = table(RULES, vec![web]).unwrap();
    for seed in 0..50 {
        let picked =
            pick_any(table.pool(0, 0), table.endpoints(0), Draw(seed), &Tried::default(), &mut NoTrace).unwrap();
        assert_eq!((picked.endpoint, picked.panic), (1, true));
    }
}

#[test]
fn levels_get_their_load_and_an_empty_one_hands_over() {
    let rules = format!("{RULES}locality: {{prefer: [region, zone]}}\n");
    let one = |(at, zone): (usize, &str)| {
        let labels = [("version", "1"), ("region", "eu"), ("zone", zone)];
        let status = if at % 2 == 0 { Status::Passing } else { Status::Critical };
        Arc::new(Instance { status, ..instance("web", &format!("i{at}"), 80, &labels) })
    };
    let web = service("web", ["a", "a", "b", "b"].into_iter().enumerate().map(one).collect());
    let table = table(&rules, vec![web]).unwrap();
    let counts = shares(&table, 20_000);
    assert!((counts[0] as f64 / 20_000.0 - 0.7).abs() < 0.01, "half of the home level is worth 70 %: {counts:?}");
    table.endpoint(0, 0).live.set_drained(true);
    assert_eq!(shares(&table, 100), [0, 0, 100, 0]);
}

#[test]
fn who_is_picked_without_being_routable_stands_at_his_own_level() {
    let rules = format!("{RULES}locality: {{prefer: [region, zone]}}\n");
    let one = |(at, zone): (usize, &str)| {
        let labels = [("version", "1"), ("region", "eu"), ("zone", zone)];
        Arc::new(Instance { status: Status::Critical, ..instance("web", &format!("i{at}"), 80, &labels) })
    };
    let web = service("web", ["a", "b"].into_iter().enumerate().map(one).collect());
    let table = table(&rules, vec![web]).unwrap();
    let anybody =
        |seed| pick_any(table.pool(0, 0), table.endpoints(0), Draw(seed), &Tried::default(), &mut NoTrace).unwrap();
    let picked: std::collections::BTreeSet<_> = (0..50).map(anybody).map(|one| (one.endpoint, one.level)).collect();
    assert_eq!(picked.into_iter().collect::<Vec<_>>(), [(0, 0), (1, 1)]);
}
