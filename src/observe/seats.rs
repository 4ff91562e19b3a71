//! Where connections to an instance are bounded (`upstream.max_connections`): who waits for one, and who holds idle ones
//! that he could do without, tell each other here. The counts are in the endpoint's live state.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Seats {
    asked: Notify,
    freed: Notify,
    waited: AtomicU64,
    refused: AtomicU64,
}

impl Seats {
    /// Asks every worker for the idle connections that somebody waits for.
    pub fn ask(&self) {
        self.asked.notify_waiters();
    }

    /// Ready when somebody asks. What is asked between making it and waiting for it counts, if it was enabled.
    pub fn asked(&self) -> Notified<'_> {
        self.asked.notified()
    }

    /// A connection that somebody waits for was closed.
    pub fn free(&self) {
        self.freed.notify_waiters();
    }

    /// Ready when a connection was closed that somebody waits for; as [`Seats::asked`].
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// A request waited: whether it got a connection.
    pub fn waited(&self, served: bool) {
        let count = if served { &self.waited } else { &self.refused };
        count.fetch_add(1, Relaxed);
    }

    /// Requests that waited and got a connection, and those that did not.
    #[must_use]
    pub fn waits(&self) -> (u64, u64) {
        (self.waited.load(Relaxed), self.refused.load(Relaxed))
    }
}
