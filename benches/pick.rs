//! `pick` by algorithm and pool size, and what a request adds to an endpoint's live state. Goal: a pick below 100 ns,
//! evidence of success below 50 ns.
#![allow(missing_docs)]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::engine::balance::{Tried, pick};
use pointsman::engine::diagnostic::Source;
use pointsman::engine::health::Evidence;
use pointsman::engine::instance::{Instance, Weights};
use pointsman::engine::policy::{Balance, Eject};
use pointsman::engine::route::Router;
use pointsman::engine::rules;
use pointsman::engine::snapshot::Live;
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;

fn one_pool(balance: &str, size: usize, weighted: bool) -> Table {
    let text = format!(
        "service: svc-0\npools: {{all: {{select: version exists, balance: {balance}}}}}\nrules: [{{name: r, to: all}}]\n"
    );
    let (set, out) = rules::parse_files(&[Source::new("rules/svc-0.yaml", text)]);
    assert!(!out.has_errors(), "{}", out.render());
    let router = Router::compile(&set).unwrap_or_else(|out| panic!("{}", out.render()));
    let weigh = |(at, instance): (usize, Arc<Instance>)| {
        let weight = if weighted { 1 + at as u32 % 7 } else { 1 };
        Arc::new(Instance { weights: Weights { passing: weight, warning: 1 }, ..(*instance).clone() })
    };
    let all = fleet::instances("svc-0", size).into_iter().enumerate().map(weigh).collect();
    fleet::table(fleet::snapshot(&[all]).0, Arc::new(router))
}

fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for balance in Balance::SUPPORTED {
        for weighted in [false, true] {
            for size in [2, 10, 100, 1_000] {
                let table = one_pool(balance, size, weighted);
                let (pool, endpoints, tried) = (table.pool(0, 0), table.endpoints(0), Tried::default());
                let name = if weighted { format!("{balance}/weighted") } else { format!("{balance}/equal") };
                let mut seed = 0u64;
                group.bench_function(BenchmarkId::new(name, size), |b| {
                    b.iter(|| {
                        seed += 1;
                        pick(pool, endpoints, Millis(5), Draw(seed), black_box(&tried), true, &mut NoTrace)
                    });
                });
            }
        }
    }
    group.finish();
}

fn live(c: &mut Criterion) {
    let (live, policy) = (Live::new(1), Eject::default());
    let mut now = 0u64;
    c.bench_function("live/record_success", |b| {
        b.iter(|| {
            now += 1;
            live.record(black_box(Evidence::Success), Millis(now / 64), &policy, Draw(1))
        });
    });
    c.bench_function("live/begin_record_end", |b| {
        b.iter(|| {
            live.begin();
            let transition = live.record(black_box(Evidence::Success), Millis(1), &policy, Draw(1));
            live.end();
            transition
        });
    });
}

criterion_group!(benches, picks, live);
criterion_main!(benches);
