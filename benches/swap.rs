//! Reading the table while a writer publishes: what a worker does at each request is compare a generation and, now and
//! then, take the new table.
#![allow(missing_docs)]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::engine::balance::{Asking, Tried, pick};
use pointsman::engine::snapshot::ServiceSnapshot;
use pointsman::engine::table::Table;
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;

fn pick_from(table: &Table, seed: u64) -> Option<u32> {
    let (pool, endpoints) = (table.pool(0, 0), table.endpoints(0));
    pick(pool, endpoints, &Asking::new(Millis(1), Draw(seed), &Tried::default()), &mut NoTrace)
        .map(|picked| picked.endpoint)
}

fn swap(c: &mut Criterion) {
    let (catalog, router) = (fleet::catalog(200, 10), fleet::router(200));
    let (snapshot, mut lives) = fleet::snapshot(&catalog);
    let shared = Arc::new(ArcSwap::from_pointee(fleet::table(snapshot, router)));
    let mut seed = 0u64;
    let mut read = |shared: &ArcSwap<Table>| {
        seed += 1;
        pick_from(black_box(&shared.load()), seed)
    };
    c.bench_function("swap/quiet", |b| b.iter(|| read(&shared)));

    let (done, until) = mpsc::sync_channel::<()>(1);
    let writer = Arc::clone(&shared);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut generation = 2;
            while until.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                let instances = catalog[0][(generation % 2) as usize..].to_vec();
                let service = ServiceSnapshot::build("svc-0".into(), generation, instances, &mut lives, Millis(1));
                writer.store(Arc::new(writer.load().with_service(generation, service, Millis(1)).0));
                generation += 1;
            }
        });
        c.bench_function("swap/while_publishing", |b| b.iter(|| read(&shared)));
        drop(done);
    });
}

criterion_group!(benches, swap);
criterion_main!(benches);
