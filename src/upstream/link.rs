//! What a request holds of a connection to an instance: a whole one over HTTP/1, a stream of one over HTTP/2.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::Stream;
use super::h2::shared::Slot;
use super::h2::socket::StreamSocket;
use super::http1::Http1;
use super::received::{Broken, Received};
use super::seat::Open;
use super::wire::Wire;
use crate::engine::time::Millis;

/// A way to send one request.
#[derive(Debug)]
pub enum Link<B: Body + 'static> {
    /// A connection of its own.
    Http1(Box<Http1<B>>),
    /// A stream of a shared connection.
    H2(Box<Stream<B>>),
}

/// A request that got no answer.
#[derive(Debug)]
pub struct Unanswered<B> {
    /// The request, if not a byte of it was written: it is safe to send it elsewhere.
    pub request: Option<Request<B>>,
    /// The instance, or its connection, says that it has not looked at it: safe as well, if it can be made again.
    pub unprocessed: bool,
    /// What happened.
    pub fault: Fault,
}

/// Why there was no answer.
#[derive(Debug)]
pub enum Fault {
    /// Over HTTP/1.
    Http1(hyper::Error),
    /// Over HTTP/2.
    H2(h2::Error),
    /// The request cannot be said in HTTP/2.
    Unfit,
}

/// A connection, or a stream, that left HTTP.
#[derive(Debug)]
pub struct Raw {
    /// The instance's side.
    pub stream: RawStream,
    /// What was read behind the answer's head.
    pub read: Bytes,
}

/// Bytes to and from an instance.
#[derive(Debug)]
pub enum RawStream {
    /// A socket; counted while it lives.
    Wire(Wire, Open),
    /// A stream of HTTP/2, and its place on the connection.
    H2(StreamSocket, Slot),
}

impl RawStream {
    /// When it is closed, the instance is sent a reset, so that what it was sent does not look whole. A stream of HTTP/2
    /// that has not ended is reset anyway.
    pub fn forget(&self) {
        if let Self::Wire(wire, _) = self {
            // A socket that cannot be told is closed in the usual way.
            let _ = SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// For how long the connection was idle before it was taken; 0 for a shared one, which is looked at all the time.
    #[must_use]
    pub fn idle(&self, now: Millis) -> u64 {
        match self {
            Self::Http1(link) => now.since(link.idle_since()),
            Self::H2(_) => 0,
        }
    }

    /// Whether it is a stream of HTTP/2. A request that was given to it does not come back.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Sends a request and waits for the answer's head. The request is made here, so that what waits has no room for it.
    pub async fn send(
        &mut self,
        request: impl FnOnce() -> Request<B>,
        encrypted: bool,
    ) -> Result<Response<Received>, Unanswered<B>> {
        match self {
            Self::Http1(link) => link.send(request).await.map(|response| response.map(Received::Http1)),
            Self::H2(stream) => stream.send(request, encrypted).await,
        }
    }

    /// The next piece of the answer's body.
    pub fn poll_body(
        &mut self,
        body: &mut Received,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match (self, body) {
            (Self::Http1(link), Received::Http1(body)) => link.poll_body(body, cx).map_err(Broken::Http1),
            (Self::H2(stream), body) => stream.poll_body(body, cx),
            (Self::Http1(_), body) => Pin::new(body).poll_frame(cx),
        }
    }

    /// How much of the answer's body a read may give. A stream's is bounded by its window.
    pub fn read_at_most(&self, bytes: usize) {
        if let Self::Http1(link) = self {
            link.pace().read_at_most(bytes);
        }
    }

    /// Whether nothing of the request that was given to it was sent, for the instance allows no further stream yet.
    pub fn is_unsent(&mut self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::H2(stream) => stream.is_unsent(),
        }
    }

    /// Sends what can be sent of the request's body, while the answer's is not wanted.
    pub fn send_more(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(link) => link.send_more(cx),
            // A failure is told when the answer is read.
            Self::H2(stream) => drop(stream.send_more(cx)),
        }
    }

    /// The instance's side after a 101. `None`: the connection is gone.
    pub async fn into_raw(self) -> Option<Raw> {
        match self {
            Self::Http1(link) => link.into_raw().await,
            Self::H2(stream) => stream.into_raw(),
        }
    }
}

impl Fault {
    /// Whether what came was not HTTP, or too large.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_parse(),
            Self::H2(error) => error.is_library(),
            Self::Unfit => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::H2(error) => error.fmt(f),
            Self::Unfit => f.write_str("the request cannot be said in HTTP/2"),
        }
    }
}

impl AsyncRead for RawStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire, _) => Pin::new(wire).poll_read(cx, buf),
            Self::H2(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Wire(wire, _) => Pin::new(wire).poll_write(cx, buf),
            Self::H2(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Wire(wire, _) => Pin::new(wire).poll_write_vectored(cx, pieces),
            Self::H2(stream, _) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire, _) => Pin::new(wire).poll_flush(cx),
            Self::H2(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire, _) => Pin::new(wire).poll_shutdown(cx),
            Self::H2(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
