//! One request on a shared connection. Its body is sent by whoever waits for the answer, or reads it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};

use super::super::link::{Fault, Raw, RawStream, Unanswered};
use super::super::received::{Broken, Received, Sender};
use super::head;
use super::pipe::{Pipe, Piped};
use super::shared::Slot;
use super::socket::StreamSocket;
use super::websocket::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, accept};

/// One stream. Dropped before its end, the instance is told that nobody waits any more.
#[derive(Debug)]
pub struct Stream<B> {
    slot: Slot,
    upload: Option<Pipe<B>>,
    tunnel: Option<(RecvStream, SendStream<Bytes>)>,
}

impl<B: Body<Data = Bytes> + Unpin> Stream<B> {
    /// A stream that has sent nothing.
    #[must_use]
    pub fn new(slot: Slot) -> Self {
        Self { slot, upload: None, tunnel: None }
    }

    /// The place that it takes on its connection.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Sends a request and waits for the answer's head. A request for a change of protocol becomes an extended
    /// CONNECT, and a yes to it a 101, as over HTTP/1.
    pub async fn send(&mut self, request: Request<B>, encrypted: bool) -> Result<Response<Received>, Unanswered<B>> {
        let upgrade = request.headers().get(UPGRADE).cloned();
        let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
        let unsent = |fault, unprocessed| Unanswered { request: None, unprocessed, fault };
        let Some((head, body)) = head::of(request, encrypted, upgrade.is_some()) else {
            return Err(unsent(Fault::Unfit, true));
        };
        let mut sender = self.slot.on.sender();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|error| unsent(Fault::H2(error), true))?;
        let ends = upgrade.is_none() && body.is_end_stream();
        let sent = sender.send_request(head, ends).map_err(|error| unsent(Fault::H2(error), true))?;
        drop(sender);
        let (mut answer, stream) = sent;
        let mut held = None;
        match (&upgrade, ends) {
            (Some(_), _) => held = Some(stream),
            (None, true) => {}
            (None, false) => self.upload = Some(Pipe::new(body, stream)),
        }
        let answered = poll_fn(|cx| {
            if !self.send_more(cx) {
                return Poll::Ready(Err(Reason::CANCEL.into()));
            }
            Pin::new(&mut answer).poll(cx)
        })
        .await;
        let response = answered.map_err(|error| {
            let unprocessed = is_unprocessed(&error);
            unsent(Fault::H2(error), unprocessed)
        })?;
        let (mut head, recv) = response.into_parts();
        if let (Some(protocol), Some(stream), true) = (upgrade, held, head.status.is_success()) {
            self.tunnel = Some((recv, stream));
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, protocol);
            if let Some(key) = key {
                head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key.as_bytes()));
            }
            return Ok(Response::from_parts(head, Received::None));
        }
        let body = Received::of_stream(recv, &head.headers, Sender::Instance);
        Ok(Response::from_parts(head, body))
    }

    /// The next piece of the answer's body, sending the request's meanwhile.
    pub fn poll_body(
        &mut self,
        body: &mut Received,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.send_more(cx) {
            return Poll::Ready(Some(Err(Broken::H2(Reason::CANCEL.into()))));
        }
        Pin::new(body).poll_frame(cx)
    }

    /// Sends what can be sent of the request's body. False: the body failed, and the stream was reset.
    pub fn send_more(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(upload) = &mut self.upload else { return true };
        match upload.poll(cx, |_| Reason::CANCEL) {
            Piped::Broken(_) => false,
            // What the instance has said about the stream comes with its answer.
            Piped::Done | Piped::Refused(_) => {
                self.upload = None;
                true
            }
            Piped::Full | Piped::Starved => true,
        }
    }

    /// The stream as a tunnel, after a yes to an extended CONNECT.
    pub fn into_raw(self) -> Option<Raw> {
        let (recv, send) = self.tunnel?;
        let stream = RawStream::H2(StreamSocket::new(recv, send), self.slot);
        Some(Raw { stream, read: Bytes::new() })
    }
}

/// Whether the instance says that it has not looked at the request, so that even one that is not idempotent may be
/// sent again (RFC 9113, 8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}
