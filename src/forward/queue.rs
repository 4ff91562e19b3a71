//! A place at an instance: taken at once, at another member of the pool that has room, or after a short wait in turn.
//!
//! Who waits stands in one line for each instance, over all workers; nobody who comes later overtakes him. The line is
//! bounded in length and time, so what cannot be served is told so quickly.

use std::pin::pin;
use std::rc::Rc;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::answer::Refusal;
use super::error::Detail;
use super::exchange::{Exchange, InFlight, Peer};
use super::hedge::Trying;
use super::wait::until;
use crate::engine::balance::Picked;
use crate::engine::limit::Load;
use crate::engine::policy::Concurrency;
use crate::engine::snapshot::{EndpointIdx, Live};
use crate::engine::tries::Tries;
use crate::observe::names;

/// Members of the pool that are asked for room before the request waits.
const ASKED: usize = 4;

/// A place at the endpoint that was picked, or at another one, which is then the one that was picked. At once where
/// there is no limit.
///
/// # Errors
/// `overloaded`: the line is full, or the wait was too long.
pub async fn place(
    trying: &Trying<'_>,
    exchange: &Exchange,
    picked: &mut Picked,
    tries: &Tries<'_>,
) -> Result<InFlight, Refusal> {
    let peer = trying.peer(*picked);
    let Some(load) = trying.view.file(trying.file).load.as_ref() else { return Ok(InFlight::new(peer)) };
    let free = load.policy.instance == Concurrency::Unlimited || picked.probe || exchange.admission.exempt;
    if free {
        return Ok(InFlight::new(peer));
    }
    if let Some(on) = at_once(load, &peer, false) {
        return Ok(on);
    }
    let now = exchange.connection().clock.now();
    let mut full: SmallVec<[EndpointIdx; ASKED]> = SmallVec::from_slice(&[picked.endpoint]);
    let (mut best, mut at) = (peer, *picked);
    while full.len() < ASKED
        && let Some(other) = tries.instead(now, &full)
    {
        let peer = trying.peer(other);
        if let Some(on) = at_once(load, &peer, false) {
            *picked = other;
            return Ok(on);
        }
        full.push(other.endpoint);
        if peer.live.waiting() < best.live.waiting() {
            (best, at) = (peer, other);
        }
    }
    *picked = at;
    wait(trying, exchange, load, &best).await
}

/// A place at this endpoint now; `None`: it is full.
pub fn beside(trying: &Trying<'_>, picked: Picked) -> Option<InFlight> {
    let peer = trying.peer(picked);
    match &trying.view.file(trying.file).load {
        Some(load) if load.policy.instance != Concurrency::Unlimited => at_once(load, &peer, false),
        _ => Some(InFlight::new(peer)),
    }
}

async fn wait(trying: &Trying<'_>, exchange: &Exchange, load: &Load, peer: &Rc<Peer>) -> Result<InFlight, Refusal> {
    let refuse = |why| {
        exchange.count(&names::QUEUED, why);
        exchange.count(&names::LIMITED, "instance");
        Err(Detail::Overloaded.into())
    };
    let Some(waiting) = Waiting::join(peer, load.policy.queue) else { return refuse("full") };
    let line = line(&peer.live);
    let connection = exchange.connection();
    let deadline = connection.clock.now().plus(load.policy.wait).min(trying.limits.total);
    // Only the first in the line may look without having been called: a place may have come free just now.
    let mut called = peer.live.waiting() == 1;
    loop {
        let mut notified = pin!(line.notified());
        notified.as_mut().enable();
        if called && let Some(on) = at_once(load, peer, true) {
            drop(waiting);
            // There may be room for the next one as well.
            call_next(&peer.live);
            exchange.count(&names::QUEUED, "served");
            return Ok(on);
        }
        if until(connection, deadline, notified).await.is_err() {
            // The place that he was called for is not lost with him, and a limit may have risen: who gives up looks, and
            // calls the next one.
            let on = at_once(load, peer, true);
            drop(waiting);
            call_next(&peer.live);
            return match on {
                Some(on) => {
                    exchange.count(&names::QUEUED, "served");
                    Ok(on)
                }
                None => refuse("timeout"),
            };
        }
        called = true;
    }
}

fn at_once(load: &Load, peer: &Rc<Peer>, queued: bool) -> Option<InFlight> {
    let limit = match load.policy.instance {
        Concurrency::Unlimited => u32::MAX,
        Concurrency::Fixed(limit) => limit,
        Concurrency::Adaptive => peer.live.adaptive.limit(),
    };
    peer.live.try_begin(limit, queued).then(|| InFlight::begun(Rc::clone(peer)))
}

/// A request to this endpoint has ended, or left its line: the next one who waits, if anybody does, looks for a place.
pub fn call_next(live: &Live) {
    if live.waiting() > 0 {
        line(live).notify_one();
    }
}

/// The line at an endpoint.
fn line(live: &Live) -> &Notify {
    let line = live.line.get_or_init(|| Box::new(Notify::new()));
    line.downcast_ref().expect("nobody else fills the cell")
}

/// What an answer's latency says of how much the instance and the service carry.
pub fn learn(trying: &Trying<'_>, exchange: &Exchange, micros: u64) {
    let Some(load) = trying.view.file(trying.file).load.as_ref() else { return };
    let now = exchange.connection().clock.now();
    if load.policy.service == Concurrency::Adaptive {
        load.adaptive.observe(micros, load.held(), now);
    }
    if load.policy.instance == Concurrency::Adaptive
        && let Some(peer) = exchange.peer()
    {
        peer.live.adaptive.observe(micros, peer.live.in_flight(), now);
    }
}

/// One who waits.
struct Waiting<'p>(&'p Peer);

impl<'p> Waiting<'p> {
    fn join(peer: &'p Rc<Peer>, most: u32) -> Option<Self> {
        peer.live.join(most).then(|| Self(peer))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.live.leave();
    }
}
