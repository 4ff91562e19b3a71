//! After a 101: bytes both ways, until one side ends, nothing moves for `stream_idle`, or it has reached its age. A
//! WebSocket is then told with a close frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::refuse;
use super::body::AnswerBody;
use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::exchange::Exchange;
use super::frames::{Frames, going_away};
use super::https::promise;
use super::settings::Settings;
use super::turn::Turn;
use super::wait::after;
use crate::engine::health::Evidence;
use crate::engine::time::Millis;
use crate::observe::memory::TUNNEL;
use crate::upstream::link::Raw;

/// Bytes held in each direction.
const BUFFER: usize = 16 * 1024;

/// An instance's side of a connection that has left HTTP.
#[derive(Debug)]
pub struct Tunnel {
    /// The instance's side.
    pub raw: Raw,
    /// The request that led to it.
    pub exchange: Exchange,
    /// How long it may last.
    pub lasting: Lasting,
    /// Nothing is known of the instance but that it takes connections: its first byte, or an end in peace, speaks for it.
    pub unproved: bool,
}

/// How long a tunnel may last.
#[derive(Clone, Copy, Debug)]
pub struct Lasting {
    /// Milliseconds without a byte in either direction.
    pub idle: u64,
    /// When it has the age at which it is ended.
    pub aged: Millis,
    /// It carries WebSocket frames, so it can be ended with a word.
    pub websocket: bool,
}

/// How long both sides have to take the goodbye, and to close.
const GOODBYE_MS: u64 = 1_000;

impl Tunnel {
    /// The instance that it leads to, for a log.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.exchange.peer().map_or("", |peer| &peer.instance.id)
    }

    /// It does not come about, for the instance agreed to what it does not speak: what the client is told in its place.
    #[must_use]
    pub fn disbelieved(self, settings: &Settings) -> Response<AnswerBody> {
        let Self { mut exchange, .. } = self;
        let mut response = refuse(Detail::UpstreamMalformed.into(), false, settings);
        promise(response.headers_mut(), &exchange);
        exchange.status = response.status().as_u16();
        exchange.cut(Detail::UpstreamMalformed);
        response.map(|source| AnswerBody::new(source, exchange))
    }

    /// Passes bytes on. `read`: what the client sent behind its request. What one side has torn is torn for the other side,
    /// too, where the protocol is not known to tell: nothing that was cut looks whole.
    pub async fn run<C: AsyncRead + AsyncWrite + Unpin>(self, mut client: C, read: Bytes, connection: &Connection) {
        let Self { mut raw, exchange, lasting, mut unproved } = self;
        exchange.hold(TUNNEL);
        let _open = exchange.tunnels();
        let up = Flow::new(read, lasting.websocket);
        let down = Flow::new(std::mem::take(&mut raw.read), lasting.websocket);
        let mut passing = Passing { exchange, up, down };
        let Passing { exchange, up, down } = &mut passing;
        let mask = (exchange.draw.fork(GOODBYE_MS).0 as u32).to_be_bytes();
        let mut moved = connection.clock.now();
        let mut cut_at = NEVER;
        // The instance has ended and takes nothing more; what it has said still goes to the client.
        let mut deaf = false;
        let end = std::future::poll_fn(|cx| {
            let now = connection.clock.now();
            let leaves = lasting.websocket && connection.going_away.get();
            if cut_at == NEVER && (now >= lasting.aged || leaves) {
                cut_at = now.plus(if lasting.websocket { GOODBYE_MS } else { 0 });
                up.say_goodbye(going_away(Some(mask)));
                down.say_goodbye(going_away(None));
            }
            let mut progress = false;
            let mut there = Poll::Ready(Ok(()));
            if !deaf {
                there = up.poll(&mut client, &mut raw.stream, cx, &connection.turn, &mut progress);
                deaf = matches!(&there, Poll::Ready(Err(torn)) if torn.is_behind_an_end());
            }
            let back = down.poll(&mut raw.stream, &mut client, cx, &connection.turn, &mut progress);
            if unproved && down.passed > 0 {
                unproved = false;
                exchange.evidence(Evidence::Success);
            }
            match (there, back) {
                (Poll::Ready(Err(torn)), _) if !deaf => return Poll::Ready(torn.by([Side::Client, Side::Instance])),
                (_, Poll::Ready(Err(torn))) => return Poll::Ready(torn.by([Side::Instance, Side::Client])),
                (Poll::Ready(_), Poll::Ready(Ok(()))) => return Poll::Ready(End::Peace),
                (Poll::Pending, _) | (_, Poll::Pending) => {}
            }
            poll_until(connection, progress, lasting, cut_at, &mut moved).map(|()| End::Time)
        })
        .await;
        connection.instance_deadline.set(NEVER);
        let end = match end {
            // Who has said all may be gone: what still goes there is of no use to anybody.
            End::Torn(Side::Instance) if down.is_over() => End::Peace,
            End::Torn(Side::Client) if up.took_leave() || up.is_over() && down.is_over() => End::Peace,
            end => end,
        };
        let by = match (cut_at, end) {
            (NEVER, End::Peace) => None,
            (NEVER, End::Time) => Some(Detail::StreamIdle),
            (NEVER, End::Torn(Side::Client)) => Some(Detail::ClientClosed),
            (NEVER, End::Torn(Side::Instance)) => Some(Detail::UpstreamReset),
            _ if connection.going_away.get() => Some(Detail::Draining),
            _ => Some(Detail::MaxStreamAge),
        };
        if unproved {
            let torn = by == Some(Detail::UpstreamReset);
            exchange.evidence(if torn { Evidence::Reset } else { Evidence::Success });
        }
        match end {
            // It has frames: what was cut does not look whole, and the last of them may still be on their way.
            _ if lasting.websocket => {}
            End::Torn(Side::Client) => raw.stream.forget(),
            End::Torn(Side::Instance) => connection.cut.set(true),
            End::Time => {
                raw.stream.forget();
                connection.cut.set(true);
            }
            End::Peace => {}
        }
        exchange.tunnel_ended(by);
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have said all that they had to say, or one has left without a word where that is usual.
    Peace,
    /// Nothing moved for too long, or the time for the goodbye is over.
    Time,
    /// This side's connection broke.
    Torn(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Instance,
}

/// A direction broke.
#[derive(Debug)]
struct Torn {
    /// In reading; else in writing.
    reading: bool,
    error: io::Error,
}

impl Torn {
    /// Whether the other side had ended its own direction before: a connection that is reset after its end is a broken pipe,
    /// one that is reset before it is not. (A failure is told once. Whoever reads on behind another one is told of an end.)
    fn is_behind_an_end(&self) -> bool {
        !self.reading && self.error.kind() == io::ErrorKind::BrokenPipe
    }

    /// Whose end broke, of those who are read and written. Many a client ends TLS by closing its socket: that is an end.
    fn by(&self, [read, written]: [Side; 2]) -> End {
        match self.error.kind() {
            io::ErrorKind::UnexpectedEof => End::Peace,
            _ => End::Torn(if self.reading { read } else { written }),
        }
    }
}

fn in_reading(error: io::Error) -> Torn {
    Torn { reading: true, error }
}

fn in_writing(error: io::Error) -> Torn {
    Torn { reading: false, error }
}

/// Both directions, and the exchange that is told what passed, also where a drain cuts them.
struct Passing {
    exchange: Exchange,
    up: Flow,
    down: Flow,
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.exchange.tunnelled(self.up.passed, self.down.passed);
    }
}

