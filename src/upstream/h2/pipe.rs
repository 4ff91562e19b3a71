//! A body on its way out over a stream of HTTP/2, as fast as the peer's window allows: one piece is held while it waits.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};
use http_body::Body;

/// A body and the stream that it goes to.
#[derive(Debug)]
pub struct Pipe<B> {
    /// What is sent.
    pub body: B,
    stream: SendStream<Bytes>,
    /// A piece that waits for room, and whether it is the last one.
    waiting: Option<(Bytes, bool)>,
    /// Bytes that the peer's window has taken since [`Pipe::has_moved`] said so.
    moved: usize,
    ended: bool,
}

/// How a poll of a pipe left it.
#[derive(Debug)]
pub enum Piped<E> {
    /// Everything was handed to the connection.
    Done,
    /// The peer takes nothing more at the moment.
    Full,
    /// The body has nothing more at the moment.
    Starved,
    /// The peer reset the stream, or the connection is gone.
    Refused(h2::Error),
    /// The body failed; the stream was reset.
    Broken(E),
}

impl<B: Body<Data = Bytes> + Unpin> Pipe<B> {
    /// A pipe that has sent nothing.
    pub fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: None, moved: 0, ended: false }
    }

    /// Whether everything was handed to the connection.
    pub fn is_done(&self) -> bool {
        self.ended
    }

    /// Whether the peer has taken so many bytes since this was last true.
    pub fn has_moved(&mut self, bytes: usize) -> bool {
        let has = self.moved >= bytes;
        if has {
            self.moved = 0;
        }
        has
    }

    /// Gives up: the peer gets a reset.
    pub fn reset(&mut self, reason: Reason) {
        self.ended = true;
        self.stream.send_reset(reason);
    }

    /// Ends with these trailers in place of what the body still has.
    pub fn end(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        self.ended = true;
        self.stream.send_trailers(trailers)
    }

    /// Sends what can be sent. `reset_with`: what the peer is told when the body fails.
    pub fn poll(&mut self, cx: &mut Context<'_>, reset_with: impl FnOnce(&B::Error) -> Reason) -> Piped<B::Error> {
        if self.ended {
            return Piped::Done;
        }
        match self.poll_stream(cx) {
            Ok(piped) => {
                if let Piped::Broken(error) = &piped {
                    let reason = reset_with(error);
                    self.reset(reason);
                }
                piped
            }
            Err(error) => {
                self.ended = true;
                Piped::Refused(error)
            }
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Result<Piped<B::Error>, h2::Error> {
        loop {
            if let Some((mut data, last)) = self.waiting.take() {
                // No more than the window takes: what the library holds beyond is seen by nobody, and has no end.
                self.stream.reserve_capacity(data.len());
                while self.stream.capacity() == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Pending => {
                            self.waiting = Some((data, last));
                            return Ok(Piped::Full);
                        }
                        Poll::Ready(Some(room)) => room.map(|_| ())?,
                        Poll::Ready(None) => return Err(Reason::STREAM_CLOSED.into()),
                    }
                }
                let room = self.stream.capacity().min(data.len());
                self.moved += room;
                if room < data.len() {
                    self.stream.send_data(data.split_to(room), false)?;
                    self.waiting = Some((data, last));
                    continue;
                }
                self.stream.send_data(data, last)?;
                if last {
                    self.ended = true;
                    return Ok(Piped::Done);
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                // A peer that has reset the stream takes nothing either; it is asked for only where that would not tell.
                Poll::Pending => {
                    return match self.stream.poll_reset(cx) {
                        Poll::Ready(reason) => Err(reason?.into()),
                        Poll::Pending => Ok(Piped::Starved),
                    };
                }
                Poll::Ready(None) => {
                    self.stream.send_data(Bytes::new(), true)?;
                    self.ended = true;
                    return Ok(Piped::Done);
                }
                Poll::Ready(Some(Err(error))) => return Ok(Piped::Broken(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() && !self.body.is_end_stream() => {}
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        if data.is_empty() {
                            self.stream.send_data(data, last)?;
                            self.ended = true;
                            return Ok(Piped::Done);
                        }
                        self.waiting = Some((data, last));
                    }
                    Err(frame) => {
                        let Ok(mut trailers) = frame.into_trailers() else { continue };
                        strip(&mut trailers);
                        self.stream.reserve_capacity(0);
                        match trailers.is_empty() {
                            true => self.stream.send_data(Bytes::new(), true)?,
                            false => self.stream.send_trailers(trailers)?,
                        }
                        self.ended = true;
                        return Ok(Piped::Done);
                    }
                },
            }
        }
    }
}

const BARRED: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what may not stand in trailers of HTTP/2, or would reframe the message (RFC 9110, 6.5.1).
fn strip(trailers: &mut HeaderMap) {
    // Looking at each of the few that there are is cheaper than asking for each that may not be there.
    if !trailers.keys().any(|name| BARRED.contains(name)) {
        return;
    }
    for name in BARRED {
        trailers.remove(name);
    }
}
