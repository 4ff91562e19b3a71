//! All endpoints that a worker has talked to.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use rustc_hash::FxHashMap;

use super::peer::Peer;
use crate::engine::snapshot::Endpoint;
use crate::engine::time::Millis;

/// A worker's peers by the id of their live state.
#[derive(Debug)]
pub struct Peers<B: Body + 'static> {
    known: RefCell<FxHashMap<u64, Rc<Peer<B>>>>,
    /// The key of the label that names an instance's protocol.
    protocol_label: Box<str>,
}

impl<B> Peers<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// None yet. `protocol_label`: the key of the label that names an instance's protocol.
    #[must_use]
    pub fn new(protocol_label: &str) -> Self {
        Self { known: RefCell::default(), protocol_label: protocol_label.into() }
    }

    /// The worker's side of an endpoint.
    pub fn of(&self, endpoint: &Endpoint) -> Rc<Peer<B>> {
        let mut known = self.known.borrow_mut();
        let peer =
            known.entry(endpoint.live.id).or_insert_with(|| Rc::new(Peer::new(endpoint, &self.protocol_label, None)));
        if !Arc::ptr_eq(&peer.instance, &endpoint.instance) {
            *peer = Rc::new(Peer::new(endpoint, &self.protocol_label, Some(peer)));
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

    /// Connections to instances from this worker, in use or idle.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.known.borrow().values().map(|peer| peer.open()).sum()
    }
}
