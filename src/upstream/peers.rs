//! All endpoints that a worker has talked to.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use rustc_hash::FxHashMap;

use super::peer::{Peer, Terms};
use super::trust::Trusts;
use crate::engine::snapshot::Endpoint;
use crate::engine::time::Millis;
use crate::engine::upstream::Upstream;

/// A worker's peers by the id of their live state.
#[derive(Debug)]
pub struct Peers<B: Body + 'static> {
    known: RefCell<FxHashMap<u64, Rc<Peer<B>>>>,
    /// The key of the label that names an instance's protocol.
    protocol_label: Box<str>,
    trusts: Arc<Trusts>,
    terms: Rc<Terms>,
}

impl<B> Peers<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// None yet. `protocol_label`: the key of the label that names an instance's protocol.
    #[must_use]
    pub fn new(protocol_label: &str, trusts: Arc<Trusts>, terms: Terms) -> Self {
        Self { known: RefCell::default(), protocol_label: protocol_label.into(), trusts, terms: Rc::new(terms) }
    }

    /// The worker's side of an endpoint. `upstream`: what the rules say of its service.
    pub fn of(&self, endpoint: &Endpoint, upstream: &Rc<Upstream>) -> Rc<Peer<B>> {
        let mut known = self.known.borrow_mut();
        let fresh =
            |before| Rc::new(Peer::new(endpoint, upstream, &self.protocol_label, &self.trusts, &self.terms, before));
        let peer = known.entry(endpoint.live.id).or_insert_with(|| fresh(None));
        let same_terms = Rc::ptr_eq(&peer.upstream, upstream) || peer.upstream == *upstream;
        if !Arc::ptr_eq(&peer.instance, &endpoint.instance) || !same_terms {
            *peer = fresh(Some(peer));
        }
        Rc::clone(peer)
    }

    /// Closes idle links that are too old, were closed by their instance, or lead to an instance that `is_listed`
    /// denies; forgets peers without links. Once a second.
    pub fn sweep(&self, now: Millis, is_listed: impl Fn(&Peer<B>) -> bool) {
        self.known.borrow_mut().retain(|_, peer| {
            if !is_listed(peer) {
                peer.dismiss();
            }
            peer.sweep(now) || Rc::strong_count(peer) > 1
        });
    }

    /// Closes idle connections that other workers wait for, whenever they ask. Never ends.
    pub async fn yield_when_asked(&self) {
        let Some(bound) = &self.terms.bound else { return std::future::pending().await };
        loop {
            let mut asked = std::pin::pin!(bound.seats.asked());
            asked.as_mut().enable();
            self.known.borrow().values().for_each(|peer| peer.yield_idle());
            asked.await;
        }
    }

    /// Connections to instances from this worker, in use or idle.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.known.borrow().values().map(|peer| peer.open()).sum()
    }
}
