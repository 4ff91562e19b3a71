//! What shadow rules add to a request at 100 % sampling: a second decision, the two shapes and one look-up.
#![allow(missing_docs)]

mod fleet;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use pointsman::engine::request::RequestView;
use pointsman::engine::route::{Scratch, decide};
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use rustc_hash::FxHashMap;

fn shadow(c: &mut Criterion) {
    let (catalog, router) = (fleet::catalog(100, 10), fleet::router(100));
    let (snapshot, _lives) = fleet::snapshot(&catalog);
    let live = fleet::table(snapshot, router);
    let candidate = live.with_router(1, fleet::router(100), Millis(0)).unwrap_or_else(|error| panic!("{error}"));
    let (method, headers) = (Method::GET, HeaderMap::new());
    let request = RequestView {
        method: &method,
        scheme: "http",
        host: "svc-7.internal",
        path: "/cart",
        query: None,
        headers: &headers,
        client: [10, 0, 0, 1].into(),
        sni: None,
        san: &[],
        trusted: true,
    };
    let (mut first, mut second, mut seed) = (Scratch::new(), Scratch::new(), 0);
    c.bench_function("shadow/off", |b| {
        b.iter(|| {
            seed += 1;
            decide(black_box(&live), &request, Draw(seed), &mut first, &mut NoTrace)
        });
    });
    let mut known = FxHashMap::default();
    c.bench_function("shadow/on", |b| {
        b.iter(|| {
            seed += 1;
            let old = decide(black_box(&live), &request, Draw(seed), &mut first, &mut NoTrace);
            let new = decide(black_box(&candidate), &request, Draw(seed), &mut second, &mut NoTrace);
            *known.entry((old.shape(), new.shape())).or_insert(0u64) += 1;
            old
        });
    });
}

criterion_group!(benches, shadow);
criterion_main!(benches);
