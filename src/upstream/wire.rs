//! A socket that writes a few small pieces in one plain call. Gathering writes cost the system more than a copy of a
//! head and a short body does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The most bytes that are copied together.
const SMALL: usize = 1_024;

/// Writes pieces: one or few small ones by a plain write, others by a gathering one.
pub fn poll_write_pieces<W: AsyncWrite + Unpin>(
    mut to: Pin<&mut W>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match pieces {
        [one] => return to.poll_write(cx, one),
        [first, second] if first.len() + second.len() <= SMALL => {
            let mut together = [0u8; SMALL];
            let (front, back) = together.split_at_mut(first.len());
            front.copy_from_slice(first);
            back[..second.len()].copy_from_slice(second);
            return to.poll_write(cx, &together[..first.len() + second.len()]);
        }
        _ => {}
    }
    to.as_mut().poll_write_vectored(cx, pieces)
}

/// An instance's socket.
#[derive(Debug)]
pub enum Wire {
    /// Bare.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// The stream of either kind.
macro_rules! either {
    ($wire:expr, $stream:ident => $does:expr) => {
        match &mut *$wire {
            Wire::Plain($stream) => {
                let $stream = Pin::new($stream);
                $does
            }
            Wire::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $does
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => poll_write_pieces(stream, cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
