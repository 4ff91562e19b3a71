//! One request on a shared connection. Its body is sent by whoever waits for the answer, or reads it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
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
    /// Who gave the request away, while that waits for the instance to allow one more stream.
    queued: Option<SendRequest<Bytes>>,
}

/// A change of protocol that is asked for.
struct Asked {
    protocol: HeaderValue,
    /// Of a WebSocket.
    key: Option<HeaderValue>,
    stream: SendStream<Bytes>,
}

impl<B: Body<Data = Bytes> + Unpin> Stream<B> {
    /// A stream that has sent nothing.
    #[must_use]
    pub fn new(slot: Slot) -> Self {
        Self { slot, upload: None, tunnel: None, queued: None }
    }

    /// The place that it takes on its connection.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Sends a request and waits for the answer's head. A request for a change of protocol becomes an extended
    /// CONNECT, and a yes to it a 101, as over HTTP/1.
    pub async fn send(
        &mut self,
        request: impl FnOnce() -> Request<B>,
        encrypted: bool,
    ) -> Result<Response<Received>, Unanswered<B>> {
        let unsent = |fault| Unanswered { request: None, unprocessed: true, fault };
        let (mut answer, asked) = self.offer(request(), encrypted).map_err(unsent)?;
        poll_fn(|cx| {
            if !self.send_more(cx) {
                return Poll::Ready(Err(Reason::CANCEL.into()));
            }
            Pin::new(&mut answer).poll(cx)
        })
        .await
        .map_err(|error| {
            self.slot.on.stream_failed(&error);
            let unprocessed = is_unprocessed(&error);
            Unanswered { request: None, unprocessed, fault: Fault::H2(error) }
        })
        .map(|response| self.answered(response, asked))
    }

    /// Gives a request to the connection.
    fn offer(&mut self, request: Request<B>, encrypted: bool) -> Result<(ResponseFuture, Option<Box<Asked>>), Fault> {
        let upgrade = request.headers().get(UPGRADE).cloned();
        let key = upgrade.as_ref().and_then(|_| request.headers().get(SEC_WEBSOCKET_KEY).cloned());
        let Some((head, body)) = head::of(request, encrypted, upgrade.is_some()) else {
            return Err(Fault::Unfit);
        };
        let ends = upgrade.is_none() && body.is_end_stream();
        // One that has sent nothing yet is ready, or says here why not.
        let mut sender = self.slot.on.sender();
        let (answer, stream) = sender.send_request(head, ends).map_err(Fault::H2)?;
        let is_open = sender.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready();
        self.queued = (!is_open).then_some(sender);
        let asked = upgrade.map(|protocol| (protocol, key));
        match asked {
            Some((protocol, key)) => return Ok((answer, Some(Box::new(Asked { protocol, key, stream })))),
            None if ends => {}
            None => self.upload = Some(Pipe::new(body, stream)),
        }
        Ok((answer, None))
    }

    /// The answer as the rest of the proxy knows it.
    fn answered(&mut self, response: Response<RecvStream>, asked: Option<Box<Asked>>) -> Response<Received> {
        let (mut head, recv) = response.into_parts();
        match asked {
            Some(asked) if head.status.is_success() => {
                let Asked { protocol, key, stream } = *asked;
                self.tunnel = Some((recv, stream));
                head.status = StatusCode::SWITCHING_PROTOCOLS;
                head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(UPGRADE, protocol);
                if let Some(key) = key {
                    head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key.as_bytes()));
                }
                Response::from_parts(head, Received::None)
            }
            _ => {
                let body = Received::of_stream(recv, &head.headers, Sender::Instance);
                Response::from_parts(head, body)
            }
        }
    }

    /// Whether the request has waited all the time for the instance to allow one more stream, so that nothing was sent.
    pub fn is_unsent(&mut self) -> bool {
        let queued = self.queued.as_mut();
        queued.is_some_and(|sender| sender.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending())
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
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Err(Broken::H2(error)))) = &polled {
            self.slot.on.stream_failed(error);
        }
        polled
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::task::{LocalSet, spawn_local};

    use super::super::super::seat::Open;
    use super::super::super::wire::Wire;
    use super::super::shared::{Bounds, Shared};
    use super::*;
    use crate::engine::snapshot::Live;
    use crate::engine::time::Millis;

    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    /// Allows as many streams at once as it is told, and answers none.
    async fn silent(mut socket: TcpStream, mut streams: watch::Receiver<u8>, heads: watch::Sender<u32>) {
        let allow = |streams| frame(SETTINGS, 0, &[0, 3, 0, 0, 0, streams]);
        socket.write_all(&allow(*streams.borrow_and_update())).await.unwrap();
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        let (mut read, mut write) = socket.split();
        let mut head = [0; 9];
        loop {
            tokio::select! {
                () = async { streams.changed().await.unwrap() } => {
                    let now = *streams.borrow_and_update();
                    write.write_all(&allow(now)).await.unwrap();
                }
                n = read.read(&mut head[..1]) => {
                    if n.unwrap_or(0) == 0 {
                        return;
                    }
                    read.read_exact(&mut head[1..]).await.unwrap();
                    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                    read.read_exact(&mut payload).await.unwrap();
                    match (head[3], head[4] & ACK) {
                        (SETTINGS, 0) => write.write_all(&frame(SETTINGS, ACK, &[])).await.unwrap(),
                        (PING, 0) => write.write_all(&frame(PING, ACK, &payload)).await.unwrap(),
                        (HEADERS, _) => heads.send_modify(|heads| *heads += 1),
                        _ => {}
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_only_waited_for_a_stream_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (allow, allowed) = watch::channel(2);
        let (told, mut heads) = watch::channel(0);
        let all = async {
            let open = Open::at_once(&Rc::default(), &Arc::new(Live::new(1)), None, false).unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            spawn_local(silent(listener.accept().await.unwrap().0, allowed, told));
            let shared = Shared::start(
                Wire::Plain(socket),
                open,
                &Rc::default(),
                Bounds { streams: 100, head: 64 * 1024 },
                Millis(0),
            )
            .await
            .unwrap();
            let mut streams = [(); 2].map(|()| Stream::<Empty<Bytes>>::new(shared.slot().unwrap()));
            // Both have their place when the instance thinks better of it.
            allow.send_replace(1);
            while shared.sender().current_max_send_streams() != 1 {
                tokio::task::yield_now().await;
            }
            let [first, second] = &mut streams;
            let request = || Request::get("/").header("host", "shop").body(Empty::new()).unwrap();
            {
                let (mut one, mut two) = (pin!(first.send(request, false)), pin!(second.send(request, false)));
                let waiting = async {
                    tokio::select! {
                        // The first one is the one that is first.
                        biased;
                        _ = &mut one => panic!("nobody answers"),
                        _ = &mut two => panic!("nobody answers"),
                        seen = heads.wait_for(|heads| *heads > 0) => assert_eq!(*seen.unwrap(), 1),
                    }
                };
                tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the first request");
            }
            assert!(!first.is_unsent(), "it was seen");
            assert!(second.is_unsent(), "there was no stream for it");
        };
        LocalSet::new().run_until(all).await;
    }
}
