//! Who sends the requests: pointsman's engine, and textbook policies to hold it against.

mod envoy;
mod linkerd;
mod ours;
mod round_robin;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::fleet::{Answer, Fleet};
use super::scenario::{Fault, is_canary};
use super::time::Time;

/// What a policy is made for.
pub struct Setting {
    pub time: Rc<Time>,
    pub fleet: Rc<Fleet>,
    pub fault: Fault,
    pub seed: u64,
}

/// One way to send requests.
pub trait Policy {
    /// One request, with all its tries; what the client gets.
    fn send(self: Rc<Self>, request: u64) -> Pin<Box<dyn Future<Output = Answer>>>;
}

/// The policies, by the names that the table has.
pub const ALL: [&str; 5] = ["pointsman", "pointsman, ewma", "round robin", "Envoy's defaults", "Linkerd's breaker"];

/// How many of [`ALL`] are ours.
pub const OURS: usize = 2;

/// The policy of this name.
pub fn make(name: &str, setting: &Setting) -> Rc<dyn Policy> {
    match name {
        "pointsman" => ours::Ours::new(setting, "least"),
        "pointsman, ewma" => ours::Ours::new(setting, "ewma"),
        "round robin" => Rc::new(round_robin::RoundRobin::new(setting)),
        "Envoy's defaults" => Rc::new(envoy::Envoy::new(setting)),
        _ => Rc::new(linkerd::Linkerd::new(setting)),
    }
}

/// The clusters that a textbook proxy has: one of all instances, or canary and stable with half the traffic each.
fn clusters(setting: &Setting) -> Vec<Vec<usize>> {
    let all = 0..setting.fleet.size();
    if setting.fault.is_split() {
        let (canary, stable) = all.partition(|at| is_canary(*at));
        return vec![canary, stable];
    }
    vec![all.collect()]
}
