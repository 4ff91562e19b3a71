//! One connection over HTTP/1 to an instance, driven by the request that uses it.
//!
//! There is no task behind a link: whoever holds it polls it, so a request costs no wake-up between tasks, and a
//! request that is dropped takes its connection with it. An idle link is looked at when it is taken out and on each
//! sweep of the worker.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::link::{Fault, Raw, RawStream, Unanswered};
use super::seat::Open;
use super::wire::Wire;
use crate::engine::time::Millis;

/// Bytes of an answer's head, and of one read. HARDENING.md argues 16 KiB.
const READ_BUFFER: usize = 16 * 1024;

/// One connection to an instance.
#[derive(Debug)]
pub struct Http1<B: Body + 'static> {
    sender: SendRequest<B>,
    connection: Driven<B>,
    /// Requests it was given.
    served: u32,
    idle_since: Millis,
    open: Open,
}

impl<B> Http1<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A connection on an open socket. `open` counts the endpoint's connections while it lives.
    pub async fn new(wire: Wire, open: Open) -> io::Result<Box<Self>> {
        let (sender, connection) = Builder::new()
            .read_buf_exact_size(Some(READ_BUFFER))
            .max_headers(128)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Self { sender, connection: Driven::new(connection), served: 0, idle_since: Millis(0), open }))
    }

    /// Requests it was given before; 0 for a fresh one.
    #[must_use]
    pub fn served(&self) -> u32 {
        self.served
    }

    /// When its last answer ended.
    #[must_use]
    pub fn idle_since(&self) -> Millis {
        self.idle_since
    }

    /// Sends a request and waits for the answer's head, driving the connection meanwhile.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, Unanswered<B>> {
        self.served += 1;
        let mut reply = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            // The reply is filled by the connection and by nothing else, so it needs no waker of ours.
            connection.poll_for(cx, |quiet| reply.as_mut().poll(quiet))
        })
        .await
        .map_err(|mut failed: TrySendError<Request<B>>| Unanswered {
            request: failed.take_message(),
            unprocessed: false,
            fault: Fault::Http1(failed.into_error()),
        })
    }

    /// The next piece of the answer's body, driving the connection meanwhile.
    pub fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        self.connection.poll_for(cx, |quiet| Pin::new(&mut *body).poll_frame(quiet))
    }

    /// Drives the connection while the answer's body is not wanted: the request's may still go out.
    pub fn send_more(&mut self, cx: &mut Context<'_>) {
        self.connection.drive(cx);
    }

    /// Whether it could take a request now: open, and nothing of an exchange left. Reads what the system has for it.
    pub fn is_reusable(&mut self) -> bool {
        self.connection.drive(&mut Context::from_waker(Waker::noop()));
        !self.connection.ended && self.sender.is_ready()
    }

    /// Takes the socket out after a 101. `None`: the connection is gone.
    pub async fn into_raw(mut self: Box<Self>) -> Option<Raw> {
        poll_fn(|cx| {
            self.connection.drive(cx);
            if self.connection.ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let Self { connection, open, sender: _, .. } = *self;
        let parts = connection.http?.into_parts();
        let stream = RawStream::Wire(parts.io.into_inner(), open);
        Some(Raw { stream, read: parts.read_buf })
    }

    /// Notes that it became idle.
    pub(super) fn rest(&mut self, now: Millis) {
        self.idle_since = now;
    }
}

/// A connection that its holder polls.
#[derive(Debug)]
struct Driven<B: Body + 'static> {
    /// `None` once it ended with something still waiting for it.
    http: Option<Connection<TokioIo<Wire>, B>>,
    ended: bool,
}

impl<B> Driven<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn new(http: Connection<TokioIo<Wire>, B>) -> Self {
        Self { http: Some(http), ended: false }
    }

    /// Polls it unless it has ended. Its error goes to the exchange that it serves, or means nothing.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(http) = self.http.as_mut().filter(|_| !self.ended) {
            self.ended = http.poll_without_shutdown(cx).is_ready();
        }
    }

    /// Polls it, then what waits for it. A connection that has ended keeps a request that it never took, so it is
    /// dropped when something still waits: that gives the request back.
    fn poll_for<T>(&mut self, cx: &mut Context<'_>, mut waiting: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let mut quiet = Context::from_waker(Waker::noop());
        self.drive(cx);
        let polled = waiting(&mut quiet);
        if polled.is_pending() && self.ended && self.http.take().is_some() {
            return waiting(&mut quiet);
        }
        polled
    }
}
