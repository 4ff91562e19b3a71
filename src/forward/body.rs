//! An answer's body on its way to the client: an instance's, streamed, or a short text of our own.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::Exchange;
use super::grpc::{self, Call};
use super::grpc_web;
use super::trailers::of_answer;
use super::upgrade::{Lasting, Tunnel};
use super::upload::{Upload, UploadBody};
use super::wait::after;
use crate::engine::time::Millis;
use crate::upstream::link::Raw;
use crate::upstream::pace::SMALL;
use crate::upstream::{Link, Received};

/// The body of an answer. When it is dropped the exchange is over, and is accounted for.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    /// `None`: a tunnel has it.
    exchange: Option<Exchange>,
}

/// Where an answer's body comes from.
#[derive(Debug)]
pub enum Source {
    /// A text of our own; `None` once it was read, or when there is none.
    Own(Option<Bytes>),
    /// An instance.
    Instance(Relay),
    /// None: the connection leaves HTTP. The instance's side, and how long that may last.
    Tunnel(Raw, Lasting),
}

impl Source {
    /// A text of our own; empty for none.
    #[must_use]
    pub fn own(text: Bytes) -> Self {
        Self::Own((!text.is_empty()).then_some(text))
    }

    /// The text, if it is our own and was not read.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Own(Some(text)) => text,
            Self::Own(None) | Self::Instance(_) | Self::Tunnel(..) => &[],
        }
    }
}

/// What an instance sends, and the connection it sends it on.
#[derive(Debug)]
pub struct Relay {
    /// What comes.
    pub incoming: Received,
    /// Given back when the last byte came; dropped, and so closed, when something is left.
    pub link: Option<Link<UploadBody>>,
    /// Milliseconds between two pieces.
    pub idle: u64,
    /// Events or a call: that nothing moves for `idle` is nobody's fault.
    pub streams: bool,
    /// Until when the whole may last.
    pub total: Millis,
    /// When it has the age at which a stream is ended.
    pub aged: Millis,
    /// Since when the next piece is waited for.
    pub waiting: Option<Millis>,
    /// It failed; told in the next turn, so that what came before goes out first.
    pub failed: Option<Detail>,
    /// What comes is gRPC, and goes on as gRPC-Web.
    pub web: Option<Call>,
}

/// The answer cannot be completed. hyper cuts the connection, so that the client does not take it for whole.
#[derive(Clone, Copy, Debug)]
pub struct Cut(pub Detail);

impl AnswerBody {
    /// A body and the account that is closed with it. A tunnel is left for the connection's driver, which takes it up
    /// when HTTP has ended on the client's side.
    #[must_use]
    pub fn new(source: Source, exchange: Exchange) -> Self {
        match source {
            Source::Tunnel(raw, lasting) => {
                let connection = Rc::clone(exchange.connection());
                connection.tunnel.replace(Some(Box::new(Tunnel { raw, exchange, lasting, unproved: false })));
                Self { source: Source::Own(None), exchange: None }
            }
            Source::Own(_) | Source::Instance(_) => Self { source, exchange: Some(exchange) },
        }
    }

    fn complete(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        exchange.complete();
        let Source::Instance(relay) = &mut self.source else { return };
        if let (Some(link), Some(peer)) = (relay.link.take(), exchange.peer()) {
            peer.give_back(link, exchange.connection().clock.now());
        }
    }

    /// Lets the request's body go on while the client does not take the answer's.
    pub fn send_more(&mut self, cx: &mut Context<'_>) {
        if let Source::Instance(Relay { link: Some(link), .. }) = &mut self.source {
            link.send_more(cx);
        }
    }

