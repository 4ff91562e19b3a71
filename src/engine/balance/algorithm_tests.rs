//! The algorithms under load, by key, and while somebody starts slowly.

use std::collections::VecDeque;

use super::*;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::testing::router;

/// A key's hash.
fn key(of: u64) -> u64 {
    Draw(of).fork(77).0
}

fn pick_by(table: &Table, memory: &Memory, seed: u64, key: Option<u64>, now: u64) -> Picked {
    let (draw, tried) = (Draw(seed).fork(Draw::PICK), Tried::default());
    let asking = Asking { key, memory: Some(memory), ..Asking::new(Millis(now), draw, &tried) };
    pick(table.pool(0, 0), table.endpoints(0), &asking, &mut NoTrace).expect("somebody is routable")
}

fn by_key(table: &Table, of: u64) -> u32 {
    pick_by(table, &Memory::default(), of, Some(key(of)), 0).endpoint
}

fn ids(table: &Table, picks: impl IntoIterator<Item = u32>) -> Vec<String> {
    picks.into_iter().map(|at| table.endpoint(0, at).instance.id.to_string()).collect()
}

#[test]
fn under_load_every_algorithm_stays_within_five_percent() {
    const ROUNDS: u64 = 60_000;
    for balance in ["least", "ewma", "random", "round_robin", "hash(client.ip)"] {
        for weights in [&[1; 4][..], &[10, 1], &[5, 1, 1, 1, 1, 1], &[3, 2, 1, 3, 2, 1, 7]] {
            let table = web(weights, balance);
            let (memory, mut counts) = (Memory::default(), vec![0u64; weights.len()]);
            let mut busy = VecDeque::new();
            for seed in 0..ROUNDS {
                let keyed = balance.starts_with("hash").then(|| key(seed));
                let picked = pick_by(&table, &memory, seed, keyed, seed / 10).endpoint;
                counts[picked as usize] += 1;
                let live = &table.endpoint(0, picked).live;
                live.begin();
                busy.push_back(picked);
                if busy.len() > 200 {
                    let done = busy.pop_front().expect("just counted");
                    table.endpoint(0, done).live.end();
                    table.endpoint(0, done).live.observe_latency(20_000, Millis(seed / 10));
                }
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let (share, fair) = (*count as f64 / ROUNDS as f64, f64::from(*weight) / f64::from(total));
                assert!((share - fair).abs() < 0.05, "{balance} {weights:?}: {share:.3} for {fair:.3}");
            }
        }
    }
}

#[test]
fn round_robin_takes_turns_exactly_and_goes_on_after_a_publication() {
    let table = web(&[3, 1, 1], "round_robin");
    let memory = Memory::default();
    let run = |table: &Table, from: u64| {
        let mut counts = [0; 3];
        (from..from + 500).for_each(|seed| counts[pick_by(table, &memory, seed, None, 0).endpoint as usize] += 1);
        counts
    };
    let first = run(&table, 0);
    assert!(first.iter().zip([300, 100, 100]).all(|(have, want): (&i32, i32)| have.abs_diff(want) <= 2), "{first:?}");
    let live = Arc::clone(&table.endpoint(0, 1).live);
    live.eject(Millis(0), 1_000);
    let without = table.with_health(2, &[live], Millis(0));
    let rest = run(&without, 500);
    assert!(rest[1] == 0 && rest[2].abs_diff(125) <= 2, "{rest:?}");
}

#[test]
fn ewma_leaves_a_slow_endpoint_and_finds_out_that_it_is_well_again() {
    for weights in [&[1, 1][..], &[1; 10], &[1, 3, 3]] {
        let table = web(weights, "ewma");
        let feed = |at: u32, micros, now| table.endpoint(0, at).live.observe_latency(micros, Millis(now));
        let others = 1..weights.len() as u32;
        feed(0, 200_000, 0);
        others.clone().for_each(|at| feed(at, 10_000, 0));
        let at = |now: u64| {
            let memory = Memory::default();
            (0..2_000).filter(|seed| pick_by(&table, &memory, *seed, None, now).endpoint == 0).count()
        };
        // Among ten, it is only ever compared with another one, and loses.
        assert_eq!(at(0), 0, "{weights:?}");
        for now in (1_000..=40_000).step_by(1_000) {
            others.clone().for_each(|at| feed(at, 10_000, now));
        }
        assert!(at(40_000) > 100, "{weights:?}: forgiven after four time constants");
    }
}