/// Ready when nothing has moved for too long, or the time for the goodbye is over.
fn poll_until(
    connection: &Connection,
    progress: bool,
    lasting: Lasting,
    cut_at: Millis,
    moved: &mut Millis,
) -> Poll<()> {
    if progress {
        *moved = connection.clock.read_millis();
    }
    let deadline = after(*moved, lasting.idle).min(cut_at);
    if connection.clock.now() >= deadline {
        return Poll::Ready(());
    }
    connection.instance_deadline.set(if cut_at == NEVER { deadline.min(lasting.aged) } else { deadline });
    Poll::Pending
}

/// One direction.
struct Flow {
    /// Read but not written.
    first: Bytes,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    passed: u64,
    /// Something was written since the last flush.
    unflushed: bool,
    state: State,
    /// Follows a WebSocket's frames; `None`: any bytes.
    frames: Option<Frames>,
    /// What is said where the frame under way ends.
    goodbye: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The goodbye is being said; what still comes is not passed on.
    Leaving,
    /// It was said, and the writing side closed; the reading side is heard out, so that nothing is lost to a reset.
    Left,
    /// The reading side ended; the writing side is to be told.
    Ending,
    Ended,
}

impl Flow {
    fn new(first: Bytes, websocket: bool) -> Self {
        Self {
            first,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            passed: 0,
            unflushed: false,
            state: State::Open,
            frames: websocket.then(Frames::default),
            goodbye: None,
        }
    }

    /// Whether its sender has said all that it had to say.
    fn is_over(&self) -> bool {
        self.took_leave() || matches!(self.state, State::Ending | State::Ended)
    }

