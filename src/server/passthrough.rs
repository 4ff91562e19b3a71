//! Connections whose bytes are passed on unread: plain TCP by listener, TLS by the name in the client's greeting.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The most that a greeting may take. A record holds 16 KiB; a greeting may lie in several.
const GREETING_MOST: usize = 64 * 1024;

/// Where such a listener's connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passes {
    /// All to one host of the rules.
    Host(Arc<str>),
    /// To the host that the client's greeting names; without one to the host that the rules have for no name.
    Sni,
}

/// A client's greeting (ClientHello): the name that it asks for, and all that was read for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Greeting {
    /// In lower case; `None`: it names nobody.
    pub name: Option<Arc<str>>,
    /// To be passed on.
    pub read: Bytes,
}

/// Reads a greeting without answering it. The caller bounds the time.
///
/// # Errors
/// `InvalidData`: not TLS, or too long. Others: the client left.
pub async fn greeting(stream: &mut TcpStream) -> io::Result<Greeting> {
    let (mut acceptor, mut read) = (Acceptor::default(), BytesMut::with_capacity(2 * 1024));
    loop {
        let before = read.len();
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fresh = &read[before..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh)?;
            if let Some(name) = named(&mut acceptor)? {
                return Ok(Greeting { name, read: read.freeze() });
            }
        }
        if read.len() >= GREETING_MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// `None`: the greeting is not whole yet.
fn named(acceptor: &mut Acceptor) -> io::Result<Option<Option<Arc<str>>>> {
    match acceptor.accept() {
        Ok(Some(accepted)) => Ok(Some(accepted.client_hello().server_name().map(Arc::from))),
        Ok(None) => Ok(None),
        // The client gets no alert: whoever it asks for would have given another one.
        Err((error, _)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// What the rules are told of a connection that is passed on by its greeting.
#[must_use]
pub fn told(greeting: &Greeting) -> crate::forward::connection::Tls {
    crate::forward::connection::Tls {
        sni: greeting.name.clone(),
        san: Arc::new([]),
        names: None,
        sni_covered: false,
        h2: false,
    }
}

/// Whom a connection asks for, in the words of the rules.
#[must_use]
pub fn host<'p>(passes: &'p Passes, greeting: Option<&'p Greeting>) -> Rc<str> {
    match passes {
        Passes::Host(host) => Rc::from(&**host),
        Passes::Sni => Rc::from(greeting.and_then(|greeting| greeting.name.as_deref()).unwrap_or("")),
    }
}
