//! What active checks cost. Goal: 50,000 endpoints every 10 s (5,000 checks a second) in under 30 % of a core, so under
//! 60 µs a check. `checks/schedule` is the plan's part alone; the others run whole checks one after the other over
//! loopback, in wall time, the instance's side (on a thread of its own) and the wait for it included: an upper bound.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::engine::instance::Instance;
use pointsman::engine::policy::{Check, Eject, Probe};
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot};
use pointsman::engine::time::{Draw, Millis};
use pointsman::upstream::Dial;
use pointsman::upstream::checks::probe;
use pointsman::upstream::checks::schedule::{Schedule, Target};

mod fleet;

fn schedule(c: &mut Criterion) {
    let instances = fleet::instances("svc-0", 50_000);
    let service = ServiceSnapshot::build("svc-0".into(), 1, instances, &mut LiveSet::default(), Millis(0));
    let check = Arc::new(Check { interval: 10_000, ..Check::new(Check::CONNECTS) });
    let eject = Arc::new(Eject::default());
    let mut plan = Schedule::default();
    let target = |endpoint: &pointsman::engine::snapshot::Endpoint| Target {
        endpoint: endpoint.clone(),
        check: Arc::clone(&check),
        eject: Arc::clone(&eject),
        upstream: Arc::default(),
    };
    plan.reconcile(service.endpoints.iter().map(target), Millis(0));
    let mut now = 0u64;
    c.bench_function("checks/schedule", |b| {
        b.iter(|| {
            let due = loop {
                match plan.take_due(Millis(now), |_| true) {
                    Some(due) => break due,
                    None => now += 1,
                }
            };
            plan.finished(&due, false, Millis(now), Draw(now));
        });
    });
}

/// Answers every connection's first read with 200 and closes.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0u8; 1024];
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                // A check that went away is not this server's business.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
    });
    addr
}

fn whole(c: &mut Criterion) {
    let instance = Instance { addr: server(), ..(*fleet::instances("svc-0", 1)[0]).clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let http = Probe::Http {
        path: "/health".into(),
        method: "GET".into(),
        host: None,
        statuses: vec![(200, 399)],
        header: None,
        body: None,
    };
    for (name, asked) in [("checks/tcp", Check::CONNECTS), ("checks/http", http)] {
        let check = Check::new(asked);
        c.bench_function(name, |b| {
            b.iter(|| {
                runtime
                    .block_on(probe::run(&check, &instance, &Dial::plain(instance.addr)))
                    .expect("the instance passes")
            });
        });
    }
}

criterion_group!(benches, schedule, whole);
criterion_main!(benches);
