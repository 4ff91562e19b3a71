//! What a pick may not do, and what a table may cost: counted with an allocator that counts.
#![allow(missing_docs)]

#[path = "../benches/fleet/mod.rs"]
mod fleet;

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use allocation_counter::measure;
use pointsman::engine::balance::{Asking, Memory, Tried, pick, pick_any};
use pointsman::engine::expr::ast::Field;
use pointsman::engine::health::Evidence;
use pointsman::engine::limit::gradient::Adaptive;
use pointsman::engine::limit::{Budget, Limiter};
use pointsman::engine::policy::Eject;
use pointsman::engine::rules::Limit;
use pointsman::engine::snapshot::ServiceSnapshot;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use pointsman::observe::metrics::{self, Done, Metrics, Names, RequestKey, RouteKey, SeriesCache};
use pointsman::observe::names;

#[test]
fn the_counter_counts() {
    assert!(measure(|| drop(black_box(vec![1u8; 100]))).count_total > 0);
}

#[test]
fn a_pick_and_its_evidence_allocate_nothing() {
    let table = fleet::table(fleet::snapshot(&fleet::catalog(1, 200)).0, fleet::router(1));
    let slots = table.files[0].pools.len() as u32;
    for at in [3, 30, 60, 90] {
        table.endpoint(0, at).live.eject(Millis(0), 10);
    }
    let lives: Vec<_> = [3, 30].map(|at| Arc::clone(&table.endpoint(0, at).live)).to_vec();
    let table = table.with_health(2, &lives, Millis(0));
    let policy = Eject::default();
    let mut picked = 0;
    let counted = measure(|| {
        for seed in 0..5_000u64 {
            let (pool, endpoints) = (table.pool(0, seed as u32 % slots), table.endpoints(0));
            let mut tried = Tried::default();
            for now in 0..3 {
                let (now, draw) = (Millis(seed + now), Draw(seed).fork(now));
                let asking = Asking { may_probe: now.0 % 2 == 0, ..Asking::new(now, draw, &tried) };
                let Some(chosen) = pick(pool, endpoints, &asking, &mut NoTrace) else { break };
                let live = &endpoints[chosen.endpoint as usize].live;
                live.begin();
                let evidence = if seed % 7 == 0 { Evidence::Status(503) } else { Evidence::Success };
                black_box(live.record(evidence, now, &policy, draw));
                live.end();
                tried.add(chosen.endpoint);
                picked += 1;
            }
            black_box(pick_any(pool, endpoints, Draw(seed), &tried, &mut NoTrace));
        }
    });
    assert!(picked > 10_000, "{picked}");
    assert_eq!(counted.count_total, 0);
}

#[test]
fn no_algorithm_allocates_once_its_level_is_known() {
    for balance in ["least", "ewma", "round_robin", "random", "hash(client.ip)"] {
        for size in [1, 3, 10, 200] {
            let table = fleet::one_pool(balance, size, true);
            let (pool, endpoints, memory) = (table.pool(0, 0), table.endpoints(0), Memory::default());
            let mut picked = 0;
            let mut run = |seeds: std::ops::Range<u64>| {
                for seed in seeds {
                    let mut draw = Draw(seed);
                    let (key, tried) = (Some(draw.advance()), Tried::default());
                    let (now, memory) = (Millis(seed), Some(&memory));
                    let asking = Asking {
                        now,
                        draw,
                        tried: &tried,
                        may_probe: true,
                        key,
                        memory,
                        ..Asking::new(now, draw, &tried)
                    };
                    let chosen = pick(pool, endpoints, &asking, &mut NoTrace).expect("all are routable");
                    let live = &endpoints[chosen.endpoint as usize].live;
                    live.begin();
                    live.observe_latency(1_000 + seed % 100, now);
                    if seed % 3 > 0 {
                        live.end();
                    }
                    picked += 1;
                }
            };
            // Until an endpoint with a request in flight was met, so that a hashed level was counted once.
            run(0..500);
            let counted = measure(|| run(500..3_000));
            assert_eq!((counted.count_total, picked), (0, 3_000), "{balance} of {size}");
        }
    }
}

