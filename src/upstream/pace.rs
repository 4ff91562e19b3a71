//! How much of an answer is read at once: large pieces, as far as its client has taken what was read before; small ones
//! for streams of HTTP/2 and while memory is short. Each read and each write costs the system as much as copying tens of
//! kilobytes, and wakes the other side; but what was read is held until the client has taken it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// The most that is read at once, and so held of an answer whose client has just stopped reading: 160 KiB of
/// HARDENING.md, less what a request holds besides (up to 40 KiB).
pub const LARGE: usize = 112 * 1024;
/// The least that is worth a read. The most for a stream of HTTP/2, of which a connection has many, and while memory is
/// short. One less than 16 KiB: hyper makes its buffer larger when a read has filled it.
pub const SMALL: usize = 16 * 1024 - 1;
/// What a connection may read. Shared by the connection's holder and its socket.
#[derive(Debug)]
pub struct Pace {
    at_once: Cell<usize>,
    /// When heads have come to so much and the answer's is not whole, those that only say "wait" (1xx) included, no more
    /// is read.
    heads_most: usize,
    /// `usize::MAX`: no head is waited for.
    heads: Cell<usize>,
    /// A large piece was read since `forget`.
    was_large: Cell<bool>,
}

impl Pace {
    /// Small pieces, and no head; one has at most so many bytes.
    #[must_use]
    pub fn new(head: usize) -> Rc<Self> {
        Rc::new(Self {
            at_once: Cell::new(SMALL),
            // One read may give all but the last byte of a head, and the next one as much of the body as any.
            heads_most: head + LARGE,
            heads: Cell::new(usize::MAX),
            was_large: Cell::new(false),
        })
    }

    /// A read gives at most so many bytes from now on.
    pub fn read_at_most(&self, bytes: usize) {
        self.at_once.set(bytes);
    }

    /// An answer's head is waited for. What comes with it of the body is read at once with it, as [`Pace::read_at_most`]
    /// allows: the reading buffer grows only where the answers before on this connection have filled it.
    pub fn head_begins(&self) {
        self.heads.set(self.heads_most);
    }

    /// It is whole.
    pub fn head_ended(&self) {
        self.heads.set(usize::MAX);
    }

    /// Whether the reading buffer may have become large.
    #[must_use]
    pub fn was_large(&self) -> bool {
        self.was_large.get()
    }

    fn came(&self, bytes: usize) {
        self.was_large.set(self.was_large.get() || bytes > SMALL);
        match self.heads.get() {
            usize::MAX => {}
            left => self.heads.set(left.saturating_sub(bytes)),
        }
    }
}

/// A socket that is read at a pace.
#[derive(Debug)]
pub struct Paced {
    /// The socket.
    pub wire: Wire,
    /// How.
    pub pace: Rc<Pace>,
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.pace.at_once.get();
        if self.pace.heads.get() == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "an answer's head that does not end")));
        }
        let before = buf.filled().len();
        let polled = if buf.remaining() <= most {
            Pin::new(&mut self.wire).poll_read(cx, buf)
        } else {
            // Not by `initialize_unfilled_to`, which writes zeros over all that may be read, each time.
            let mut part = (&mut *buf).limit(most);
            let reading = pin!(self.wire.read_buf(&mut part));
            reading.poll(cx).map_ok(drop)
        };
        self.pace.came(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
