//! A body as it comes in, from a client or from an instance, whatever the protocol.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body that is being received.
#[derive(Debug)]
pub enum Received {
    /// Over HTTP/1.
    Http1(Incoming),
    /// Over HTTP/2.
    H2(StreamBody),
    /// None.
    None,
}

/// A body on a stream of HTTP/2. What is read out of it is given back to the sender's window at once, so that what is
/// held here is at most the stream's window.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// What `Content-Length` leaves to come.
    left: Option<u64>,
    data_ended: bool,
    sender: Sender,
}

/// Who sends a stream's body; a reset without an error means something else from each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It has gone away.
    Client,
    /// It has said everything, and wants no more of the request (RFC 9113, 8.1).
    Instance,
}

/// A body broke off.
#[derive(Debug)]
pub enum Broken {
    /// Over HTTP/1.
    Http1(hyper::Error),
    /// Over HTTP/2.
    H2(h2::Error),
    /// The stream was closed before its declared end.
    Short,
}

impl Received {
    /// The body of a stream with this head.
    #[must_use]
    pub fn of_stream(stream: RecvStream, headers: &HeaderMap, sender: Sender) -> Self {
        let left = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self::H2(StreamBody { stream, left, data_ended: false, sender })
    }
}

impl StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // A failure means that the stream is gone; the next read tells.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(self.broken(error).map(Err)),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(self.broken(error).map(Err)),
        }
    }

    /// `None`: the body is whole all the same.
    fn broken(&self, error: h2::Error) -> Option<Broken> {
        let told_all = self.sender == Sender::Instance && error.reason() == Some(Reason::NO_ERROR) && error.is_reset();
        match self.left {
            Some(0) | None if told_all => None,
            Some(_) if told_all => Some(Broken::Short),
            _ => Some(Broken::H2(error)),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Broken::Http1),
            Self::H2(body) => body.poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::H2(body) => body.stream.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::H2(body) => match body.left {
                Some(left) => SizeHint::with_exact(left),
                None if body.stream.is_end_stream() => SizeHint::with_exact(0),
                None => SizeHint::default(),
            },
            Self::None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::H2(error) => error.fmt(f),
            Self::Short => f.write_str("the stream was closed before the body's declared end"),
        }
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http1(error) => Some(error),
            Self::H2(error) => Some(error),
            Self::Short => None,
        }
    }
}
