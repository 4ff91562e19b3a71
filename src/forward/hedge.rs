//! A second try beside a slow first one (Dean, Barroso: "The Tail at Scale", 2013): the first good answer wins, the
//! other try is cancelled, which says nothing against its instance.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use super::attempt::{Ended, Limits, Outbound, Timing, try_at};
use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::{Exchange, InFlight, Peer};
use super::queue;
use super::retry::{Failure, Reading};
use super::view::View;
use super::worker::Worker;
use crate::engine::balance::Picked;
use crate::engine::policy::{Balance, Hedge};
use crate::engine::route::{FileIdx, RulePolicies};
use crate::engine::time::Millis;
use crate::engine::tries::Tries;
use crate::observe::names;

/// What is the same for every try of a request.
#[derive(Clone, Copy)]
pub struct Trying<'p> {
    /// The worker.
    pub worker: &'p Rc<Worker>,
    /// The table, as the worker sees it.
    pub view: &'p View,
    /// The file.
    pub file: FileIdx,
    /// The policies in force.
    pub policies: &'p RulePolicies,
    /// The request's limits.
    pub limits: &'p Limits,
    /// The instance sees its own address as Host.
    pub host_of_instance: bool,
}

impl Trying<'_> {
    /// The worker's side of an endpoint.
    #[must_use]
    pub fn peer(&self, picked: Picked) -> Rc<Peer> {
        self.worker.peers.of(self.view.table.endpoint(self.file, picked.endpoint), &self.view.file(self.file).upstream)
    }
}

/// One try at the exchange's endpoint, and beside it another one at another endpoint of the pool where the rule wants
/// that, the first is slow, the request is safe to repeat and the budget allows it. The result is that of the try that
/// won, with its endpoint; the exchange stands at it.
pub async fn attempt(
    trying: &Trying<'_>,
    exchange: &mut Exchange,
    outbound: &mut Outbound,
    picked: Picked,
    tries: &mut Tries<'_>,
) -> (Ended, Picked) {
    let file = trying.view.file(trying.file);
    let hedge = trying.policies.hedge.filter(|_| exchange.attempts == 1 && outbound.is_bodiless_and_repeatable());
    let delay = hedge.and_then(|hedge| match hedge {
        Hedge::After(delay) => Some(delay),
        Hedge::P95 => file.latency(tries.pool, |sketch| sketch.p95()).map(|micros| micros.div_ceil(1_000)),
    });
    let started = exchange.connection().clock.micros();
    let ended = match delay {
        None => (alone(trying, exchange, outbound).await, picked),
        // Two tries are twice as large, and rare: boxed, so that every other request need not be copied with their room.
        Some(delay) => Box::pin(beside(trying, exchange, outbound, picked, delay.max(1), tries)).await,
    };
    let is_late = matches!(&ended.0, Err(failure) if failure.detail == Detail::UpstreamTimeout);
    if ended.0.is_ok() || is_late {
        let micros = exchange.connection().clock.micros().saturating_sub(started);
        // An error that comes at once says nothing of what the instance carries; a hedge that won is not charged with
        // the time before it was sent.
        if !matches!(&ended.0, Ok(answered) if matches!(answered.response.status().as_u16(), 429 | 500..)) {
            queue::learn(trying, exchange, exchange.first_byte_us.unwrap_or(micros));
        }
        if trying.policies.hedge == Some(Hedge::P95) {
            file.latency(tries.pool, |sketch| sketch.observe(micros));
        }
    }
    ended
}

async fn alone(trying: &Trying<'_>, exchange: &mut Exchange, outbound: &mut Outbound) -> Ended {
    let connection = Rc::clone(exchange.connection());
    let peer = exchange.peer().cloned().ok_or(Failure::INTERNAL)?;
    let Trying { worker, limits, host_of_instance, .. } = trying;
    let (ended, timing) = try_at(&connection, &peer, outbound, limits, &worker.metrics, *host_of_instance).await;
    exchange.took(timing);
    ended
}

