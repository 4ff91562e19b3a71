//! One stream: a request, its answer, or a tunnel. A stream that cannot go on costs no other.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::super::worker::Worker;
use super::inbound;
use super::streams::{Open, Streams};
use super::tunnel;
use crate::forward::body::AnswerBody;
use crate::forward::connection::NEVER;
use crate::forward::request::answer;
use crate::forward::{Connection, Pipe, Piped};
use crate::observe::names;

/// A client that takes so many bytes within the time in which it must take something is not stuck.
const MOVED: usize = 16 * 1024;

/// A stream until it ends. The connection's timer wakes it when something has come due.
///
/// What it does is boxed: a task's future is moved eight times between here and its end.
pub struct Running<F> {
    work: Pin<Box<F>>,
    open: Open,
    stream: Rc<Connection>,
}

/// Begins a stream.
#[must_use]
pub fn run(
    worker: Rc<Worker>,
    open: Open,
    stream: Rc<Connection>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Running<impl Future<Output = ()>> {
    worker.forward.metrics.cells().h2_streams.add(1);
    let work = Box::pin(exchange(worker, Rc::clone(&open.streams), Rc::clone(&stream), request, respond));
    Running { work, open, stream }
}

impl<F: Future<Output = ()>> Future for Running<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.remember(cx);
        let polled = self.work.as_mut().poll(cx);
        match polled {
            Poll::Pending => self.open.streams.wait(&self.stream),
            // A tunnel that never began holds the stream that holds it.
            Poll::Ready(()) => drop(self.stream.tunnel.take()),
        }
        polled
    }
}

/// What follows an answer's head.
#[expect(clippy::large_enum_variant, reason = "nearly all are bodies, and there is one of it")]
enum Next {
    /// Nothing: it was all.
    Done,
    /// Its body.
    Body(Pipe<AnswerBody>),
    /// Bytes both ways.
    Tunnel(Pin<Box<dyn Future<Output = ()>>>),
}

/// Nothing here is kept any longer than it is needed: thousands of these wait at the same time.
#[expect(clippy::manual_async_fn, reason = "the future of an async function holds what it is given twice")]
fn exchange(
    worker: Rc<Worker>,
    streams: Rc<Streams>,
    stream: Rc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> impl Future<Output = ()> {
    async move {
        // What the client took back before it was begun reaches no instance, nor does what it asks when it has done so
        // too often.
        if streams.are_reset_too_often() || poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
            worker.forward.metrics.cells().h2_resets.add(1);
            return streams.was_reset();
        }
        let is_head = request.method() == Method::HEAD;
        go_on(&request, &mut respond);
        let mut tunnel = None;
        let answered = {
            let mut answering = pin!(begin(&worker, &stream, request, &mut tunnel));
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            })
            .await
        };
        let mut next = match answered {
            Some(response) => send_head(&worker, &stream, respond, response, tunnel, is_head),
            None => {
                worker.forward.metrics.cells().h2_resets.add(1);
                return streams.was_reset();
            }
        };
        match &mut next {
            Next::Done => {}
            Next::Body(pipe) => {
                poll_fn(|cx| poll_body(&worker, &stream, pipe, cx)).await;
                stream.write_blocked.set(NEVER);
            }
            Next::Tunnel(tunnel) => tunnel.await,
        }
    }
}

/// Tells a client to go on that asks before it sends its request's body.
fn go_on(request: &Request<RecvStream>, respond: &mut SendResponse<Bytes>) {
    if !request.body().is_end_stream() && request.headers().contains_key(EXPECT) {
        let mut go_on = Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        // A failure means that the stream is gone, which the answer finds out.
        let _ = respond.send_informational(go_on);
    }
}

/// The answer to a request. `tunnel`: set if it asks for one.
fn begin(
    worker: &Worker,
    stream: &Rc<Connection>,
    request: Request<RecvStream>,
    tunnel: &mut Option<Box<inbound::Tunnel>>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
    let inbound = inbound::of(request, &worker.forward.settings.upgrades, worker.forward.draw());
    *tunnel = inbound.tunnel.map(Box::new);
    answer(Rc::clone(&worker.forward), Rc::clone(stream), inbound.request)
}

/// Sends an answer's head. `asked`: the tunnel that was asked for.
fn send_head(
    worker: &Worker,
    stream: &Rc<Connection>,
    mut respond: SendResponse<Bytes>,
    mut response: Response<AnswerBody>,
    asked: Option<Box<inbound::Tunnel>>,
    is_head: bool,
) -> Next {
    let is_asked = asked.is_some();
    if let Some(asked) = asked
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(tunnel) = tunnel::agreed(stream, &asked, &mut response, &worker.forward.settings)
    {
        return Next::Tunnel(Box::pin(tunnel::run(Rc::clone(stream), tunnel, asked.recv, response, respond)));
    }
    let (mut head, body) = response.into_parts();
    if is_asked && (head.status.is_success() || head.status.is_informational()) {
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
        Ok(_) if ends => Next::Done,
        Ok(sink) => Next::Body(Pipe::new(body, sink)),
        // The stream is gone, or the head is one that HTTP/2 does not allow.
        Err(error) => {
            tracing::debug!(peer = %stream.peer, %error, "an answer cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            Next::Done
        }
    }
}

/// Sends an answer's body as fast as the client takes it.
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
            // Slow is not stuck.
            if stream.write_blocked.get() == NEVER || pipe.has_moved(MOVED) {
                stream.write_blocked.set(now);
            }
            let cut = match now >= stream.write_ends() {
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