#[test]
fn fifty_thousand_instances_stay_below_100_mib_and_a_change_costs_its_service() {
    const MIB: i64 = 1 << 20;
    let (catalog, router) = (fleet::catalog(5_000, 10), fleet::router(5_000));
    let mut built = None;
    let all = measure(|| {
        let (snapshot, lives) = fleet::snapshot(&catalog);
        built = Some((fleet::table(snapshot, Arc::clone(&router)), lives));
    });
    assert!(all.bytes_current < 100 * MIB, "{} MiB stay", all.bytes_current / MIB);
    assert!((all.bytes_max as i64) < 100 * MIB, "{} MiB at most", all.bytes_max as i64 / MIB);
    let (table, mut lives) = built.expect("just built");
    let one = measure(|| {
        let changed = catalog[7][1..].to_vec();
        let service = ServiceSnapshot::build("svc-7".into(), 2, changed, &mut lives, Millis(1));
        black_box(table.with_service(2, service, Millis(1)));
    });
    assert!(one.count_total < 200, "{} allocations for one changed service", one.count_total);
    assert!(one.bytes_total < MIB as u64 / 4, "{} bytes for one changed service", one.bytes_total);
}

#[test]
fn counting_a_request_allocates_nothing_once_its_series_is_known() {
    let metrics = Metrics::new(1, metrics::Settings::default());
    let cache = SeriesCache::new(&Rc::new(metrics.worker(0)));
    let table = fleet::table(fleet::snapshot(&fleet::catalog(1, 4)).0, fleet::router(1));
    let instances: Vec<_> = table.endpoints(0).iter().map(|endpoint| Arc::clone(&endpoint.instance)).collect();
    let count = || {
        for (at, instance) in instances.iter().enumerate() {
            let route = RouteKey::new(Some(0), Some(at as u32), Some(0));
            let names = || Names { service: "web", rule: "ramp", pool: "gray", instance: Some(instance) };
            let done = Done { duration_us: 700, first_byte_us: Some(500), bytes_in: 1, bytes_out: 2 };
            for status in [200, 404, 503] {
                cache.request(RequestKey::new(route, Some(instance), status), names, &done);
            }
            cache.count(&names::ATTEMPTS, route, "2xx", names);
            cache.count(&names::RETRIES, route, "connect", names);
            cache.worker().word(&names::REFUSALS, "client_timeout");
            cache.worker().cells().in_flight.add(1);
            cache.worker().cells().in_flight.sub(1);
        }
    };
    assert!(measure(count).count_total > 0, "the first time makes the series");
    assert_eq!(measure(|| (0..1_000).for_each(|_| count())).count_total, 0);
    assert!(metrics.render().contains("pointsman_refusals_total{reason=\"client_timeout\"} 4004"));
}

#[test]
fn limits_and_budgets_allocate_nothing() {
    let limit = Limit { concurrency: 100, rate_milli: 1_000_000, burst: 10, key: Some(Field::ClientIp) };
    let (limiter, budget, adaptive) = (Limiter::new(&limit), Budget::new(2), Adaptive::default());
    let mut passed = 0;
    let counted = measure(|| {
        for at in 0..10_000u64 {
            let entered = limiter.enter(Draw(at % 300).fork(0).0, at * 10_000);
            passed += u32::from(entered.is_ok());
            budget.request(at as usize % 2, Millis(at));
            black_box(budget.take(at as usize % 2, Millis(at), 200_000));
            adaptive.observe(1_000 + at % 7, 20, Millis(at));
            black_box(entered.is_ok());
        }
    });
    assert!(passed > 5_000, "{passed}");
    assert_eq!(counted.count_total, 0);
}
