//! Envoy with its defaults: round robin; outlier detection with five 5xx in a row and, each 10 s, the standard
//! deviation of success rates (five hosts with 100 requests, factor 1.9); 30 s times the number of ejections, up to
//! 300 s; at most 10 % of a cluster, though always one; panic below 50 % healthy; the usual
//! `retry_on: gateway-error,connect-failure,reset` with its one retry, at any host.
//! (envoyproxy documentation, "Outlier detection", "Panic threshold" and "Router", version 1.31.)

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{Policy, Setting, clusters};
use crate::fleet::{Answer, Fleet, Patience};
use crate::time::{MS, Micros, SECOND, Time};

const CONSECUTIVE: u32 = 5;
const INTERVAL: Micros = 10 * SECOND;
const BASE: Micros = 30 * SECOND;
const LONGEST: Micros = 300 * SECOND;
const MOST_PERCENT: usize = 10;
const PANIC_PERCENT: usize = 50;
const STDEV_HOSTS: usize = 5;
const STDEV_REQUESTS: u32 = 100;
const STDEV_FACTOR: f64 = 1.9;

#[derive(Clone, Default)]
struct Host {
    instance: usize,
    failures: u32,
    ejections: u32,
    ejected_until: Option<Micros>,
    good: u32,
    all: u32,
}

struct Cluster {
    hosts: Vec<Host>,
    turn: usize,
}

pub struct Envoy {
    time: Rc<Time>,
    fleet: Rc<Fleet>,
    clusters: RefCell<Vec<Cluster>>,
}

impl Envoy {
    pub fn new(setting: &Setting) -> Self {
        let cluster = |members: Vec<usize>| Cluster {
            hosts: members.into_iter().map(|instance| Host { instance, ..Host::default() }).collect(),
            turn: 0,
        };
        let clusters = RefCell::new(clusters(setting).into_iter().map(cluster).collect());
        let (time, fleet) = (Rc::clone(&setting.time), Rc::clone(&setting.fleet));
        Self { time, fleet, clusters }
    }

    /// The detector's interval: ejections end here, and success rates are compared.
    fn sweep(&self) {
        for cluster in self.clusters.borrow_mut().iter_mut() {
            let now = self.time.now();
            for host in &mut cluster.hosts {
                if host.ejected_until.is_some_and(|until| until <= now) {
                    (host.ejected_until, host.failures) = (None, 0);
                } else if host.ejected_until.is_none() {
                    host.ejections = host.ejections.saturating_sub(1);
                }
            }
            for at in cluster.outliers() {
                cluster.eject(at, now);
            }
            cluster.hosts.iter_mut().for_each(|host| (host.good, host.all) = (0, 0));
        }
    }
}

impl Cluster {
    fn pick(&mut self) -> usize {
        let well: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].ejected_until.is_none()).collect();
        self.turn += 1;
        if well.len() * 100 < self.hosts.len() * PANIC_PERCENT {
            return self.turn % self.hosts.len();
        }
        well[self.turn % well.len()]
    }

    fn told(&mut self, at: usize, answer: Answer, now: Micros) {
        let host = &mut self.hosts[at];
        host.all += 1;
        if answer.is_good() {
            (host.failures, host.good) = (0, host.good + 1);
            return;
        }
        host.failures += 1;
        if host.failures >= CONSECUTIVE && host.ejected_until.is_none() {
            self.eject(at, now);
        }
    }

    fn eject(&mut self, at: usize, now: Micros) {
        let out = self.hosts.iter().filter(|host| host.ejected_until.is_some()).count();
        if out > 0 && (out + 1) * 100 > self.hosts.len() * MOST_PERCENT {
            return;
        }
        let host = &mut self.hosts[at];
        host.ejections += 1;
        host.ejected_until = Some(now + (BASE * u64::from(host.ejections)).min(LONGEST));
    }

    fn outliers(&self) -> Vec<usize> {
        let rates: Vec<(usize, f64)> = (0..self.hosts.len())
            .filter(|at| self.hosts[*at].all >= STDEV_REQUESTS && self.hosts[*at].ejected_until.is_none())
            .map(|at| (at, f64::from(self.hosts[at].good) / f64::from(self.hosts[at].all)))
            .collect();
        if rates.len() < STDEV_HOSTS {
            return Vec::new();
        }
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / rates.len() as f64;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64;
        let least = mean - STDEV_FACTOR * variance.sqrt();
        rates.into_iter().filter(|(_, rate)| *rate < least).map(|(at, _)| at).collect()
    }
}

impl Policy for Envoy {
    fn send(self: Rc<Self>, request: u64) -> Pin<Box<dyn Future<Output = Answer>>> {
        if request == 0 {
            let (time, sweeping) = (Rc::clone(&self.time), Rc::clone(&self));
            self.time.spawn_at(INTERVAL, async move {
                loop {
                    sweeping.sweep();
                    time.sleep(INTERVAL).await;
                }
            });
        }
        Box::pin(async move {
            let cluster = request as usize % self.clusters.borrow().len();
            let mut answer = Answer::Refused;
            for retry in 0..2 {
                if retry > 0 {
                    // 25 ms at most, jittered; the mean.
                    self.time.sleep(12 * MS).await;
                }
                let at = self.clusters.borrow_mut()[cluster].pick();
                let instance = self.clusters.borrow()[cluster].hosts[at].instance;
                answer = self.fleet.attempt(instance, Patience::default()).await;
                self.clusters.borrow_mut()[cluster].told(at, answer, self.time.now());
                if answer.is_good() || answer == Answer::Status(500) {
                    break;
                }
            }
            answer
        })
    }
}