#[test]
fn ewma_takes_an_endpoint_without_history_for_an_average_one() {
    let mut lives = LiveSet::default();
    let named = |count: usize| -> Vec<Arc<Instance>> {
        (0..count).map(|at| Arc::new(instance("web", &format!("i{at}"), 80, &[("version", "1")]))).collect()
    };
    let old = ServiceSnapshot::build("web".into(), 1, named(2), &mut lives, Millis(0));
    let before = table(&RULES.replace("least", "ewma"), vec![old]).unwrap();
    before.endpoint(0, 0).live.observe_latency(10_000, Millis(0));
    before.endpoint(0, 1).live.observe_latency(30_000, Millis(0));
    let grown = ServiceSnapshot::build("web".into(), 2, named(3), &mut lives, Millis(0));
    let (after, _) = before.with_service(2, grown, Millis(0));
    assert!(matches!(after.pool(0, 0).levels[0].method, Method::Ewma { mean: 20_000 }));
    let memory = Memory::default();
    let mut counts = [0; 3];
    (0..3_000).for_each(|seed| counts[pick_by(&after, &memory, seed, None, 0).endpoint as usize] += 1);
    assert_eq!(counts[1], 0, "the slowest of three");
    assert_eq!(counts[2], 0, "an average one, beside a fast one: {counts:?}");
    after.endpoint(0, 0).live.begin();
    after.endpoint(0, 0).live.begin();
    assert!((0..100).all(|seed| pick_by(&after, &memory, seed, None, 0).endpoint == 2), "the fast one is busy");
}

#[test]
fn a_key_has_one_endpoint_and_an_ejection_moves_only_its_own() {
    let table = web(&[1; 20], "hash(client.ip)");
    let before: Vec<u32> = (0..5_000).map(|of| by_key(&table, of)).collect();
    assert_eq!(before, (0..5_000).map(|of| by_key(&table, of)).collect::<Vec<_>>());
    let live = Arc::clone(&table.endpoint(0, 7).live);
    live.eject(Millis(0), 60_000);
    let unpublished: Vec<u32> = (0..5_000).map(|of| by_key(&table, of)).collect();
    let table = table.with_health(2, &[Arc::clone(&live)], Millis(0));
    let mut taken = [0; 20];
    for of in 0..5_000 {
        let (was, is) = (before[of], by_key(&table, of as u64));
        assert_eq!(unpublished[of], is, "the same before the publisher has seen it");
        if was != 7 {
            assert_eq!(is, was);
        } else {
            taken[is as usize] += 1;
        }
    }
    assert!(taken[7] == 0 && taken.iter().filter(|count| **count > 0).count() == 19, "spread over all: {taken:?}");
    live.readmit(Millis(1));
    let back = table.with_health(3, &[live], Millis(1));
    assert_eq!(before, (0..5_000).map(|of| by_key(&back, of)).collect::<Vec<_>>(), "and they come back");
}

#[test]
fn one_that_leaves_moves_its_keys_and_few_others() {
    let (all, without) = (web(&[1; 15], "hash(client.ip)"), web(&[1; 14], "hash(client.ip)"));
    let was = ids(&all, (0..10_000).map(|of| by_key(&all, of)));
    let is = ids(&without, (0..10_000).map(|of| by_key(&without, of)));
    let stayed = |(was, _): &(&String, &String)| *was != "i0014";
    let moved = was.iter().zip(&is).filter(stayed).filter(|(was, is)| was != is).count();
    assert!(moved < 300, "{moved} of 10,000 keys moved though their endpoint stayed");
}