    fn poll_instance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let (Source::Instance(relay), Some(exchange)) = (&mut self.source, &mut self.exchange) else {
            return Poll::Ready(None);
        };
        if let Some(detail) = relay.failed {
            return Poll::Ready(Some(relay.ending(detail, exchange)));
        }
        let clock = &exchange.connection().clock;
        if clock.now() >= relay.aged {
            return cut(relay, exchange, Detail::MaxStreamAge, cx);
        }
        if clock.now() >= relay.total {
            return too_late(relay, exchange, cx);
        }
        if !relay.may_read(exchange.connection(), cx) {
            return Poll::Pending;
        }
        let Some(link) = &mut relay.link else { return Poll::Ready(None) };
        match link.poll_body(&mut relay.incoming, cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                relay.waiting = None;
                if let Some(upload) = exchange.upload.as_ref().filter(|upload| !upload.is_whole()) {
                    upload.progress().answered(clock.read_millis());
                }
                // Over HTTP/1 only these say that nothing follows, and nobody asks again.
                let is_last = frame.is_trailers();
                if let Some(trailers) = frame.trailers_mut() {
                    of_answer(trailers);
                }
                let frame = if exchange.call.is_some() { relay.of_call(frame, exchange) } else { frame };
                exchange.sent(frame.data_ref().map_or(0, Bytes::len));
                if is_last || relay.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                // The instance is not to blame for what the client did not send.
                let detail = match exchange.upload.as_ref().and_then(|upload| upload.fault()) {
                    Some(Detail::ClientTimeout) if relay.streams => Detail::StreamIdle,
                    fault => fault.unwrap_or(Detail::UpstreamReset),
                };
                cut(relay, exchange, detail, cx)
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let upload = exchange.upload.as_deref();
                if upload.is_none_or(Upload::is_whole) {
                    exchange.connection().turn.rests();
                }
                // Nobody has read the clock since the client said something: what came was the instance's.
                let since = *relay.waiting.get_or_insert_with(|| clock.read_millis());
                let idle_at = match upload {
                    // The client is waited for, by limits of its own.
                    Some(upload) if upload.progress().waits_for_client() => NEVER,
                    Some(upload) => after(since.max(upload.progress().moved_at()), relay.idle),
                    None => after(since, relay.idle),
                };
                if clock.now() >= relay.total {
                    return too_late(relay, exchange, cx);
                }
                if clock.now() >= idle_at {
                    let detail = if relay.streams { Detail::StreamIdle } else { Detail::UpstreamTimeout };
                    return cut(relay, exchange, detail, cx);
                }
                exchange.connection().instance_deadline.set(idle_at.min(relay.total).min(relay.aged));
                Poll::Pending
            }
        }
    }
}

impl Relay {
    /// Says how much is read at once. False: it is the turn of others, or of the client, and what could be read ahead is
    /// left to the instance; the task is woken when they had theirs, or the client has taken what it was given.
    fn may_read(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        let Some(link) = &mut self.link else { return true };
        if !connection.turn.lasts(cx) {
            self.waiting = None;
            return false;
        }
        if let Some(room) = connection.room_for_answer() {
            link.read_at_most(room);
            return true;
        }
        if connection.write_blocked.get() != NEVER {
            // The request's body may go on meanwhile.
            link.read_at_most(SMALL);
            link.send_more(cx);
        }
        self.waiting = None;
        connection.instance_deadline.set(self.total.min(self.aged));
        false
    }

    /// A frame of a call's answer as it goes on.
    fn of_call(&self, frame: Frame<Bytes>, exchange: &mut Exchange) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_ref() {
            exchange.call_ended(trailers);
        }
        let Some(call) = self.web else { return frame };
        match frame.into_data() {
            Ok(data) => Frame::data(grpc_web::piece(data, call)),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Frame::data(grpc_web::last_piece(&trailers, call)),
                Err(frame) => frame,
            },
        }
    }

    /// How an answer that cannot be completed ends: a call by its status, which says so; everything else is cut.
    fn ending(&mut self, detail: Detail, exchange: &Exchange) -> Result<Frame<Bytes>, Cut> {
        let frame = match (self.web, exchange.call) {
            (Some(call), _) => Frame::data(grpc_web::last_piece(&grpc::ending(detail), call)),
            (None, Some(Call::Native)) if exchange.connection().is_stream => Frame::trailers(grpc::ending(detail)),
            (None, _) => return Err(Cut(detail)),
        };
        (self.failed, self.link, self.incoming) = (None, None, Received::None);
        Ok(frame)
    }
}

/// The whole took too long, which says something of the instance only where it is the one waited for.
fn too_late(relay: &mut Relay, exchange: &mut Exchange, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    let by_client = exchange.upload.as_ref().is_some_and(|upload| upload.progress().waits_for_client());
    if relay.waiting.is_some() && !by_client {
        return cut(relay, exchange, Detail::UpstreamTimeout, cx);
    }
    exchange.give_up(Detail::UpstreamTimeout);
    ends(relay, Detail::UpstreamTimeout, cx)
}

fn cut(
    relay: &mut Relay,
    exchange: &mut Exchange,
    detail: Detail,
    cx: &Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    exchange.cut(detail);
    ends(relay, detail, cx)
}

fn ends(relay: &mut Relay, detail: Detail, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    relay.failed = Some(detail);
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.source {
            Source::Instance(_) => self.poll_instance(cx),
            Source::Own(text) => match text.take() {
                Some(text) => {
                    self.exchange.iter_mut().for_each(|exchange| exchange.sent(text.len()));
                    Poll::Ready(Some(Ok(Frame::data(text))))
                }
                None => Poll::Ready(None),
            },
            Source::Tunnel(..) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(text) => text.is_none(),
            Source::Tunnel(..) => true,
            Source::Instance(relay) => relay.failed.is_none() && relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Instance(relay) if relay.web.is_some() => SizeHint::default(),
            Source::Instance(relay) => relay.incoming.size_hint(),
            Source::Tunnel(..) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.connection().instance_deadline.set(NEVER);
        }
        match &self.source {
            Source::Instance(relay) if !relay.incoming.is_end_stream() => {}
            Source::Own(_) | Source::Instance(_) | Source::Tunnel(..) => self.complete(),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl std::error::Error for Cut {}
