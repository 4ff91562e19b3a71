//! Linkerd's proxy: the better of two by peak EWMA of latency times requests in flight, and, switched on, the circuit
//! breaker of consecutive failures: seven failures (5xx or no answer) open it; after 1 s, doubled on each failure to
//! 60 s, one request is let through. No retries (they are per route and off). A request when every breaker is open
//! waits in a queue that fails after 3 s; here it fails at once, which only flatters it.
//! (linkerd2 documentation, "Circuit breaking" and "Load balancing", version 2.16.)

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use pointsman::engine::time::Draw;

use super::{Policy, Setting, clusters};
use crate::fleet::{Answer, Fleet, Patience};
use crate::time::{MS, Micros, SECOND, Time};

const FAILURES: u32 = 7;
const SHORTEST: Micros = SECOND;
const LONGEST: Micros = 60 * SECOND;
/// Over which a measured latency fades.
const DECAY: f64 = (10 * SECOND) as f64;
/// What an endpoint that nobody has tried is taken for.
const UNKNOWN: f64 = (30 * MS) as f64;

#[derive(Clone, Copy)]
enum Breaker {
    Closed(u32),
    Open { until: Micros, backoff: Micros },
    Probing { backoff: Micros },
}

struct Endpoint {
    instance: usize,
    cost: f64,
    measured: Micros,
    in_flight: u32,
    breaker: Breaker,
}

pub struct Linkerd {
    time: Rc<Time>,
    fleet: Rc<Fleet>,
    clusters: RefCell<Vec<Vec<Endpoint>>>,
    luck: RefCell<Draw>,
}

impl Linkerd {
    pub fn new(setting: &Setting) -> Self {
        let endpoint =
            |instance| Endpoint { instance, cost: UNKNOWN, measured: 0, in_flight: 0, breaker: Breaker::Closed(0) };
        let clusters = clusters(setting).into_iter().map(|members| members.into_iter().map(endpoint).collect());
        Self {
            time: Rc::clone(&setting.time),
            fleet: Rc::clone(&setting.fleet),
            clusters: RefCell::new(clusters.collect()),
            luck: RefCell::new(Draw(setting.seed).fork(7)),
        }
    }

    fn pick(&self, cluster: usize) -> Option<usize> {
        let now = self.time.now();
        let endpoints = &mut self.clusters.borrow_mut()[cluster];
        let ready: Vec<usize> = (0..endpoints.len())
            .filter(|at| match endpoints[*at].breaker {
                Breaker::Closed(_) => true,
                Breaker::Open { until, .. } => until <= now,
                Breaker::Probing { .. } => false,
            })
            .collect();
        let mut luck = self.luck.borrow_mut();
        let first = *ready.get(luck.below(ready.len() as u64) as usize)?;
        let second = ready[luck.below(ready.len() as u64) as usize];
        let load = |at: usize| endpoints[at].load(now);
        let chosen = if load(second) < load(first) { second } else { first };
        let endpoint = &mut endpoints[chosen];
        endpoint.in_flight += 1;
        if let Breaker::Open { backoff, .. } = endpoint.breaker {
            endpoint.breaker = Breaker::Probing { backoff };
        }
        Some(chosen)
    }

    fn told(&self, cluster: usize, at: usize, answer: Answer, started: Micros) {
        let now = self.time.now();
        let endpoint = &mut self.clusters.borrow_mut()[cluster][at];
        endpoint.in_flight -= 1;
        endpoint.measure((now - started) as f64, now);
        endpoint.breaker = match (endpoint.breaker, answer.is_good()) {
            (_, true) => Breaker::Closed(0),
            (Breaker::Closed(failures), false) if failures + 1 < FAILURES => Breaker::Closed(failures + 1),
            (Breaker::Closed(_), false) => Breaker::Open { until: now + SHORTEST, backoff: SHORTEST },
            (Breaker::Probing { backoff }, false) => {
                let backoff = (backoff * 2).min(LONGEST);
                Breaker::Open { until: now + backoff, backoff }
            }
            (open @ Breaker::Open { .. }, false) => open,
        };
    }
}

impl Endpoint {
    fn load(&self, now: Micros) -> f64 {
        let faded = self.cost * (-((now - self.measured) as f64) / DECAY).exp();
        faded * f64::from(self.in_flight + 1)
    }

    fn measure(&mut self, latency: f64, now: Micros) {
        let kept = (-((now - self.measured) as f64) / DECAY).exp();
        self.cost = if latency > self.cost { latency } else { self.cost * kept + latency * (1.0 - kept) };
        self.measured = now;
    }
}

impl Policy for Linkerd {
    fn send(self: Rc<Self>, request: u64) -> Pin<Box<dyn Future<Output = Answer>>> {
        Box::pin(async move {
            let cluster = request as usize % self.clusters.borrow().len();
            let Some(at) = self.pick(cluster) else { return Answer::Status(503) };
            let started = self.time.now();
            let instance = self.clusters.borrow()[cluster][at].instance;
            let answer = self.fleet.attempt(instance, Patience::default()).await;
            self.told(cluster, at, answer, started);
            answer
        })
    }
}
