//! One worker: a thread with a runtime of its own, its acceptors, its connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_local;

use super::accept;
use super::addresses::{Addresses, Crowded, Place};
use super::entry::{Who, enter};
use super::h2::date::Date;
use super::placement::Placement;
use super::settings::{Limits, Listen};
use super::slow::{Slow, make_room};
use super::turns::{self, Turns};
use crate::engine::time::Millis;
use crate::forward;
use crate::forward::Connection;
use crate::forward::connection::{Entrance, Phase, Tls};
use crate::observe::names;

/// What a worker's thread is started with.
pub struct Seed {
    /// 0-based.
    pub index: usize,
    /// What the forwarding side shares.
    pub shared: forward::Shared,
    /// Limits.
    pub limits: Limits,
    /// The listeners, in order.
    pub listen: Vec<Listen>,
    /// Its listening sockets, one for each.
    pub listeners: Vec<StdListener>,
    /// Connections that other workers hand over.
    pub inbox: mpsc::Receiver<Handed>,
    /// The inboxes of all workers.
    pub outboxes: Vec<mpsc::Sender<Handed>>,
    /// Who has how many.
    pub placement: Placement,
    /// Who holds how many of them.
    pub addresses: Arc<Addresses>,
    /// The order to drain.
    pub drain: oneshot::Receiver<Drain>,
}

/// A connection on its way to another worker, and the listener that it came by.
pub type Handed = (usize, StdStream, SocketAddr);

/// The order to stop.
#[derive(Debug)]
pub struct Drain {
    /// How long connections may go on.
    pub timeout: Duration,
    /// Told how many had to be cut.
    pub cut: oneshot::Sender<usize>,
}

/// The most that is kept of a drain's time for tunnels to end with a word.
const GOODBYE: Duration = Duration::from_secs(1);

/// A worker's connections and what they share.
pub struct Worker {
    /// 0-based.
    pub index: usize,
    /// The forwarding side.
    pub forward: Rc<forward::Worker>,
    /// Limits.
    pub limits: Rc<Limits>,
    /// The listeners.
    pub listen: Vec<Listen>,
    /// What holds for the requests of each.
    entrances: Vec<Rc<Entrance>>,
    /// How HTTP/1 is served.
    pub http: http1::Builder,
    /// The same for listeners with `half_close`.
    pub half_closing: http1::Builder,
    /// How HTTP/2 is served.
    pub h2: h2::server::Builder,
    /// The Date field of answers over HTTP/2.
    pub date: Date,
    /// Who has how many.
    pub placement: Placement,
    /// Connections by address.
    addresses: Arc<Addresses>,
    /// When a failure to accept was logged last; milliseconds of the clock.
    pub accept_told: Cell<Option<Millis>>,
    /// The inboxes of all workers.
    pub outboxes: Vec<mpsc::Sender<Handed>>,
    /// Set when draining: acceptors take what is queued and end.
    pub stopping: Cell<bool>,
    /// Set when each answer under way is its connection's last.
    pub closing: Cell<bool>,
    /// Tells those who have not begun that `closing` was set.
    pub drains: Notify,
    /// Tells acceptors that `stopping` was set.
    pub stop: Notify,
    /// `None`: not greeted yet (a handshake).
    open: RefCell<FxHashMap<u64, Option<Rc<Connection>>>>,
    next: Cell<u64>,
    /// Told when a connection ends while draining.
    ended: Notify,
    /// Where streams can be slow.
    pub slow: Slow,
    /// Connections that begin.
    pub beginnings: Turns,
    /// Steps of handshakes.
    pub handshakes: Turns,
}

/// After so many polls of tasks the runtime looks at its events, if it has not run out of tasks before: so long, about, a
/// request may wait behind others' turns (`forward::turn`) before it is heard of.
const EVENTS: u32 = 16;

/// How long connections are looked at before those without a request are closed by a drain.
pub const LAST_LOOK: Duration = Duration::from_millis(20);

