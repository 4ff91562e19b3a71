//! Publishing: everything, one service changed, one endpoint's health changed. Goals: one changed service among
//! 5,000 × 10 instances below 1 ms, all 50,000 below 500 ms (the 100 MiB are kept by `tests/no_alloc.rs`).
#![allow(missing_docs)]

mod fleet;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::engine::snapshot::ServiceSnapshot;
use pointsman::engine::time::Millis;

fn everything(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish/all");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for (services, each) in [(1, 10), (100, 10), (5_000, 10), (1, 50_000)] {
        let (catalog, router) = (fleet::catalog(services, each), fleet::router(services));
        group.bench_function(BenchmarkId::from_parameter(format!("{services}x{each}")), |b| {
            b.iter_with_large_drop(|| {
                let (snapshot, lives) = fleet::snapshot(&catalog);
                (fleet::table(snapshot, Arc::clone(&router)), lives)
            });
        });
    }
    group.finish();
}

fn one_change(c: &mut Criterion) {
    let (catalog, router) = (fleet::catalog(5_000, 10), fleet::router(5_000));
    let (snapshot, mut lives) = fleet::snapshot(&catalog);
    let table = fleet::table(snapshot, router);
    let changed: Vec<_> = catalog[2_500][1..].to_vec();
    c.bench_function("publish/one_service_of_5000x10", |b| {
        b.iter_batched(
            || changed.clone(),
            |changed| {
                let service = ServiceSnapshot::build("svc-2500".into(), 2, changed, &mut lives, Millis(1));
                table.with_service(2, service, Millis(1))
            },
            BatchSize::PerIteration,
        );
    });
    let live = Arc::clone(&table.endpoint(2_500, 3).live);
    c.bench_function("publish/one_health_of_5000x10", |b| {
        b.iter_with_large_drop(|| table.with_health(2, std::slice::from_ref(&live), Millis(1)));
    });
}

criterion_group!(benches, everything, one_change);
criterion_main!(benches);
