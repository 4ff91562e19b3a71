//! Connections to one address: at most so many, each kept and used again, one query at a time on HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::connect::Dialler;
use super::{Address, HttpError};

/// Streams on one HTTP/2 connection at most; Consul (Go) accepts 250.
const STREAMS: usize = 100;
/// How long the budget stays halved after the agent showed its limit.
const HALVED: Duration = Duration::from_secs(60);

/// The connections to one address.
#[derive(Debug)]
pub struct Pool {
    address: Address,
    limit: usize,
    shared: Arc<Shared>,
    /// One permit: where the other side speaks HTTP/2, one dials at a time.
    dialling: Semaphore,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    open: AtomicUsize,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<(http1::SendRequest<Full<Bytes>>, Ended)>,
    multiplexed: Vec<Multiplexed>,
    halved_until: Option<Instant>,
    speaks_h2: bool,
}

#[derive(Debug)]
struct Multiplexed {
    sender: http2::SendRequest<Full<Bytes>>,
    streams: Arc<AtomicUsize>,
    ended: Ended,
}

/// Why a connection ended, once it did. hyper tells only a request that was under way; one that came a moment later
/// learns no more than that nobody is there.
type Ended = Arc<Mutex<Option<hyper::Error>>>;

/// The right to one exchange.
#[derive(Debug)]
pub struct Lease {
    sender: Sender,
    ended: Ended,
    /// Whether nothing was ever sent on this connection before.
    pub fresh: bool,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Many(http2::SendRequest<Full<Bytes>>, #[allow(dead_code, reason = "counts the stream until it is dropped")] Slot),
}

/// A stream's place, given back when it is dropped.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>, Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        self.1.freed.notify_one();
    }
}

/// An open connection's place, given back when its driver ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(address: Address, limit: usize) -> Self {
        Self { address, limit: limit.max(1), shared: Arc::default(), dialling: Semaphore::new(1) }
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// The budget now.
    #[must_use]
    pub fn limit(&self) -> usize {
        let halved = self.shared.lock().halved_until.is_some_and(|until| Instant::now() < until);
        if halved { (self.limit / 2).max(1) } else { self.limit }
    }

    /// The agent showed its limit: half the budget for a minute.
    pub fn halve(&self) {
        self.shared.lock().halved_until = Some(Instant::now() + HALVED);
    }

    /// A connection: an idle one, or a new one when the budget has room, or the next one that is given back.
    ///
    /// # Errors
    /// No connection, no handshake or no room within `within`.
    pub async fn lease(&self, dialler: &Dialler, within: Duration) -> Result<Lease, HttpError> {
        let deadline = Instant::now() + within;
        let busy = || HttpError::Busy { address: self.address.to_string(), limit: self.limit() };
        loop {
            // Begun before looking: what is freed in between is not missed.
            let freed = self.shared.freed.notified();
            if let Some(lease) = self.take().await {
                return Ok(lease);
            }
            if let Some(open) = self.room() {
                return self.open_one(open, dialler, within).await;
            }
            tokio::time::timeout_at(deadline, freed).await.map_err(|_| busy())?;
        }
    }

    async fn take(&self) -> Option<Lease> {
        loop {
            let idle = {
                let mut state = self.shared.lock();
                state.multiplexed.retain(|one| !one.sender.is_closed());
                for one in &state.multiplexed {
                    if one.streams.fetch_add(1, Ordering::AcqRel) < STREAMS {
                        let slot = Slot(Arc::clone(&one.streams), Arc::clone(&self.shared));
                        let sender = Sender::Many(one.sender.clone(), slot);
                        return Some(self.lent(sender, Arc::clone(&one.ended), false));
                    }
                    one.streams.fetch_sub(1, Ordering::AcqRel);
                }
                state.idle.pop()?
            };
            let (mut sender, ended) = idle;
            if matches!(tokio::time::timeout(Duration::from_millis(100), sender.ready()).await, Ok(Ok(()))) {
                return Some(self.lent(Sender::One(sender), ended, false));
            }
        }
    }

    fn lent(&self, sender: Sender, ended: Ended, fresh: bool) -> Lease {
        Lease { sender, ended, fresh, shared: Arc::clone(&self.shared) }
    }

    fn room(&self) -> Option<Open> {
        let limit = self.limit();
        let taken = self
            .shared
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1));
        taken.is_ok().then(|| Open(Arc::clone(&self.shared)))
    }

    /// Dials. Where the other side speaks HTTP/2 one dials at a time, so that the others find the connection it makes.
    async fn open_one(&self, open: Open, dialler: &Dialler, within: Duration) -> Result<Lease, HttpError> {
        let tls = matches!(self.address, Address::Tcp { tls: true, .. });
        let waits = tls && (self.shared.lock().speaks_h2 || self.open() > 1);
        let late = || HttpError::ConnectTimeout { address: self.address.to_string(), within };
        let _turn = if tls {
            let turn = tokio::time::timeout(within, self.dialling.acquire()).await.map_err(|_| late())?;
            if waits && let Some(lease) = self.take().await {
                return Ok(lease);
            }
            Some(turn)
        } else {
            None
        };
        let (stream, h2) = dialler.dial(&self.address, within).await?;
        let io = TokioIo::new(stream);
        let broken = |source| HttpError::Broken { address: self.address.to_string(), source };
        let ended = Ended::default();
        if !h2 {
            let (sender, connection) = http1::handshake(io).await.map_err(broken)?;
            self.shared.lock().speaks_h2 = false;
            tokio::spawn(drive(connection, open, Arc::clone(&ended)));
            return Ok(self.lent(Sender::One(sender), ended, true));
        }
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .handshake(io);
        let (sender, connection) =
            tokio::time::timeout(within, handshake).await.map_err(|_| late())?.map_err(broken)?;
        tokio::spawn(drive(connection, open, Arc::clone(&ended)));
        let streams = Arc::new(AtomicUsize::new(1));
        let shared = Multiplexed { sender: sender.clone(), streams: Arc::clone(&streams), ended: Arc::clone(&ended) };
        let mut state = self.shared.lock();
        state.speaks_h2 = true;
        state.multiplexed.push(shared);
        drop(state);
        // Whoever waits for room finds some on this connection.
        self.shared.freed.notify_waiters();
        Ok(self.lent(Sender::Many(sender, Slot(streams, Arc::clone(&self.shared))), ended, true))
    }

    /// Queries that may be blocked at once, when this many connections are left for reads that answer at once.
    #[must_use]
    pub fn blockable(&self, spare: usize) -> usize {
        let connections = self.limit().saturating_sub(spare).max(1);
        if self.shared.lock().speaks_h2 { connections * STREAMS } else { connections }
    }
}

async fn drive(connection: impl Future<Output = hyper::Result<()>>, open: Open, ended: Ended) {
    if let Err(error) = connection.await {
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
    drop(open);
}

impl Lease {
    /// Whether several exchanges share the connection.
    #[must_use]
    pub fn multiplexed(&self) -> bool {
        matches!(self.sender, Sender::Many(..))
    }

    /// Sends a request and waits for the head. The caller sets the deadline.
    ///
    /// # Errors
    /// hyper's, as they are.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await,
            Sender::Many(sender, _) => sender.send_request(request).await,
        }
    }

    /// Why the connection ended, when it did with an error that no request was told.
    #[must_use]
    pub fn ended(&self) -> Option<hyper::Error> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the connection back, after the body was read to its end. A lease that is dropped instead closes it.
    pub fn give_back(self) {
        if let Sender::One(sender) = self.sender
            && !sender.is_closed()
        {
            self.shared.lock().idle.push((sender, self.ended));
            self.shared.freed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
