//! A client's socket, watched: when bytes came, and since when a write is stuck.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::engine::time::Millis;
use crate::forward::Connection;
use crate::forward::connection::{NEVER, Phase};
use crate::upstream::wire::poll_write_pieces;

/// What a connection can be served on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read may give something, an end or an error included. Gives nothing out.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// When it is closed, the client is sent a reset, and what the system still holds for it is forgotten.
    fn forget(&self);
}

impl Transport for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn forget(&self) {
        // A socket that cannot be told is closed in the usual way.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// What a client says first to speak HTTP/2 without having asked (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A transport that tells its connection what moves.
#[derive(Debug)]
pub struct Watched<T: Transport> {
    transport: T,
    connection: Rc<Connection>,
    /// Read before, by another owner of the transport; comes first.
    first: Bytes,
    /// Nothing was read yet that is no beginning of the preface.
    fresh: bool,
    /// Until the client has closed its side too, or this is used up, a shutdown is not over.
    lingers: Option<Linger>,
}

/// How long, and how many bytes, a client that is still sending is listened to after its last answer, so that the
/// answer is not lost to a reset.
pub const LINGER_MS: u64 = 1_000;
/// See [`LINGER_MS`].
pub const LINGER_BYTES: usize = 1 << 20;

/// What is left of it.
#[derive(Debug)]
struct Linger {
    /// `NEVER`: the shutdown has not begun.
    until: Millis,
    bytes: usize,
}

impl<T: Transport> Watched<T> {
    /// `first`: bytes that were read already.
    #[must_use]
    pub fn new(transport: T, connection: &Rc<Connection>, first: Bytes) -> Self {
        Self { transport, connection: Rc::clone(connection), first, fresh: true, lingers: None }
    }

    /// Ready when there is something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() { self.transport.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Adds bytes that were read and not used, before what is still to be read.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.first.is_empty(), "nothing is read past what was given back");
        // Empty ones may still hold the buffer that they are of.
        self.first = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    /// A shutdown reads and forgets for a while what the client still sends: closing at once would reset the connection,
    /// and the last answer might be lost with it. Meanwhile the connection's `instance_deadline` says until when, and the
    /// driver has to look again then.
    pub fn linger(&mut self) {
        self.lingers = Some(Linger { until: NEVER, bytes: LINGER_BYTES });
    }

    /// Whether what was read so far could be the beginning of the preface: it is then kept until more has come, for
    /// HTTP/1 would refuse it.
    fn hold_preface(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let read = &buf.filled()[before..];
        let held = read.len() < PREFACE.len() && PREFACE.starts_with(read);
        if held {
            self.first = Bytes::copy_from_slice(read);
            buf.set_filled(before);
        } else {
            self.fresh = false;
        }
        held
    }

    fn came(&self, bytes: usize) {
        self.connection.clock.read();
        if self.connection.phase.get() == Phase::Idle {
            self.connection.enter(Phase::Head);
        }
        if self.connection.phase.get() == Phase::Head {
            self.connection.room.read_head(bytes as u64);
        }
    }

    fn count(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.connection.room.wrote(*bytes as u64);
        }
    }

    fn wrote<R>(&self, polled: &Poll<R>) {
        match polled {
            // An answer's body that has waited for this goes on.
            Poll::Ready(_) if self.connection.write_blocked.replace(NEVER) != NEVER => self.connection.wake(),
            Poll::Ready(_) => {}
            Poll::Pending if self.connection.write_blocked.get() == NEVER => {
                self.connection.write_blocked.set(self.connection.clock.read_millis());
            }
            Poll::Pending => {}
        }
    }
}

impl<T: Transport> Drop for Watched<T> {
    fn drop(&mut self) {
        // What is stuck in writing is not kept by the system either.
        if self.connection.cut.get() {
            self.transport.forget();
        }
    }
}

impl<T: Transport> Watched<T> {
    /// Reads until it is known whether the preface came.
    fn poll_first(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() < PREFACE.len() {
            self.fresh = false;
            return Pin::new(self).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        buf.put_slice(&std::mem::take(&mut self.first));
        loop {
            let known = buf.filled().len();
            let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
            let ended = !matches!(polled, Poll::Pending) && buf.filled().len() == known;
            if buf.filled().len() > known {
                self.came(buf.filled().len() - known);
            }
            if ended {
                self.fresh = false;
                return polled;
            }
            let read = buf.filled().len() > before;
            if !read || self.hold_preface(buf, before) {
                match polled {
                    Poll::Ready(_) => buf.put_slice(&std::mem::take(&mut self.first)),
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.fresh {
            return self.poll_first(cx, buf);
        }
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            // The last of it gives the buffer free.
            buf.put_slice(&self.first.split_to(n));
            self.came(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.came(buf.filled().len() - before);
        }
        polled
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.wrote(&polled);
        self.count(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = poll_write_pieces(Pin::new(&mut self.transport), cx, bufs);
        self.wrote(&polled);
        self.count(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of an encrypted transport this is a write: its last record may still wait for the client.
        let polled = Pin::new(&mut self.transport).poll_flush(cx);
        self.wrote(&polled);
        if polled.is_ready() {
            self.connection.unsent.drained(cx);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of an encrypted transport this is a write: the client is told that nothing follows.
        let polled = Pin::new(&mut self.transport).poll_shutdown(cx);
        self.wrote(&polled);
        std::task::ready!(polled)?;
        let Self { transport, connection, lingers, .. } = &mut *self;
        let mut scratch = [0u8; 1_024];
        while let Some(linger) = lingers {
            if linger.until == NEVER {
                linger.until = connection.clock.read_millis().plus(LINGER_MS);
                connection.instance_deadline.set(linger.until);
            }
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut *transport).poll_read(cx, &mut buf)?;
            if read.is_pending() && connection.clock.now() < linger.until {
                return Poll::Pending;
            }
            linger.bytes = linger.bytes.saturating_sub(buf.filled().len());
            if buf.filled().is_empty() || linger.bytes == 0 || connection.clock.now() >= linger.until {
                *lingers = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}
