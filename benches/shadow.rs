//! What shadow rules add to a request at 100 % sampling, where they agree: a second decision, the look-up of the pair,
//! and the counts. `shadow/off` is the live decision alone; the difference to `shadow/on` is the cost.
#![allow(missing_docs)]

mod fleet;

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use pointsman::engine::policy::WHOLE;
use pointsman::engine::request::RequestView;
use pointsman::engine::route::{Scratch, decide};
use pointsman::engine::time::{Draw, Millis};
use pointsman::engine::trace::NoTrace;
use pointsman::forward::shadow::{Shadow, Shadowing};
use pointsman::observe::metrics::{Metrics, Settings};
use pointsman::observe::shadow::{Candidate, ShadowLog, Slot};

fn shadow(c: &mut Criterion) {
    let (catalog, router) = (fleet::catalog(100, 10), fleet::router(100));
    let (snapshot, _lives) = fleet::snapshot(&catalog);
    let live = fleet::table(snapshot, router);
    let rules = fleet::router(100);
    let table = live.with_router(live.generation, Arc::clone(&rules), Millis(0));
    let table = Arc::new(table.unwrap_or_else(|error| panic!("{error}")));
    let candidate = Candidate { live: live.generation, rules, table, figures: Arc::default(), fields: Arc::default() };
    let slot = Slot::default();
    slot.store(Some(Arc::new(candidate)));
    let (log, _thread) = ShadowLog::start(None, 1_024, &[]).unwrap_or_else(|error| panic!("{error}"));
    let metrics = Rc::new(Metrics::new(1, Settings::default()).worker(0));
    let beside = Shadow::new(Shadowing { slot: Arc::clone(&slot), log, sample: WHOLE }, 0, &metrics);
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
    let (mut scratch, mut seed) = (Scratch::new(), 0);
    c.bench_function("shadow/off", |b| {
        b.iter(|| {
            seed += 1;
            decide(black_box(&live), &request, Draw(seed), &mut scratch, &mut NoTrace)
        });
    });
    c.bench_function("shadow/on", |b| {
        b.iter(|| {
            seed += 1;
            let decision = decide(black_box(&live), &request, Draw(seed), &mut scratch, &mut NoTrace);
            let disagreed = beside.count(&live, &request, request.client, Draw(seed), &decision, 0);
            assert!(disagreed.is_none(), "both sides have the same rules");
            decision
        });
    });
    let sums = slot.load_full().map(|candidate| candidate.figures.sums()).unwrap_or_default();
    assert_eq!((sums.agreeing, sums.skipped), (sums.requests, 0), "every request was counted");
}

criterion_group!(benches, shadow);
criterion_main!(benches);