/// Runs a worker until it has drained. `ready` is told when it accepts.
pub fn run(seed: Seed, ready: oneshot::Sender<io::Result<()>>) {
    let runtime =
        match Builder::new_current_thread().enable_all().event_interval(EVENTS).build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
    runtime.block_on(async {
        let Seed { index, shared, limits, listen, listeners, inbox, outboxes, placement, addresses, drain } = seed;
        let worker = Rc::new(Worker::new(index, shared, limits, listen, (placement, addresses), outboxes));
        let acceptors: io::Result<Vec<_>> =
            listeners.into_iter().enumerate().map(|(at, socket)| accept::start(&worker, at, socket)).collect();
        let acceptors = match acceptors {
            Ok(acceptors) => acceptors,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(()));
        let takeover = spawn_local(take_over(Rc::clone(&worker), inbox));
        let ticking = spawn_local(tick(Rc::clone(&worker)));
        let yielding = spawn_local({
            let worker = Rc::clone(&worker);
            async move { worker.forward.peers.yield_when_asked().await }
        });
        let making_room = spawn_local(make_room(Rc::clone(&worker)));
        let turning = spawn_local({
            let worker = Rc::clone(&worker);
            async move {
                let rounds = worker.forward.clock.rounds.call();
                tokio::join!(worker.beginnings.renew(), worker.handshakes.renew(), rounds)
            }
        });
        // The plane dropped without a drain: everything is cut.
        let Ok(Drain { timeout, cut }) = drain.await else { return };
        worker.stopping.set(true);
        worker.stop.notify_waiters();
        for acceptor in acceptors {
            let _ = acceptor.await;
        }
        let left = worker.finish(timeout).await;
        takeover.abort();
        ticking.abort();
        making_room.abort();
        yielding.abort();
        turning.abort();
        let _ = cut.send(left);
    });
}

impl Worker {
    fn new(
        index: usize,
        shared: forward::Shared,
        limits: Limits,
        listen: Vec<Listen>,
        (placement, addresses): (Placement, Arc<Addresses>),
        outboxes: Vec<mpsc::Sender<Handed>>,
    ) -> Self {
        let mut http = http1::Builder::new();
        // Head and idle limits are the connection driver's, on its one timer.
        http.header_read_timeout(None);
        http.max_buf_size(limits.head_size.max(8 * 1024)).max_header_size(limits.head_size);
        http.max_headers(limits.fields).half_close(false);
        let mut half_closing = http.clone();
        half_closing.half_close(true);
        Self {
            index,
            forward: forward::Worker::new(shared, index),
            entrances: listen.iter().map(|listen| Rc::new(listen.entrance.clone())).collect(),
            listen,
            http,
            half_closing,
            h2: super::h2::builder(&limits),
            date: Date::default(),
            limits: Rc::new(limits),
            placement,
            addresses,
            outboxes,
            stopping: Cell::new(false),
            closing: Cell::new(false),
            stop: Notify::new(),
            open: RefCell::default(),
            next: Cell::new(0),
            ended: Notify::new(),
            drains: Notify::new(),
            slow: Slow::default(),
            accept_told: Cell::new(None),
            beginnings: Turns::new(turns::CONNECTIONS),
            handshakes: Turns::new(turns::HANDSHAKES),
        }
    }

    /// Open connections of which this holds.
    pub fn connections(&self, holds: impl Fn(&Connection) -> bool) -> Vec<Rc<Connection>> {
        self.open.borrow().values().flatten().filter(|open| holds(open)).map(Rc::clone).collect()
    }

    /// Serves a connection that is counted for this worker already.
    pub fn begin(self: &Rc<Self>, listener: usize, stream: TcpStream, peer: SocketAddr) {
        let worker = Rc::clone(self);
        let id = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(id, None);
        self.forward.metrics.cells().connections.add(1);
        spawn_local(async move {
            let _open = Open { worker: Rc::clone(&worker), id };
            enter(worker, id, listener, stream, peer).await;
        });
    }