#[test]
fn the_table_of_keys_outlives_health_and_rules_and_not_weights() {
    let entries = |table: &Table| match &table.pool(0, 0).levels[0].method {
        Method::Ring(ring) => Arc::clone(&ring.entries),
        other => panic!("{other:?}"),
    };
    let mut lives = LiveSet::default();
    let named = |weight: u32, status: Status| {
        let weights = Weights { passing: weight, warning: weight };
        let one = |at: usize| instance("web", &format!("i{at}"), 80, &[("version", "1")]);
        vec![Arc::new(Instance { weights, status, ..one(0) }), Arc::new(one(1)), Arc::new(one(2))]
    };
    let mut build =
        |weight, status| ServiceSnapshot::build("web".into(), 1, named(weight, status), &mut lives, Millis(0));
    let rules = RULES.replace("least", "hash(client.ip)");
    let first = table(&rules, vec![build(1, Status::Passing)]).unwrap();
    let live = Arc::clone(&first.endpoint(0, 0).live);
    live.eject(Millis(0), 1_000);
    let health = first.with_health(2, &[live], Millis(0));
    let (critical, _) = health.with_service(3, build(1, Status::Critical), Millis(0));
    let ruled = critical.with_router(4, router(&rules.replace("name: r", "name: s")), Millis(0)).unwrap();
    assert!([&health, &critical, &ruled].iter().all(|table| Arc::ptr_eq(&entries(table), &entries(&first))));
    let (heavy, _) = ruled.with_service(5, build(4, Status::Passing), Millis(0));
    assert!(!Arc::ptr_eq(&entries(&heavy), &entries(&first)));
    let gone = first.snapshot.clone();
    assert!(
        entries(&Table::build(9, gone, router(&rules), first.place.clone(), Millis(0)).unwrap()) == entries(&first)
    );
}

#[test]
fn a_hot_key_is_bounded_and_no_key_is_least() {
    let table = web(&[1; 10], "hash(client.ip)");
    let memory = Memory::default();
    let mut most = 0;
    for seed in 0..1_000 {
        let picked = pick_by(&table, &memory, seed, Some(key(1)), 0);
        table.endpoint(0, picked.endpoint).live.begin();
        most = most.max(table.endpoint(0, picked.endpoint).live.in_flight());
    }
    assert!((120..=130).contains(&most), "125 % of the mean of 100, rounded up: {most}");
    let idle = (0..10).min_by_key(|at| table.endpoint(0, *at).live.in_flight()).unwrap();
    (0..50).for_each(|_| {
        if table.endpoint(0, idle).live.in_flight() > 0 {
            table.endpoint(0, idle).live.end();
        }
    });
    let without = (0..2_000).filter(|seed| pick_by(&table, &memory, *seed, None, 0).endpoint == idle).count();
    assert!((300..500).contains(&without), "drawn first or second, the least loaded gets it: {without}");
}

#[test]
fn a_try_after_a_failure_has_the_keys_second_endpoint() {
    let table = web(&[1; 8], "hash(client.ip)");
    let mut order = Vec::new();
    for _ in 0..2 {
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        for seed in 0..8 {
            let asking = Asking { key: Some(key(3)), ..Asking::new(Millis(0), Draw(seed), &tried) };
            let picked = pick(table.pool(0, 0), table.endpoints(0), &asking, &mut NoTrace).expect("one is left");
            seen.push(picked.endpoint);
            tried.add(picked.endpoint);
        }
        order.push(seen);
    }
    assert_eq!(order[0], order[1], "luck has no part in it");
}

/// A table of `old` endpoints since the start and `new` ones since a minute after.
fn grown(balance: &str, old: usize, new: usize) -> (Table, LiveSet) {
    let mut lives = LiveSet::default();
    let rules = format!("{}slow_start: 10s\n", RULES.replace("least", balance));
    let named = |count: usize| -> Vec<Arc<Instance>> {
        (0..count).map(|at| Arc::new(instance("web", &format!("i{at:02}"), 80, &[("version", "1")]))).collect()
    };
    let first = ServiceSnapshot::build("web".into(), 1, named(old), &mut lives, Millis(0));
    let before = table(&rules, vec![first]).unwrap();
    let second = ServiceSnapshot::build("web".into(), 2, named(old + new), &mut lives, Millis(60_000));
    (before.with_service(2, second, Millis(60_000)).0, lives)
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    for balance in ["least", "ewma", "random", "round_robin", "hash(client.ip)"] {
        let (table, _lives) = grown(balance, 9, 1);
        let share = |now: u64| {
            let memory = Memory::default();
            let keyed = |seed: u64| balance.starts_with("hash").then(|| key(seed));
            (0..20_000).filter(|seed| pick_by(&table, &memory, *seed, keyed(*seed), now).endpoint == 9).count()
        };
        let (start, middle, end) = (share(60_000), share(65_000), share(70_000));
        assert!((120..300).contains(&start), "{balance}: a tenth of 2,000 at first, not {start}");
        assert!((800..1_300).contains(&middle), "{balance}: half of it halfway, not {middle}");
        assert!((1_800..2_200).contains(&end), "{balance}: all of it in the end, not {end}");
    }
}

