//! One stream: a request, its answer, or a tunnel. A stream that cannot go on costs no other.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::super::worker::Worker;
use super::inbound::{self, Inbound};
use super::streams::{Open, Streams};
use super::tunnel;
use crate::forward::body::AnswerBody;
use crate::forward::connection::NEVER;
use crate::forward::request::answer;
use crate::forward::wait::after;
use crate::forward::{Connection, Pipe, Piped};
use crate::observe::names;

/// Runs a stream until it ends. The connection's timer wakes it when something has come due.
pub async fn run(
    worker: Rc<Worker>,
    open: Open,
    stream: Rc<Connection>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let write_idle = worker.limits.write_idle;
    worker.forward.metrics.cells().h2_streams.add(1);
    let mut work = pin!(exchange(&worker, &open.streams, &stream, request, respond));
    poll_fn(|cx| {
        stream.remember(cx);
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            open.streams.wait(&stream, write_idle);
        }
        polled
    })
    .await;
    // A tunnel that never began holds the stream that holds it.
    stream.tunnel.take();
}

async fn exchange(
    worker: &Rc<Worker>,
    streams: &Streams,
    stream: &Rc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    // What the client took back before it was begun reaches no instance, nor does what it asks when it has done so too
    // often.
    if streams.are_reset_too_often() || poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        worker.forward.metrics.cells().h2_resets.add(1);
        return streams.was_reset();
    }
    let is_head = request.method() == Method::HEAD;
    if !request.body().is_end_stream() && request.headers().contains_key(EXPECT) {
        let mut go_on = Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        // A failure means that the stream is gone, which the answer finds out.
        let _ = respond.send_informational(go_on);
    }
    let Inbound { request, tunnel } = inbound::of(request, &worker.forward.settings.upgrades, worker.forward.draw());
    let answered = {
        let mut answering = pin!(answer(Rc::clone(&worker.forward), Rc::clone(stream), request));
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let Some(mut response) = answered else {
        worker.forward.metrics.cells().h2_resets.add(1);
        return streams.was_reset();
    };
    let asked = tunnel.is_some();
    if let Some(asked) = tunnel
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(tunnel) = tunnel::agreed(stream, &asked, &mut response, &worker.forward.settings)
    {
        return tunnel::run(stream, tunnel, asked.recv, response, respond).await;
    }
    let (mut head, body) = response.into_parts();
    if asked && (head.status.is_success() || head.status.is_informational()) {
        // To a CONNECT this would be a yes, which the instance did not say.
        head.status = StatusCode::BAD_GATEWAY;
    }
    head.version = Version::HTTP_2;
    let ends = is_head || body.is_end_stream();
    if let Some(length) = body.size_hint().exact()
        && length > 0
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, worker.date.value(stream.clock.now()));
    }
    match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(_) if ends => {}
        Ok(sink) => pass_on(worker, stream, Pipe::new(body, sink)).await,
        // The stream is gone, or the head is one that HTTP/2 does not allow.
        Err(error) => {
            tracing::debug!(peer = %stream.peer, %error, "an answer cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Sends an answer's body as fast as the client takes it.
async fn pass_on(worker: &Worker, stream: &Connection, mut pipe: Pipe<AnswerBody>) {
    poll_fn(|cx| poll_body(worker, stream, &mut pipe, cx)).await;
    stream.write_blocked.set(NEVER);
}

fn poll_body(worker: &Worker, stream: &Connection, pipe: &mut Pipe<AnswerBody>, cx: &mut Context<'_>) -> Poll<()> {
    match pipe.poll(cx, |_| Reason::INTERNAL_ERROR) {
        Piped::Done | Piped::Broken(_) => Poll::Ready(()),
        Piped::Refused(_) => {
            worker.forward.metrics.cells().h2_resets.add(1);
            Poll::Ready(())
        }
        Piped::Starved => {
            stream.write_blocked.set(NEVER);
            Poll::Pending
        }
        Piped::Full => {
            pipe.body.send_more(cx);
            let now = stream.clock.now();
            if stream.write_blocked.get() == NEVER {
                stream.write_blocked.set(now);
            }
            let cut = match now >= after(stream.write_blocked.get(), worker.limits.write_idle) {
                true => Some(&names::WRITE_CUTS),
                false => stream.cut.get().then_some(&names::MEMORY_RESETS),
            };
            if let Some(counted) = cut {
                worker.forward.metrics.word(counted, "stream");
                pipe.reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            Poll::Pending
        }
    }
}