    /// What the exchanges of a connection share, once it is known who the client is, or that nobody knows it.
    pub fn register(&self, id: u64, listener: usize, who: Who, tls: Option<Tls>) -> Rc<Connection> {
        self.forward.clock.read();
        let (entrance, account) = (Rc::clone(&self.entrances[listener]), &self.forward.account);
        let Who { ends, anonymous } = who;
        let trusted = !anonymous && self.trusts(ends.client);
        let clock = Rc::clone(&self.forward.clock);
        let mut connection = Connection::new(clock, ends, trusted, tls, entrance, account);
        connection.anonymous = anonymous;
        let connection = Rc::new(connection);
        connection.closing.set(self.closing.get());
        connection.write_idle.set(self.prolonged(self.limits.write_idle));
        self.open.borrow_mut().insert(id, Some(Rc::clone(&connection)));
        connection
    }

    /// A limit in milliseconds, less up to a tenth of it: clients that came together do not come back together.
    #[must_use]
    pub fn jittered(&self, limit: u64) -> u64 {
        limit - self.forward.draw().below(limit / 10 + 1)
    }

    /// A limit in milliseconds, and up to half of it more: clients that stopped reading together come back over a time that
    /// is long beside the one in which they came, and nobody is cut before the limit.
    fn prolonged(&self, limit: u64) -> u64 {
        limit.saturating_add(self.forward.draw().below(limit / 2 + 1))
    }

    /// A place among the connections from this address, where there is a limit.
    ///
    /// # Errors
    /// It has all that it may, which is counted.
    pub fn place_of(&self, peer: SocketAddr) -> Result<Option<Place>, Crowded> {
        if !self.addresses.is_limited() || self.trusts(peer) {
            return Ok(None);
        }
        self.addresses.take(peer.ip()).map(Some).ok_or_else(|| {
            self.forward.metrics.word(&names::REFUSALS, "connections_per_address");
            tracing::debug!(%peer, "a connection was refused: its address has all that it may");
            Crowded
        })
    }

    /// Whether it is one of the trusted proxies.
    #[must_use]
    pub fn trusts(&self, peer: SocketAddr) -> bool {
        let trusted = &self.forward.settings.trusted_proxies;
        !trusted.is_empty() && trusted.iter().any(|net| net.contains(&peer.ip().to_canonical()))
    }

    /// Waits for the connections to end; returns how many were left.
    async fn finish(&self, timeout: Duration) -> usize {
        // Requests that the system holds already are told by its next events only: without this look a connection
        // would be closed over them.
        tokio::time::sleep(LAST_LOOK).await;
        self.closing.set(true);
        self.drains.notify_waiters();
        for connection in self.open.borrow().values().flatten() {
            connection.closing.set(true);
            connection.wake();
        }
        let all_ended = || async {
            while !self.open.borrow().is_empty() {
                self.ended.notified().await;
            }
        };
        // The last of the time is for tunnels to say goodbye.
        let goodbye = (timeout / 10).min(GOODBYE);
        if tokio::time::timeout(timeout - goodbye, all_ended()).await.is_ok() {
            return 0;
        }
        let mut told = 0;
        for connection in self
            .open
            .borrow()
            .values()
            .flatten()
            .filter(|open| matches!(open.phase.get(), Phase::Tunnel | Phase::Streams))
        {
            connection.going_away.set(true);
            connection.wake();
            told += 1;
        }
        let _ = tokio::time::timeout(goodbye, all_ended()).await;
        let open = self.open.borrow();
        told + open.values().filter(|open| !open.as_ref().is_some_and(|open| open.going_away.get())).count()
    }
}

/// Counts a connection while its task lives.
struct Open {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.borrow_mut().remove(&self.id);
        self.worker.placement.leave(self.worker.index);
        self.worker.forward.metrics.cells().connections.sub(1);
        self.worker.ended.notify_one();
    }
}

/// Serves what other workers accepted and have too many of.
async fn take_over(worker: Rc<Worker>, mut inbox: mpsc::Receiver<Handed>) {
    while let Some((at, stream, peer)) = inbox.recv().await {
        worker.beginnings.take().await;
        match TcpStream::from_std(stream) {
            Ok(stream) => worker.begin(at, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "a connection that was handed over is lost");
                worker.placement.leave(worker.index);
            }
        }
    }
}

/// Once a second: idle connections to instances, and the view of the table where no request looks.
async fn tick(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.forward.tick();
    }
}
