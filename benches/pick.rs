//! `pick` by algorithm and pool size, and what a request adds to an endpoint's live state. Goal: a pick below 100 ns,
//! evidence of success below 50 ns.
#![allow(missing_docs)]

mod fleet;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::engine::balance::{Asking, Memory, Tried, pick};
use pointsman::engine::health::Evidence;
use pointsman::engine::policy::Eject;
use pointsman::engine::snapshot::Live;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;

fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for balance in ["least", "ewma", "round_robin", "random", "hash(client.ip)"] {
        for weighted in [false, true] {
            for size in [2, 10, 100, 1_000] {
                let table = fleet::one_pool(balance, size, weighted);
                let (pool, endpoints, tried) = (table.pool(0, 0), table.endpoints(0), Tried::default());
                let name = if weighted { format!("{balance}/weighted") } else { format!("{balance}/equal") };
                for (at, endpoint) in endpoints.iter().enumerate() {
                    endpoint.live.observe_latency(1_000 + at as u64 % 50, Millis(4));
                }
                let (memory, mut seed) = (Memory::default(), 0u64);
                group.bench_function(BenchmarkId::new(name, size), |b| {
                    b.iter(|| {
                        seed += 1;
                        let mut draw = Draw(seed);
                        let (key, memory) = (Some(draw.advance()), Some(&memory));
                        let asking = Asking {
                            now: Millis(5),
                            draw,
                            tried: &tried,
                            may_probe: true,
                            key,
                            memory,
                            ..Asking::new(Millis(5), draw, &tried)
                        };
                        pick(pool, endpoints, black_box(&asking), &mut NoTrace)
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
    // One in twenty fails, never enough of them to eject.
    c.bench_function("live/record_mixed", |b| {
        b.iter(|| {
            now += 1;
            let evidence = if now.is_multiple_of(20) { Evidence::Status(500) } else { Evidence::Success };
            live.record(black_box(evidence), Millis(now / 64), &policy, Draw(1))
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
