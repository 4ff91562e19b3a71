//! Connections whose bytes are passed on unread: plain TCP by listener, TLS by the name in the client's greeting.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::client_hello::{Malformed, Step, step};
use crate::observe::memory::Charge;

/// Up to so many bytes, a record's head and a message's, each byte is looked at as it comes.
const LOOKED_AT: usize = 9;

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
    /// In lower case, without a dot at its end; `None`: it names nobody.
    pub name: Option<Arc<str>>,
    /// To be passed on.
    pub read: Bytes,
}

/// Reads a greeting without answering it, of any version of TLS. The caller bounds the time; `charge` holds what is read.
///
/// # Errors
/// `InvalidData`: not TLS, or too long; the client gets no alert, for whoever it asks for would have given another one.
/// Others: the client left.
pub async fn greeting(stream: &mut TcpStream, charge: &Charge) -> io::Result<Greeting> {
    let (mut read, mut wanted, mut held) = (BytesMut::with_capacity(2 * 1024), 1, 0);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = read.capacity().max(held);
        charge.hold((size - std::mem::replace(&mut held, size)) as u64);
        // What is no greeting is refused at its first bytes.
        if read.len() < wanted && read.len() > LOOKED_AT {
            continue;
        }
        match step(&read) {
            Ok(Step::More(more)) => wanted = read.len() + more,
            Ok(Step::Asks(name)) => return Ok(Greeting { name, read: read.freeze() }),
            Err(Malformed) => return Err(io::ErrorKind::InvalidData.into()),
        }
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
