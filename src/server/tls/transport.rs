//! An encrypted connection as the server drives it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncBufRead;
use tokio_rustls::server::TlsStream;

use super::socket::ClientSocket;
use crate::server::io::Transport;

impl Transport for Box<TlsStream<ClientSocket>> {
    /// A readable socket may hold no more than a ticket or half a record, and text that was decrypted before does not
    /// make the socket readable; so what has come is decrypted, and kept.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_fill_buf(cx).map_ok(|_| ())
    }

    fn forget(&self) {
        self.get_ref().0.tcp().forget();
    }
}