    /// Whether its sender has closed a WebSocket.
    fn took_leave(&self) -> bool {
        self.frames.is_some_and(|frames| frames.closed())
    }

    /// Ends it with these bytes, once the frame under way is whole. Nothing is said where the protocol has no word, or
    /// where the sender has taken its leave already.
    fn say_goodbye(&mut self, words: Vec<u8>) {
        if self.frames.is_some_and(|frames| !frames.closed()) && self.state == State::Open {
            self.goodbye = Some(words);
        }
    }

    /// How many of the pending bytes may go: all, or the rest of the frame under way.
    fn sendable(&self) -> usize {
        match (&self.frames, &self.goodbye) {
            (Some(frames), Some(_)) => frames.rest_of(self.pending()),
            _ => self.pending().len(),
        }
    }

    /// Puts the goodbye in place of what is pending.
    fn leave(&mut self) {
        if let Some(words) = self.goodbye.take() {
            (self.first, self.start, self.end, self.frames) = (words.into(), 0, 0, None);
            self.state = State::Leaving;
        }
    }

    /// Moves what can be moved while the turn lasts. Ready when the reading side has ended and the writing side knows.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        cx: &mut Context<'_>,
        turn: &Turn,
        moved: &mut bool,
    ) -> Poll<Result<(), Torn>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.goodbye.is_some() && self.frames.is_some_and(|frames| frames.at_boundary()) {
                self.leave();
            }
            while self.sendable() > 0 {
                let most = self.sendable();
                match Pin::new(&mut *to).poll_write(cx, &self.pending()[..most]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(in_writing(io::ErrorKind::WriteZero.into()))),
                    Poll::Ready(Ok(n)) => {
                        self.written(n);
                        *moved = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(in_writing(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.goodbye.is_some() && self.frames.is_some_and(|frames| frames.at_boundary()) {
                continue;
            }
            match self.state {
                State::Leaving => {
                    std::task::ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(in_writing)?;
                    self.state = State::Left;
                }
                State::Left => {
                    if std::task::ready!(self.poll_fill(from, cx)).map_err(in_reading)? == 0 {
                        self.state = State::Ended;
                    }
                    (self.start, self.end) = (0, 0);
                }
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    std::task::ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(in_writing)?;
                    self.state = State::Ended;
                }
                State::Open if !turn.lasts(cx) => return Poll::Pending,
                State::Open => {
                    let filled = self.poll_fill(from, cx);
                    if filled.is_pending() && self.unflushed {
                        // An encrypted side may hold the last record back.
                        self.unflushed = Pin::new(&mut *to).poll_flush(cx).map_err(in_writing)?.is_pending();
                    }
                    let filled = std::task::ready!(filled).map_err(in_reading)?;
                    turn.moved(filled);
                    if filled == 0 {
                        self.state = State::Ending;
                    }
                    *moved = true;
                }
            }
        }
    }

    fn poll_fill<R: AsyncRead + Unpin>(&mut self, from: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        std::task::ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        (self.start, self.end) = (0, buffer.filled().len());
        Poll::Ready(Ok(self.end))
    }

    fn pending(&self) -> &[u8] {
        if self.first.is_empty() { &self.buffer[self.start..self.end] } else { &self.first }
    }

    fn written(&mut self, n: usize) {
        self.unflushed = true;
        self.passed += n as u64;
        if let Some(mut frames) = self.frames.take() {
            frames.advance(&self.pending()[..n]);
            self.frames = Some(frames);
        }
        if self.first.is_empty() {
            self.start += n;
        } else {
            self.first.advance(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Instant;

    use super::super::clock::Clock;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(flavor = "local")]
    async fn what_was_read_early_goes_first_and_an_end_is_passed_on() {
        let (mut left, mut inner_left) = tokio::io::duplex(8);
        let (mut inner_right, mut right) = tokio::io::duplex(8);
        let mut flow = Flow::new(Bytes::from_static(b"early "), false);
        let passing = tokio::task::spawn_local(async move {
            let mut moved = false;
            let turn = Turn::new(&Rc::new(Clock::new(Instant::now())));
            std::future::poll_fn(|cx| flow.poll(&mut inner_left, &mut inner_right, cx, &turn, &mut moved))
                .await
                .unwrap();
            flow.passed
        });
        let writing = tokio::task::spawn_local(async move {
            left.write_all(b"and a longer text than the pipe holds").await.unwrap();
            left.shutdown().await.unwrap();
        });
        let mut got = String::new();
        right.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "early and a longer text than the pipe holds");
        writing.await.unwrap();
        assert_eq!(passing.await.unwrap(), got.len() as u64);
    }
}
