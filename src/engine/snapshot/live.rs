//! Live state of one endpoint: the only mutable things reachable from a table. Atomics, no lock.
//!
//! Writers: any worker (evidence, in-flight), the checks and the admin side (through `record`). The publisher reads.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Health, in-flight and latency of one endpoint, keyed by identity and address.
#[derive(Debug)]
pub struct Live {
    /// Unique in the process; never reused. Workers key their own per-endpoint state (connections, metrics) by it.
    pub id: u64,
    /// Requests (and tunnels) between pick and the end of the answer.
    in_flight: AtomicU32,
    // helper B: packed health word, consecutive counters, check verdict, drained, window, dirty flag …
    #[allow(dead_code)]
    health: AtomicU64,
    #[allow(dead_code)]
    dirty: AtomicBool,
}

impl Live {
    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}
