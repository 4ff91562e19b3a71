//! A client's socket, watched: when bytes came, and since when a write is stuck.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::forward::Connection;
use crate::forward::connection::{NEVER, Phase};
use crate::upstream::wire::poll_write_pieces;

/// What a connection can be served on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read may give something, an end or an error included. Gives nothing out.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Transport for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

/// A transport that tells its connection what moves.
#[derive(Debug)]
pub struct Watched<T> {
    transport: T,
    connection: Rc<Connection>,
    /// Read before, by another owner of the transport; comes first.
    first: Bytes,
}

impl<T: Transport> Watched<T> {
    /// `first`: bytes that were read already.
    #[must_use]
    pub fn new(transport: T, connection: &Rc<Connection>, first: Bytes) -> Self {
        Self { transport, connection: Rc::clone(connection), first }
    }

    /// Ready when there is something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() { self.transport.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Adds bytes that were read and not used, before what is still to be read.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.first.is_empty(), "nothing is read past what was given back");
        self.first = bytes;
    }

    fn came(&self) {
        self.connection.clock.read();
        if self.connection.phase.get() == Phase::Idle {
            self.connection.enter(Phase::Head);
        }
    }

    fn wrote<R>(&self, polled: &Poll<R>) {
        match polled {
            Poll::Ready(_) => self.connection.write_blocked.set(NEVER),
            Poll::Pending if self.connection.write_blocked.get() == NEVER => {
                self.connection.write_blocked.set(self.connection.clock.read_millis());
            }
            Poll::Pending => {}
        }
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..n]);
            self.first.advance(n);
            self.came();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.transport).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.came();
        }
        polled
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = poll_write_pieces(Pin::new(&mut self.transport), cx, bufs);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of an encrypted transport this is a write: its last record may still wait for the client.
        let polled = Pin::new(&mut self.transport).poll_flush(cx);
        self.wrote(&polled);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
