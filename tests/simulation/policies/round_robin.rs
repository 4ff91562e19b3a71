//! Round robin in turn, no health, no retries: nginx without `max_fails`, or any list of addresses.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{Policy, Setting, clusters};
use crate::fleet::{Answer, Fleet, Patience};

pub struct RoundRobin {
    fleet: Rc<Fleet>,
    clusters: Vec<(Vec<usize>, Cell<usize>)>,
}

impl RoundRobin {
    pub fn new(setting: &Setting) -> Self {
        let clusters = clusters(setting).into_iter().map(|members| (members, Cell::new(0))).collect();
        Self { fleet: Rc::clone(&setting.fleet), clusters }
    }
}

impl Policy for RoundRobin {
    fn send(self: Rc<Self>, request: u64) -> Pin<Box<dyn Future<Output = Answer>>> {
        Box::pin(async move {
            let (members, turn) = &self.clusters[request as usize % self.clusters.len()];
            let at = turn.replace(turn.get() + 1) % members.len();
            self.fleet.attempt(members[at], Patience::default()).await
        })
    }
}
