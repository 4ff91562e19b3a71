//! One connection over HTTP/1 to an instance, driven by the request that uses it.
//!
//! There is no task behind a link: whoever holds it polls it, so a request costs no wake-up between tasks, and a
//! request that is dropped takes its connection with it. An idle link is looked at when it is taken out and on each
//! sweep of the worker.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::link::{Fault, Raw, RawStream, Unanswered};
use super::pace::{LARGE, Pace, Paced, SMALL};
use super::seat::Open;
use super::wire::Wire;
use crate::engine::time::Millis;

/// Bytes of an answer's head.
const HEAD: usize = 16 * 1024;

/// One connection to an instance.
#[derive(Debug)]
pub struct Http1<B: Body + 'static> {
    sender: SendRequest<B>,
    connection: Driven<B>,
    pace: Rc<Pace>,
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
        let pace = Pace::new();
        let paced = Paced { wire, pace: Rc::clone(&pace) };
        let (sender, connection) = builder().handshake(TokioIo::new(paced)).await.map_err(io::Error::other)?;
        let connection = Driven::new(connection);
        Ok(Box::new(Self { sender, connection, pace, served: 0, idle_since: Millis(0), open }))
    }

    /// What it may read.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
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
        self.pace.head_begins();
        let mut reply = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let answered = poll_fn(|cx| {
            // The reply is filled by the connection and by nothing else, so it needs no waker of ours.
            connection.poll_for(cx, |quiet| reply.as_mut().poll(quiet))
        })
        .await;
        self.pace.head_ended();
        answered.map_err(|mut failed: TrySendError<Request<B>>| Unanswered {
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
        let stream = RawStream::Wire(parts.io.into_inner().wire, open);
        Some(Raw { stream, read: parts.read_buf })
    }

    /// Notes that it became idle.
    pub(super) fn rest(&mut self, now: Millis) {
        self.pace.read_at_most(SMALL);
        self.idle_since = now;
    }

    /// Gives back a reading buffer that large pieces have made large: an idle connection is taken apart and put
    /// together again. Only where it is reusable. `None`: it is gone.
    pub(super) fn slim(self: Box<Self>) -> Option<Box<Self>> {
        if !self.pace.was_large() {
            return Some(self);
        }
        let Self { connection, served, idle_since, open, sender: _, pace: _ } = *self;
        let parts = connection.http?.into_parts();
        let pace = Pace::new();
        let paced = Paced { wire: parts.io.into_inner().wire, pace: Rc::clone(&pace) };
        // HTTP/1 says nothing first: this is ready at once.
        let mut shaking = pin!(builder().handshake(TokioIo::new(paced)));
        let Poll::Ready(Ok((sender, connection))) = shaking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            return None;
        };
        let connection = Driven::new(connection);
        parts.read_buf.is_empty().then(|| Box::new(Self { sender, connection, pace, served, idle_since, open }))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.max_buf_size(LARGE).max_header_size(HEAD).max_headers(128);
    builder
}

/// A connection that its holder polls.
#[derive(Debug)]
struct Driven<B: Body + 'static> {
    /// `None` once it ended with something still waiting for it.
    http: Option<Connection<TokioIo<Paced>, B>>,
    ended: bool,
}

impl<B> Driven<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn new(http: Connection<TokioIo<Paced>, B>) -> Self {
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