async fn beside(
    trying: &Trying<'_>,
    exchange: &mut Exchange,
    outbound: &mut Outbound,
    picked: Picked,
    delay: u64,
    tries: &mut Tries<'_>,
) -> (Ended, Picked) {
    let Trying { worker, limits, host_of_instance, .. } = trying;
    let connection = Rc::clone(exchange.connection());
    let Some(peer) = exchange.peer().cloned() else { return (Err(Failure::INTERNAL), picked) };
    let started = connection.clock.micros();
    let mut twin = outbound.twin();
    let mut first = pin!(try_at(&connection, &peer, outbound, limits, &worker.metrics, *host_of_instance));
    let due = connection.clock.now().plus(delay);
    let other = match before(&connection, due, first.as_mut()).await {
        Some((ended, timing)) => {
            exchange.took(timing);
            return (ended, picked);
        }
        None => second(trying, exchange, tries),
    };
    let Some((other, on)) = other else {
        let (ended, timing) = first.await;
        exchange.took(timing);
        return (ended, picked);
    };
    let other_peer = Rc::clone(on.peer());
    let mut second = pin!(try_at(&connection, &other_peer, &mut twin, limits, &worker.metrics, *host_of_instance));
    let retry = &trying.policies.retry;
    let eject = &trying.view.file(trying.file).eject;
    let mut aside = None;
    let (by_second, (ended, timing)) = race(&connection, first.as_mut(), second.as_mut(), |by_second, ended| {
        let reading = Reading::of(ended, retry, picked.probe && !by_second);
        if reading.trouble.is_none() && ended.is_ok() {
            return true;
        }
        // The other one is waited for. If it fails too, its own result is the try's.
        aside = Some((if by_second { &other_peer } else { &peer }, reading));
        false
    })
    .await;
    match aside {
        // Whoever failed before the end gets its evidence here; the end itself is judged as any try.
        Some((failed, reading)) if Rc::ptr_eq(failed, if by_second { &peer } else { &other_peer }) => {
            let place = if by_second { exchange.in_flight() } else { Some(&on) };
            if let (Some(place), Some(evidence)) = (place, reading.evidence) {
                place.evidence(worker, evidence, eject);
            }
            exchange.count(&names::ATTEMPTS, reading.word);
            // The first one was the trial; the second is judged with the request.
            if by_second && picked.probe {
                exchange.count(&names::PROBES, "failure");
            }
        }
        _ => {
            exchange.count(&names::ATTEMPTS, "cancelled");
            // How long the loser took at least is all that is known of it.
            let (loser, micros) = if by_second {
                (&peer, connection.clock.micros().saturating_sub(started))
            } else {
                (&other_peer, connection.clock.micros().saturating_sub(started + delay * 1_000))
            };
            if trying.view.table.pool(trying.file, tries.pool).balance == Balance::Ewma {
                loser.live.observe_latency(micros, connection.clock.now());
            }
        }
    }
    exchange.took(timing);
    if by_second {
        exchange.stand_at(on, other.level);
        if ended.is_ok() {
            exchange.count(&names::HEDGES, "won");
        }
        return (ended, other);
    }
    (ended, picked)
}

/// Whom to try beside, if there is somebody and the budget allows it.
fn second(trying: &Trying<'_>, exchange: &mut Exchange, tries: &mut Tries<'_>) -> Option<(Picked, InFlight)> {
    let picked = tries.instead(exchange.connection().clock.now(), &[])?;
    let on = queue::beside(trying, picked)?;
    if !exchange.within_budget(trying.policies.retry.budget) {
        exchange.count(&names::HEDGES, "budget");
        return None;
    }
    tries.note(picked);
    exchange.attempts += 1;
    exchange.count(&names::HEDGES, "sent");
    Some((picked, on))
}

/// The end of a try, if it comes before `due`.
async fn before<F: Future>(connection: &Connection, due: Millis, mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if connection.clock.now() >= due {
            return Poll::Ready(None);
        }
        let own = connection.instance_deadline.get();
        connection.instance_deadline.set(own.min(due));
        Poll::Pending
    })
    .await
}

/// The first good end of two tries, or the last bad one. Both write the connection's deadline when they wait; the
/// earlier one holds.
async fn race(
    connection: &Connection,
    mut first: Pin<&mut impl Future<Output = (Ended, Timing)>>,
    mut second: Pin<&mut impl Future<Output = (Ended, Timing)>>,
    mut is_good: impl FnMut(bool, &Ended) -> bool,
) -> (bool, (Ended, Timing)) {
    let (mut first_open, mut second_open) = (true, true);
    poll_fn(|cx| {
        let mut deadline = NEVER;
        if first_open {
            match first.as_mut().poll(cx) {
                Poll::Ready(end) if !second_open || is_good(false, &end.0) => return Poll::Ready((false, end)),
                Poll::Ready(_) => first_open = false,
                Poll::Pending => deadline = connection.instance_deadline.get(),
            }
        }
        if second_open {
            match second.as_mut().poll(cx) {
                Poll::Ready(end) if !first_open || is_good(true, &end.0) => return Poll::Ready((true, end)),
                Poll::Ready(_) => second_open = false,
                Poll::Pending => deadline = deadline.min(connection.instance_deadline.get()),
            }
        }
        connection.instance_deadline.set(deadline);
        Poll::Pending
    })
    .await
}
