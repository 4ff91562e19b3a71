//! An instance's answer on its way to the client: fields, body, or a tunnel.

use std::future::poll_fn;

use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::answer::Refusal;
use super::attempt::{Answered, Limits};
use super::body::{Relay, Source};
use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::Exchange;
use super::grpc::Call;
use super::grpc_web;
use super::headers::towards_client;
use super::survey::Survey;
use super::upgrade::Lasting;
use super::upload::UploadBody;
use super::wait::{after, until};
use super::worker::Worker;
use crate::engine::policy::Timeouts;
use crate::engine::time::Millis;
use crate::upstream::h2::fields::detach;
use crate::upstream::{Link, Received};

const X_RULE: HeaderName = HeaderName::from_static("x-pointsman-rule");
const X_POOL: HeaderName = HeaderName::from_static("x-pointsman-pool");
const X_LEVEL: HeaderName = HeaderName::from_static("x-pointsman-level");
const X_INSTANCE: HeaderName = HeaderName::from_static("x-pointsman-instance");
const X_DRAW: HeaderName = HeaderName::from_static("x-pointsman-draw");

/// How long the end of a body that is none may come behind its head.
const END_MS: u64 = 100;

/// Adds how an answer came about, refusals and the rules' own answers included: what `explain --draw` is compared
/// with. Names that cannot stand in a field are left out.
pub fn add_debug(headers: &mut HeaderMap, exchange: &Exchange) {
    let text = |text: &str| HeaderValue::from_str(text).ok();
    let names = exchange.route().map(|route| &route.names);
    let fields = [
        (X_RULE, names.filter(|names| !names.rule.is_empty()).and_then(|names| text(&names.rule))),
        (X_POOL, names.filter(|names| !names.pool.is_empty()).and_then(|names| text(&names.pool))),
        (X_LEVEL, exchange.level.map(|level| HeaderValue::from(u16::from(level)))),
        (X_INSTANCE, exchange.peer().and_then(|peer| text(&peer.instance.id))),
        (X_DRAW, text(&format!("{:016x}", exchange.draw.0))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Whether an instance's answer can be passed on as it is: its connection stays HTTP, and a body that is none has ended.
#[must_use]
pub fn is_ready(answered: &Answered) -> bool {
    let response = &answered.response;
    let is_heard_out = !answered.bodiless || response.body().is_end_stream();
    is_heard_out && response.status() != StatusCode::SWITCHING_PROTOCOLS
}

/// Passes an instance's answer on that [`is_ready`].
pub fn pass_on(exchange: &Exchange, worker: &Worker, answered: Answered, limits: &Limits) -> Response<Source> {
    let Answered { response, seen, link, call: _, bodiless: _ } = answered;
    let (mut head, incoming) = response.into_parts();
    let web = edit_head(exchange, worker, &mut head, seen, link.is_h2());
    let now = exchange.connection().clock.now();
    let source = Source::Instance(relay(incoming, &head.headers, link, limits, (web, now)));
    Response::from_parts(head, source)
}

/// Passes any other answer on.
pub async fn pass_on_later(
    exchange: &Exchange,
    worker: &Worker,
    answered: Answered,
    limits: &Limits,
) -> Result<Response<Source>, Refusal> {
    let Answered { response, seen, mut link, call: _, bodiless } = answered;
    let (mut head, mut incoming) = response.into_parts();
    if bodiless && !incoming.is_end_stream() {
        incoming = heard_out(exchange.connection(), &mut link, incoming, limits.total).await;
    }
    let protocol = (head.status == StatusCode::SWITCHING_PROTOCOLS).then(|| head.headers.get(UPGRADE).cloned());
    let web = edit_head(exchange, worker, &mut head, seen, link.is_h2());
    let source = match protocol {
        None => {
            let now = exchange.connection().clock.now();
            Source::Instance(relay(incoming, &head.headers, link, limits, (web, now)))
        }
        Some(protocol) => {
            let connection = std::rc::Rc::clone(exchange.connection());
            let raw = until(&connection, limits.total, link.into_raw()).await;
            let raw = raw.map_err(|_| Refusal::from(Detail::UpstreamTimeout))?;
            let raw = raw.ok_or(Refusal::from(Detail::UpstreamReset))?;
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                head.headers.insert(UPGRADE, protocol);
            }
            let websocket =
                head.headers.get(UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
            let aged = after(connection.clock.now(), limits.timeouts.max_stream_age);
            Source::Tunnel(raw, Lasting { idle: limits.timeouts.stream_idle, aged, websocket })
        }
    };
    Ok(Response::from_parts(head, source))
}

/// The head as the client gets it, before what the rules change. Returns the call of gRPC-Web that the answer has to be
/// translated for.
fn edit_head(exchange: &Exchange, worker: &Worker, head: &mut Parts, seen: Survey, over_h2: bool) -> Option<Call> {
    if seen.has(Survey::KEEP_ALIVE)
        && let Some(peer) = exchange.peer()
    {
        peer.learn(&head.headers);
    }
    let web = exchange.call.filter(|call| over_h2 && *call != Call::Native);
    towards_client(&mut head.headers, seen, &worker.settings);
    if let Some(call) = web {
        grpc_web::towards_client(&mut head.headers, call);
    }
    if exchange.connection().is_stream && !over_h2 {
        detach(&mut head.headers);
    }
    head.version = http::Version::HTTP_11;
    web
}

/// Reads the end of a body that is none: over HTTP/2 it may come in a frame of its own, and nobody asks for it later. An
/// instance that says more, or nothing, is not waited for: its stream is taken back.
async fn heard_out(
    connection: &Connection,
    link: &mut Link<UploadBody>,
    mut body: Received,
    total: Millis,
) -> Received {
    let deadline = connection.clock.now().plus(END_MS).min(total);
    match until(connection, deadline, poll_fn(|cx| link.poll_body(&mut body, cx))).await {
        Ok(None) => body,
        Ok(Some(Ok(_))) if body.is_end_stream() => body,
        Ok(Some(_)) | Err(_) => Received::None,
    }
}

fn relay(
    incoming: Received,
    headers: &HeaderMap,
    link: Link<UploadBody>,
    limits: &Limits,
    (web, now): (Option<Call>, Millis),
) -> Relay {
    let streams = is_stream(headers);
    let Timeouts { idle, stream_idle, max_stream_age, .. } = limits.timeouts;
    Relay {
        incoming,
        link: Some(link),
        idle: if streams { stream_idle } else { idle },
        streams,
        total: limits.total,
        aged: if streams { after(now, max_stream_age) } else { NEVER },
        waiting: None,
        failed: None,
        web,
    }
}

/// Server-sent events and gRPC streams may be silent for longer, and have an age.
fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/grpc")
    })
}
