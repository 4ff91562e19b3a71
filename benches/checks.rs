//! What active checks cost. Goal: 50,000 endpoints every 10 s in under 30 % of a core.
//!
//! `checks/schedule` is the plan's part alone; `checks/tcp` and `checks/http` run whole checks one after the other over
//! loopback, in wall time, the instance's side (on a thread of its own) and the wait for it included. Last, all checks of
//! such a fleet run as they do in the proxy for half a minute, with `reuse` and without, and the processor time of their
//! thread is printed: the system's part of its calls is in it, the instances' side (a process of its own) is not. Where
//! the descriptor limit does not let 50,000 connections be kept, fewer endpoints are checked as much more often: as many
//! checks a second, all on kept connections but each endpoint's sixth.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group};
use pointsman::engine::instance::Instance;
use pointsman::engine::policy::{Check, Eject, Probe, Protocol};
use pointsman::engine::snapshot::{LiveSet, ServiceSnapshot};
use pointsman::engine::time::{Draw, Millis};
use pointsman::observe::clock::Clock;
use pointsman::observe::metrics::{self, Metrics};
use pointsman::observe::transitions::Transitions;
use pointsman::upstream::Dial;
use pointsman::upstream::checks::schedule::{Schedule, Target};
use pointsman::upstream::checks::{Checks, Speech, probe};
use tokio::sync::watch;

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
            let (means, due) = loop {
                match plan.take_due(Millis(now), |_| true) {
                    Some(due) => break due,
                    None => now += 1,
                }
            };
            plan.finished((means, &due), false, Millis(now), Draw(now));
        });
    });
}

/// Answers every connection's first read with 200 and closes.
fn server(at: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).expect("a port");
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
    let instance = Instance { addr: server(Ipv4Addr::LOCALHOST), ..(*fleet::instances("svc-0", 1)[0]).clone() };
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
                    .block_on(probe::run(&check, &instance, &Dial::plain(instance.addr), Protocol::Http1))
                    .expect("the instance passes")
            });
        });
    }
}

const FLEET: usize = 50_000;
const INTERVAL_MS: usize = 10_000;
const MEASURED: Duration = Duration::from_secs(20);
/// Descriptors that this process needs for anything else, the checks under way included.
const OTHER_DESCRIPTORS: usize = 1_500;
/// Set for the process that is the instances.
const INSTANCES: &str = "CHECKS_BENCH_INSTANCES";

/// Answers as the fleet's instances until its input ends; says its port first.
fn be_instances() {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("its address").port());
        let (still_wanted, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            drop(still_wanted);
        });
        let answering = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream));
            }
        };
        tokio::select! {
            () = answering => {}
            _ = ended => {}
        }
    });
}

async fn answer(stream: tokio::net::TcpStream) {
    let mut head = [0u8; 256];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut head) {
            Ok(0) => return,
            Ok(_) => {
                // A check that went away is not this server's business.
                let _ = stream.try_write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn raise_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("up to the hard limit is allowed");
    hard.map_or(usize::MAX, |most| most as usize)
}

fn fleet_of_fifty_thousand(_: &mut Criterion) {
    // Only `cargo bench` says so; half a minute of it shows nothing in a smoke run.
    if !std::env::args().any(|flag| flag == "--bench") {
        return;
    }
    let fits = raise_descriptors().saturating_sub(OTHER_DESCRIPTORS).min(FLEET);
    fleet_of(FLEET, INTERVAL_MS, false);
    fleet_of(fits, INTERVAL_MS * fits / FLEET, true);
}

fn fleet_of(size: usize, interval: usize, reuse: bool) {
    let this = std::env::current_exe().expect("its own path");
    let mut process = std::process::Command::new(this)
        .env(INSTANCES, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the instances start");
    let mut port = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut port).expect("it says its port");
    let port: u16 = port.trim().parse().expect("a port");
    // An address of loopback for each, so that ports do not run out.
    let addressed = |(at, instance): (usize, Arc<Instance>)| {
        let ip = IpAddr::from([127, 1 + (at >> 16) as u8, (at >> 8) as u8, at as u8]);
        Arc::new(Instance { addr: (ip, port).into(), ..(*instance).clone() })
    };
    let instances: Vec<_> = fleet::instances("svc-0", size).into_iter().enumerate().map(addressed).collect();
    let text = format!(
        "service: svc-0\npools: {{all: id exists}}\nrules: [{{name: r, to: all}}]\n\
         check: {{http: /health, interval: {interval}ms, idle_interval: {interval}ms, reuse: {reuse}}}\n"
    );
    let (snapshot, _lives) = fleet::snapshot(&[instances]);
    let table = Arc::new(ArcSwap::from_pointee(fleet::table(snapshot, fleet::router_of(&text))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_publisher, generation) = watch::channel(1);
        let (_silence, stale) = watch::channel(BTreeSet::new());
        let (transitions, mut moved) = Transitions::channel();
        let told = Metrics::new(1, metrics::Settings::default());
        let speech = Speech { trusts: Arc::default(), protocol_label: "proto".into(), kept: size };
        let own = Arc::clone(&told);
        let checks = Checks::new(table, generation, stale, Clock::start(), transitions, own, speech);
        let running = tokio::spawn(checks.run());
        // What the publisher does with verdicts is not what is measured.
        tokio::spawn(async move {
            while let Some(moved) = moved.recv().await {
                moved.endpoint.live.clear_dirty();
            }
        });
        // The first round, in which all are new.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let (began, made, kept, cpu) = (Instant::now(), checks_made(&told), on_kept(&told), thread_cpu());
        tokio::time::sleep(MEASURED).await;
        let (took, cpu) = (began.elapsed(), thread_cpu() - cpu);
        let (made, kept) = (checks_made(&told) - made, on_kept(&told) - kept);
        running.abort();
        let share = 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
        let each = cpu.as_secs_f64() * 1e6 / made.max(1) as f64;
        let rate = made as f64 / took.as_secs_f64();
        let kept = 100.0 * kept as f64 / made.max(1) as f64;
        println!(
            "checks/fleet, reuse {reuse}: {size} endpoints every {interval} ms, {rate:.0} checks a second, \
             {kept:.0} % on kept connections: {share:.1} % of a core, {each:.1} µs each"
        );
    });
    drop(process.stdin.take());
    process.wait().expect("the instances end");
}

/// Checks that were made on a connection that was kept.
fn on_kept(told: &Metrics) -> u64 {
    let page = told.render();
    let counts = page
        .lines()
        .filter(|line| line.starts_with("pointsman_check_connections_total{") && line.contains("connection=\"kept\""));
    counts.filter_map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok())).sum()
}

/// Checks that passed so far; none may fail.
fn checks_made(told: &Metrics) -> u64 {
    let page = told.render();
    let mut made = 0;
    for line in page.lines().filter(|line| line.starts_with("pointsman_checks_total{")) {
        assert!(line.contains("result=\"passed\""), "{line}");
        made += line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count");
    }
    made
}

/// The processor time of this thread so far.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number");
    Duration::from_nanos(nanos)
}

criterion_group!(benches, schedule, whole, fleet_of_fifty_thousand);

fn main() {
    if std::env::var_os(INSTANCES).is_some() {
        return be_instances();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
