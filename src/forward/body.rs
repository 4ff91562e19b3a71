//! An answer's body on its way to the client: an instance's, streamed, or a short text of our own.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::NEVER;
use super::error::Detail;
use super::exchange::Exchange;
use super::upload::UploadBody;
use super::wait::after;
use crate::engine::time::Millis;
use crate::upstream::Link;

/// The body of an answer. When it is dropped the exchange is over, and is accounted for.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    exchange: Exchange,
}

#[derive(Debug)]
enum Source {
    /// A text of our own; `None` once it was read.
    Own(Option<Bytes>),
    Instance(Relay),
}

/// What an instance sends, and the connection it sends it on.
#[derive(Debug)]
pub struct Relay {
    /// What comes.
    pub incoming: Incoming,
    /// Given back when the last byte came; dropped, and so closed, when something is left.
    pub link: Option<Box<Link<UploadBody>>>,
    /// Milliseconds between two pieces.
    pub idle: u64,
    /// Until when the whole may last.
    pub total: Millis,
    /// When the last piece came.
    pub moved: Millis,
}

/// The answer cannot be completed. hyper cuts the connection, so that the client does not take it for whole.
#[derive(Clone, Copy, Debug)]
pub struct Cut(pub Detail);

impl AnswerBody {
    /// A text of our own; empty for none.
    #[must_use]
    pub fn own(text: Bytes, exchange: Exchange) -> Self {
        Self { source: Source::Own((!text.is_empty()).then_some(text)), exchange }
    }

    /// An instance's body.
    #[must_use]
    pub fn instance(relay: Relay, exchange: Exchange) -> Self {
        let mut body = Self { source: Source::Instance(relay), exchange };
        if body.is_end_stream() {
            body.complete();
        }
        body
    }

    fn complete(&mut self) {
        let Source::Instance(relay) = &mut self.source else { return };
        if let (Some(link), Some(peer)) = (relay.link.take(), self.exchange.peer()) {
            peer.give_back(link, self.exchange.connection().clock.now());
        }
        self.exchange.complete();
    }

    fn poll_instance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Source::Instance(relay) = &mut self.source else { return Poll::Ready(None) };
        let Some(link) = &mut relay.link else { return Poll::Ready(None) };
        let clock = &self.exchange.connection().clock;
        match link.poll_body(&mut relay.incoming, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                relay.moved = clock.now();
                let last = relay.incoming.is_end_stream();
                self.exchange.sent(frame.data_ref().map_or(0, Bytes::len));
                if last {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.cut(Detail::UpstreamReset),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = after(relay.moved, relay.idle).min(relay.total);
                if clock.now() >= deadline {
                    return self.cut(Detail::UpstreamTimeout);
                }
                self.exchange.connection().instance_deadline.set(deadline);
                Poll::Pending
            }
        }
    }

    fn cut(&mut self, detail: Detail) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.exchange.cut(detail);
        Poll::Ready(Some(Err(Cut(detail))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.source {
            Source::Instance(_) => self.poll_instance(cx),
            Source::Own(text) => match text.take() {
                Some(text) => {
                    self.exchange.sent(text.len());
                    Poll::Ready(Some(Ok(Frame::data(text))))
                }
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(text) => text.is_none(),
            Source::Instance(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Instance(relay) => relay.incoming.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.exchange.connection().instance_deadline.set(NEVER);
        match &self.source {
            Source::Own(_) => self.exchange.complete(),
            Source::Instance(relay) if relay.incoming.is_end_stream() => self.complete(),
            Source::Instance(_) => {}
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl std::error::Error for Cut {}
