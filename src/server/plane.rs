//! The data plane as its owner sees it: start, addresses, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::addresses::Addresses;
use super::listen;
use super::placement::Placement;
use super::settings::{Limits, Listen};
use super::worker::{self, Drain, Seed};
use crate::forward::Shared;

/// Connections that may be on their way to one worker.
const INBOX: usize = 1_024;

/// Workers that accept and serve. Dropped without a drain, everything is cut.
#[derive(Debug)]
pub struct DataPlane {
    addresses: Vec<SocketAddr>,
    workers: Vec<Running>,
    placement: Placement,
}

#[derive(Debug)]
struct Running {
    drain: oneshot::Sender<Drain>,
    thread: JoinHandle<()>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still busy at the end of the time, and were cut.
    pub cut: usize,
}

impl DataPlane {
    /// Binds the addresses and starts `shared.workers` workers. Returns when all of them accept.
    ///
    /// # Errors
    /// An address cannot be bound, or a thread or its runtime cannot be made.
    pub async fn start(listen: Vec<Listen>, shared: &Shared, limits: &Limits) -> io::Result<Self> {
        let count = shared.workers.max(1);
        let (mut addresses, mut sockets) = (Vec::new(), Vec::new());
        for listen in &listen {
            let (bound, listeners) = listen::bind(listen.address, count, limits.backlog, limits.unsent)?;
            addresses.push(bound);
            sockets.push(listeners.into_iter());
        }
        let placement = Placement::new(count, limits.connections);
        shared.book.memory().set_limit(limits.memory);
        let per_address = Addresses::new(limits.per_address);
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(INBOX)).unzip();
        let mut workers = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (drain, ordered) = oneshot::channel();
            let (ready, started) = oneshot::channel();
            let seed = Seed {
                index,
                shared: shared.clone(),
                limits: limits.clone(),
                listen: listen.clone(),
                listeners: sockets.iter_mut().filter_map(Iterator::next).collect(),
                inbox,
                outboxes: outboxes.clone(),
                placement: placement.clone(),
                addresses: Arc::clone(&per_address),
                drain: ordered,
            };
            let name = format!("worker-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || worker::run(seed, ready))?;
            started.await.map_err(|_| io::Error::other("a worker's thread ended before it was ready"))??;
            workers.push(Running { drain, thread });
        }
        Ok(Self { addresses, workers, placement })
    }

    /// The bound addresses, in the order in which they were asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops: what is queued is accepted, the listeners are closed, idle connections end, busy ones get their answer
    /// with `Connection: close` and end within `timeout`. Waiting before it (`drain.delay`) is the caller's.
    pub async fn drain(self, timeout: Duration) -> Drained {
        self.placement.settle();
        let mut ends = Vec::new();
        let mut threads = Vec::new();
        for Running { drain, thread } in self.workers {
            let (cut, ended) = oneshot::channel();
            // A worker whose thread is gone has nothing left to cut.
            let _ = drain.send(Drain { timeout, cut });
            ends.push(ended);
            threads.push(thread);
        }
        let mut drained = Drained::default();
        for ended in ends {
            drained.cut += ended.await.unwrap_or(0);
        }
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).all(|j| j.is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a worker's thread panicked");
        }
        drained
    }
}