#[test]
fn nobody_starts_slowly_at_the_proxys_start_or_in_a_new_pool() {
    let slow = |table: &Table, now: u64| table.pool(0, 0).warming(Millis(now)).is_some();
    let (at_start, _) = grown("least", 3, 0);
    assert!(!slow(&at_start, 60_000));
    let (all_new, mut lives) = grown("least", 0, 4);
    assert!(!slow(&all_new, 60_000), "the whole pool is new");
    let (one_new, _) = grown("least", 3, 1);
    assert!(slow(&one_new, 69_999) && !slow(&one_new, 70_000));
    let five = (0..5).map(|at| Arc::new(instance("web", &format!("i{at:02}"), 80, &[("version", "1")]))).collect();
    let later = ServiceSnapshot::build("web".into(), 3, five, &mut lives, Millis(62_000));
    let (later, _) = all_new.with_service(3, later, Millis(62_000));
    assert!(slow(&later, 62_000), "one more beside those that came together");
    let chance =
        |at: u32| later.pool(0, 0).warming(Millis(62_000)).unwrap().chance(later.endpoint(0, at).live.first_routable());
    assert_eq!([0, 3, 4].map(chance), [None, None, Some(100_000)]);
}

#[test]
fn the_clock_of_a_slow_start_begins_when_the_endpoint_is_first_routable() {
    let (table, _lives) = grown("least", 3, 1);
    let live = Arc::clone(&table.endpoint(0, 3).live);
    live.eject(Millis(61_000), 30_000);
    let out = table.with_health(3, &[Arc::clone(&live)], Millis(61_000));
    live.readmit(Millis(64_000));
    let back = out.with_health(4, &[Arc::clone(&live)], Millis(64_000));
    assert_eq!(live.first_routable(), Millis(60_000), "an ejection is not a new start");
    assert!(back.pool(0, 0).warming(Millis(69_999)).is_some());
    live.distrust(Millis(80_000));
    live.readmit(Millis(85_000));
    let replaced = back.with_health(5, &[live], Millis(85_000));
    assert!(replaced.pool(0, 0).warming(Millis(94_999)).is_some(), "another version at its address is");
}

#[test]
fn weights_that_change_at_run_time_change_shares_at_once() {
    for balance in ["least", "ewma", "random", "round_robin", "hash(client.ip)"] {
        let mut lives = LiveSet::default();
        let mut build = |weights: [u32; 3], status: Status| {
            let one = |(at, weight): (usize, u32)| {
                let weights = Weights { passing: weight, warning: 1 };
                Arc::new(Instance { weights, status, ..instance("web", &format!("i{at}"), 80, &[("version", "1")]) })
            };
            let all = weights.into_iter().enumerate().map(one).collect();
            ServiceSnapshot::build("web".into(), 1, all, &mut lives, Millis(0))
        };
        let place = crate::engine::locality::Place::default();
        let first = build([1, 1, 1], Status::Passing);
        let rules = router(&RULES.replace("least", balance));
        let mut table = Table::build(1, Snapshot::new([first]), rules, place, Millis(0)).unwrap();
        for (weights, status, expected) in [
            ([1, 1, 1], Status::Passing, [1.0 / 3.0; 3]),
            ([8, 1, 1], Status::Passing, [0.8, 0.1, 0.1]),
            ([0, 1, 1], Status::Passing, [0.0, 0.5, 0.5]),
            ([8, 1, 1], Status::Warning, [1.0 / 3.0; 3]),
            ([65_535, 0, 1], Status::Passing, [1.0, 0.0, 0.0]),
        ] {
            table = table.with_service(2, build(weights, status), Millis(0)).0;
            let (memory, mut counts) = (Memory::default(), [0u32; 3]);
            for seed in 0..20_000 {
                let keyed = balance.starts_with("hash").then(|| key(seed));
                counts[pick_by(&table, &memory, seed, keyed, 0).endpoint as usize] += 1;
            }
            for (count, share) in counts.iter().zip(expected) {
                let off = (f64::from(*count) / 20_000.0 - share).abs();
                assert!(off < 0.015, "{balance} {weights:?} {status:?}: {counts:?}");
                assert!(share > 0.0 || off < 0.002, "{balance} {weights:?}: {counts:?}");
            }
        }
    }
}
