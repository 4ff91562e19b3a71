//! A connection whose bytes are passed on as they are: routed once, as a `CONNECT` to a host would be, then a tunnel.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{Refusal, refusal};
use super::attempt::Limits;
use super::connection::{Connection, NEVER, Phase};
use super::edit::in_force;
use super::error::Detail;
use super::exchange::Exchange;
use super::hedge::Trying;
use super::judge::judge_bare;
use super::limit;
use super::queue::place;
use super::request::{is_affordable, route};
use super::retry::Cause;
use super::upgrade::{Lasting, Tunnel};
use super::wait::{after, until};
use super::worker::Worker;
use crate::engine::balance::Picked;
use crate::engine::policy::{Retry, Timeouts};
use crate::engine::request::RequestView;
use crate::engine::route::Detail::NoRoutableInstance;
use crate::engine::route::{Outcome, decide, host};
use crate::engine::time::Millis;
use crate::engine::trace::NoTrace;
use crate::engine::tries::Tries;
use crate::observe::names;
use crate::upstream::dial::is_ours;
use crate::upstream::link::Raw;

/// Routes a connection that asks for `host`, and passes bytes until one side ends or nothing moves for `stream_idle`.
/// `read`: what the client has sent already. Where nobody can be reached the client's connection is closed.
pub async fn pass_through<C: AsyncRead + AsyncWrite + Unpin>(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    host: &str,
    client: C,
    read: Bytes,
) {
    let mut exchange = Exchange::begin(&worker, &connection);
    match connected(&worker, &mut exchange, host).await {
        Ok(Bare { raw, timeouts, unproved }) => {
            exchange.status = 200;
            connection.enter(Phase::Tunnel);
            let aged = after(connection.clock.now(), timeouts.max_stream_age);
            let lasting = Lasting { idle: timeouts.stream_idle, aged, websocket: false };
            Tunnel { raw, exchange, lasting, unproved }.run(client, read, &connection).await;
        }
        Err(refusal) => {
            let early = refusal.detail == Detail::NoRoutableInstance && !worker.is_ready();
            let detail = if early { Detail::NotReady } else { refusal.detail };
            exchange.detail = Some(detail);
            exchange.status = refusal.status.as_u16();
            exchange.count(&names::ERRORS, detail.word());
            exchange.complete();
        }
    }
}

/// A connection to an instance that was chosen.
struct Bare {
    raw: Raw,
    timeouts: Timeouts,
    unproved: bool,
}

/// Decide, pick, connect; while nothing was passed on, another endpoint may be tried.
async fn connected(worker: &Rc<Worker>, exchange: &mut Exchange, host: &str) -> Result<Bare, Refusal> {
    let connection = Rc::clone(exchange.connection());
    limit::enter(worker, exchange, "/")?;
    let host = if host.is_empty() { "".into() } else { host::normalise(host).map_err(|_| Detail::BadRequest)? };
    let (fields, tls, view) = (HeaderMap::new(), connection.tls.as_ref(), worker.view());
    let request = RequestView {
        method: &Method::CONNECT,
        scheme: connection.scheme(),
        host: &host,
        path: "/",
        query: None,
        headers: &fields,
        client: connection.client(),
        sni: tls.and_then(|tls| tls.sni.as_deref()),
        san: &[],
        trusted: view.table.router.trusts(&host, "/", connection.sender()),
    };
    let decision = {
        let scratch = &mut worker.scratch.borrow_mut();
        let decision = decide(&*view.table, &request, exchange.draw, scratch, &mut NoTrace);
        let seeds = worker.limits.book.seeds();
        exchange.admission.key = limit::key(&view.table.router, &decision, &request, scratch, seeds);
        decision
    };
    exchange.note_head(&Method::CONNECT, &host, "/", &fields);
    route(exchange, &view, &decision, None);
    limit::admit(exchange, &view, &decision, None)?;
    let file = match (decision.file, decision.outcome) {
        (Some(file), Outcome::Pool(_) | Outcome::Refuse { detail: NoRoutableInstance, .. }) => file,
        (_, Outcome::Refuse { status, detail }) => return Err(refusal(status, detail.into())),
        // A text or a redirect is for HTTP; here there is nobody to read it.
        (_, Outcome::Redirect | Outcome::Respond) => return Err(Detail::MethodRefused.into()),
        (None, Outcome::Pool(_)) => return Err(Detail::Internal.into()),
    };
    let policies = in_force(&view.table.router.files[file as usize], &decision);
    let total = after(connection.clock.now(), policies.timeouts.total);
    view.file(file).budget.request(worker.limits.worker, connection.clock.now());
    let mut tries = Tries::new(&view.table, file, &decision, exchange.draw, Some(&worker.memory));
    let first = tries.first(connection.clock.now(), policies.retry.attempts > 1);
    let mut picked = first.map_err(|(status, detail)| refusal(status, detail.into()))?;
    let limits = Limits { timeouts: policies.timeouts, total, per_try: 0, tried: NEVER };
    let trying = Trying { worker, view: &view, file, policies, limits: &limits, host_of_instance: false };
    loop {
        route(exchange, &view, &decision, Some(tries.pool));
        let on = match place(&trying, exchange, &mut picked, &tries).await {
            Ok(on) => on,
            // The whole pool is full: the next one may have room.
            Err(full) => {
                picked = tries.next_pool(connection.clock.now()).ok_or(full)?;
                continue;
            }
        };
        tries.note(picked);
        let peer = Rc::clone(on.peer());
        exchange.trying(on, picked.level);
        let started = connection.clock.micros();
        let limit = Duration::from_millis(policies.timeouts.connect);
        let deadline = after(connection.clock.now(), policies.timeouts.connect).min(total);
        let dialled = until(&connection, deadline, peer.connect_bare(connection.ends(), limit)).await;
        exchange.connect_us = Some(connection.clock.read().saturating_sub(started));
        let failed = match dialled {
            Ok(Ok(raw)) => {
                let unproved = judge_bare(exchange, None, picked);
                worker.metrics.cells().upstream_opened.add(1);
                return Ok(Bare { raw, timeouts: policies.timeouts, unproved });
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy || is_ours(&error) => Detail::Overloaded,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Detail::UpstreamTimeout,
            Ok(Err(_)) => Detail::ConnectFailed,
            Err(_) => Detail::UpstreamTimeout,
        };
        judge_bare(exchange, Some(failed), picked);
        let last = exchange.attempts + 1 >= policies.retry.attempts;
        let next = may_follow(exchange, &policies.retry, total, picked)
            .then(|| tries.next(connection.clock.now(), last, true))
            .flatten();
        let affordable = |_: &Picked| picked.probe || is_affordable(exchange, &policies.retry);
        picked = next.filter(affordable).ok_or(failed)?;
        exchange.count(&names::RETRIES, Cause::Connect.word());
    }
}

/// Whether another endpoint may be asked for a connection: as for a request of which nothing was sent. A client that was
/// made to prove an ejected endpoint (`picked.probe`) is not told of its failure, whatever the policy says of it.
fn may_follow(exchange: &Exchange, retry: &Retry, total: Millis, picked: Picked) -> bool {
    if !picked.probe && !Cause::Connect.is_wanted(retry) {
        return false;
    }
    let refused = if exchange.attempts >= retry.attempts {
        "attempts"
    } else if exchange.connection().clock.now() >= total {
        "time"
    } else {
        return true;
    };
    exchange.count(&names::RETRIES_REFUSED, refused);
    false
}
