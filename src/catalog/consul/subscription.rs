//! What the tasks of one subscription (one datacenter of one cluster) share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::Settings;
use super::resolve::Names;
use super::services::Listed;
use crate::catalog::CatalogStatus;
use crate::catalog::http::Client;
use crate::catalog::status::{Cell, SourceFigures};
use crate::catalog::watch::board::Board;
use crate::catalog::watch::limiter::Limiter;
use crate::engine::time::Draw;

/// One datacenter's tasks share this.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Its number on the board.
    pub(super) part: usize,
    /// Its name in figures and logs: `consul`, or `consul/<dc>`.
    pub(super) name: String,
    /// The datacenter asked for; empty: the agent's own.
    pub(super) dc: String,
    pub(super) settings: Arc<Settings>,
    pub(super) client: Arc<Client>,
    pub(super) board: Arc<Board>,
    pub(super) status: Arc<CatalogStatus>,
    pub(super) figures: Arc<Cell<SourceFigures>>,
    /// Requests to the address, all watches together.
    pub(super) requests: Mutex<Limiter>,
    /// First fetches at once.
    pub(super) starting: Semaphore,
    /// Queries that are blocked; the rest of the budget is for reads that answer at once.
    pub(super) blocking: Blocking,
    /// Services that found no such connection.
    pub(super) rotated: AtomicUsize,
    /// The last list of services.
    pub(super) listed: watch::Sender<Listed>,
    /// Who reads it out of turn: thousands of services may want that at once.
    pub(super) rereading: Semaphore,
    pub(super) names: Names,
    pub(super) own: OwnAddresses,
}

impl Subscription {
    /// Waits for a permit of the address's limiter.
    pub(super) async fn permit(&self) {
        loop {
            let now = self.board.now();
            let wait = match self.requests.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
                Ok(()) => return,
                Err(wait) => wait,
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

/// Connections that blocked queries leave to reads that answer at once.
pub(super) const SPARE: usize = 4;

/// Counts blocked queries. How many there may be changes: HTTP/2 carries many a connection, and an agent that shows its
/// limit halves the budget.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocking(Arc<AtomicUsize>);

/// The right to block one query, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Blocking {
    /// A place, when fewer than `limit` are taken.
    pub(super) fn take(&self, limit: usize) -> Option<Place> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1));
        taken.is_ok().then(|| Place(Arc::clone(&self.0)))
    }
}

impl Place {
    /// Whether more are taken than there may be now.
    pub(super) fn one_too_many(&self, limit: usize) -> bool {
        self.0.load(Ordering::Acquire) > limit
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A seed nobody can guess, for jitter.
pub(super) fn luck() -> Draw {
    Draw(RandomState::new().build_hasher().finish())
}

/// A duration give or take a fifth.
pub(super) fn about(duration: Duration, draw: &mut Draw) -> Duration {
    let millis = duration.as_millis() as u64;
    Duration::from_millis(millis - millis / 5 + draw.below(millis / 5 * 2 + 1))
}

/// Our own listeners: instances there would send a request back to us (P8).
#[derive(Debug, Default)]
pub(super) struct OwnAddresses(Vec<SocketAddr>);

impl OwnAddresses {
    pub(super) fn new(listeners: &[SocketAddr]) -> Self {
        Self(listeners.to_vec())
    }

    /// Whether this is one of our listeners. A listener on every address is met at every address of this machine.
    pub(super) fn contain(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        self.0.iter().any(|listener| {
            listener.port() == addr.port()
                && (listener.ip().to_canonical() == ip || listener.ip().is_unspecified() && is_ours(ip))
        })
    }
}

/// Whether the machine has this address: only then can a socket be bound to it.
fn is_ours(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listeners_are_known_by_address_and_port() {
        let own = OwnAddresses::new(&["127.0.0.1:8080".parse().unwrap(), "0.0.0.0:8443".parse().unwrap()]);
        let check = |addr: &str, expected: bool| assert_eq!(own.contain(addr.parse().unwrap()), expected, "{addr}");
        check("127.0.0.1:8080", true);
        check("[::ffff:127.0.0.1]:8080", true);
        check("127.0.0.1:8081", false);
        check("127.0.0.9:8443", true);
        check("192.0.2.1:8443", false);
    }

    #[test]
    fn places_are_given_up_when_the_budget_shrinks() {
        let blocking = Blocking::default();
        let places: Vec<Place> = (0..3).filter_map(|_| blocking.take(3)).collect();
        assert!(places.len() == 3 && blocking.take(3).is_none());
        assert!(!places[0].one_too_many(3) && places[0].one_too_many(2));
        drop(places);
        assert!(blocking.take(1).is_some());
    }

    #[test]
    fn about_means_give_or_take_a_fifth() {
        for seed in 0..1_000 {
            let about = about(Duration::from_secs(300), &mut Draw(seed));
            assert!((240..=360).contains(&about.as_secs()), "{about:?}");
        }
    }
}
