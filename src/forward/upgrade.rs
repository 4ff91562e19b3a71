//! After a 101: bytes both ways, until one side ends or nothing moves for `stream_idle`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, NEVER};
use super::exchange::Exchange;
use super::wait::after;
use crate::engine::time::Millis;
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
    /// Milliseconds without a byte in either direction.
    pub idle: u64,
}

impl Tunnel {
    /// The instance that it leads to, for a log.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.exchange.peer().map_or("", |peer| &peer.instance.id)
    }

    /// Passes bytes on. `read`: what the client sent behind its request.
    pub async fn run<C: AsyncRead + AsyncWrite + Unpin>(self, mut client: C, read: Bytes, connection: &Connection) {
        let Self { mut raw, mut exchange, idle } = self;
        let mut up = Flow::new(read);
        let mut down = Flow::new(std::mem::take(&mut raw.read));
        let mut moved = connection.clock.now();
        std::future::poll_fn(|cx| {
            let mut progress = false;
            let there = up.poll(&mut client, &mut raw.stream, cx, &mut progress);
            let back = down.poll(&mut raw.stream, &mut client, cx, &mut progress);
            let over = match (there, back) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => true,
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => true,
                (Poll::Pending, _) | (_, Poll::Pending) => false,
            };
            if over {
                return Poll::Ready(());
            }
            poll_idle(connection, progress, idle, &mut moved)
        })
        .await;
        connection.instance_deadline.set(NEVER);
        exchange.tunnelled(down.passed);
        exchange.complete();
    }
}

/// Ready when nothing has moved for too long.
fn poll_idle(connection: &Connection, progress: bool, idle: u64, moved: &mut Millis) -> Poll<()> {
    if progress {
        *moved = connection.clock.read_millis();
    }
    let deadline = after(*moved, idle);
    if connection.clock.now() >= deadline {
        return Poll::Ready(());
    }
    connection.instance_deadline.set(deadline);
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
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reading side ended; the writing side is to be told.
    Ending,
    Ended,
}

impl Flow {
    fn new(first: Bytes) -> Self {
        Self { first, buffer: vec![0; BUFFER].into(), start: 0, end: 0, passed: 0, state: State::Open }
    }

    /// Moves what can be moved. Ready when the reading side has ended and the writing side knows.
    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.pending().is_empty() {
                match Pin::new(&mut *to).poll_write(cx, self.pending()) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => {
                        self.written(n);
                        *moved = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    std::task::ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    if std::task::ready!(self.poll_fill(from, cx))? == 0 {
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
        self.passed += n as u64;
        if self.first.is_empty() {
            self.start += n;
        } else {
            self.first.advance(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_read_early_goes_first_and_an_end_is_passed_on() {
        let (mut left, mut inner_left) = tokio::io::duplex(8);
        let (mut inner_right, mut right) = tokio::io::duplex(8);
        let mut flow = Flow::new(Bytes::from_static(b"early "));
        let passing = tokio::spawn(async move {
            let mut moved = false;
            std::future::poll_fn(|cx| flow.poll(&mut inner_left, &mut inner_right, cx, &mut moved)).await.unwrap();
            flow.passed
        });
        let writing = tokio::spawn(async move {
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
