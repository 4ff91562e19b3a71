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

/// One connection to an instance.
#[derive(Debug)]
pub struct Http1<B: Body + 'static> {
    sender: SendRequest<B>,
    connection: Driven<B>,
    pace: Rc<Pace>,
    /// Requests it was given.
    served: u32,
    idle_since: Millis,
    /// Bytes of an answer's head at most.
    head: usize,
    open: Open,
}

impl<B> Http1<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A connection on an open socket. `open` counts the endpoint's connections while it lives; `head`: bytes of an
    /// answer's head at most.
    pub async fn new(wire: Wire, open: Open, head: usize) -> io::Result<Box<Self>> {
        let pace = Pace::new(head);
        let paced = Paced { wire, pace: Rc::clone(&pace) };
        let (sender, connection) = builder(head).handshake(TokioIo::new(paced)).await.map_err(io::Error::other)?;
        let connection = Driven::new(connection);
        Ok(Box::new(Self { sender, connection, pace, served: 0, idle_since: Millis(0), head, open }))
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

    /// Sends a request and waits for the answer's head, driving the connection meanwhile. The request is made here, so
    /// that what waits has no room for it.
    pub async fn send(&mut self, request: impl FnOnce() -> Request<B>) -> Result<Response<Incoming>, Unanswered<B>> {
        self.served += 1;
        self.pace.head_begins();
        let mut reply = pin!(self.sender.try_send_request(request()));
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
        let Self { connection, served, idle_since, head, open, sender: _, pace: _ } = *self;
        let parts = connection.http?.into_parts();
        let pace = Pace::new(head);
        let paced = Paced { wire: parts.io.into_inner().wire, pace: Rc::clone(&pace) };
        // HTTP/1 says nothing first: this is ready at once.
        let mut shaking = pin!(builder(head).handshake(TokioIo::new(paced)));
        let Poll::Ready(Ok((sender, connection))) = shaking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            return None;
        };
        let connection = Driven::new(connection);
        parts.read_buf.is_empty().then(|| Box::new(Self { sender, connection, pace, served, idle_since, head, open }))
    }
}

fn builder(head: usize) -> Builder {
    let mut builder = Builder::new();
    builder.max_buf_size(LARGE.max(head)).max_header_size(head).max_headers(128);
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

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::snapshot::Live;

    /// An instance on one connection: each request gets an answer of this head, and so many bytes after it.
    async fn instance(head: String, body: usize) -> Box<Http1<Empty<Bytes>>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                if socket.write_all(head.as_bytes()).await.is_err()
                    || socket.write_all(&vec![b'x'; body]).await.is_err()
                {
                    return;
                }
            }
        });
        let wire = Wire::Plain(TcpStream::connect(address).await.unwrap());
        let open = Open::at_once(&Rc::default(), &std::sync::Arc::new(Live::new(1)), None, false).unwrap();
        Http1::new(wire, open, 64 * 1024).await.unwrap()
    }

    /// The sizes of an answer's pieces.
    async fn pieces(link: &mut Http1<Empty<Bytes>>, at_most: usize) -> Vec<usize> {
        let request = Request::get("/").header("host", "web").body(Empty::new()).unwrap();
        let mut body = link.send(|| request).await.unwrap().into_body();
        link.pace().read_at_most(at_most);
        let mut sizes = Vec::new();
        while let Some(frame) = poll_fn(|cx| link.poll_body(&mut body, cx)).await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        sizes
    }

    #[tokio::test]
    async fn pieces_are_as_large_as_may_be_and_an_idle_link_gives_the_room_back() {
        const BODY: usize = 4 << 20;
        let mut link = instance(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n"), BODY).await;
        let small = pieces(&mut link, SMALL).await;
        assert_eq!(small.iter().sum::<usize>(), BODY);
        assert!(small.iter().all(|piece| *piece <= SMALL) && !link.pace().was_large());
        let large = pieces(&mut link, LARGE).await;
        assert_eq!(large.iter().sum::<usize>(), BODY);
        let most = *large.iter().max().unwrap();
        assert!((SMALL + 1..=LARGE).contains(&most), "the largest has {most}");
        assert!(link.is_reusable() && link.pace().was_large());
        let mut link = link.slim().unwrap();
        assert!(link.is_reusable() && !link.pace().was_large());
        assert_eq!((pieces(&mut link, SMALL).await.iter().sum::<usize>(), link.served()), (BODY, 3));
    }

    #[tokio::test]
    async fn a_connection_lives_on_after_answers_that_came_in_one_read() {
        let body = LARGE - 2_000;
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n{}", "y".repeat(body));
        let mut link = instance(whole, 0).await;
        for _ in 0..20 {
            // From the head on, as for a client that has taken everything.
            link.pace().read_at_most(LARGE);
            assert_eq!(pieces(&mut link, LARGE).await.iter().sum::<usize>(), body);
            assert!(link.is_reusable());
        }
    }

    #[tokio::test]
    async fn heads_that_do_not_end_are_given_up() {
        for head in
            ["HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000), format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000))]
        {
            let mut link = instance(head, 0).await;
            let request = Request::get("/").header("host", "web").body(Empty::new()).unwrap();
            assert!(link.send(|| request).await.is_err());
        }
    }
}
