//! From an accepted socket to what is served: the PROXY protocol's head, the handshake, then HTTP.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::{pass, serve};
use super::passthrough::{Passes, greeting, host, told};
use super::proxy_protocol::{Malformed, Said, Step, step};
use super::settings::Listen;
use super::tls::Terminator;
use super::tls::socket::ClientSocket;
use super::tls::terminator::Encrypted;
use super::turns::Turns;
use super::worker::{LAST_LOOK, Worker};
use crate::forward::connection::{Ends, Tls};
use crate::observe::memory::Charge;
use crate::observe::names;

/// How long, and for how many bytes, a client whose handshake failed is listened to after it was told why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// Who is at the other side.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The connection's ends, or those that a proxy has announced.
    pub ends: Ends,
    /// The client's end is a proxy's, who does not know the client.
    pub anonymous: bool,
}

/// Serves an accepted socket to its end. `id`: the connection's among the worker's.
pub async fn enter(worker: Rc<Worker>, id: u64, listener: usize, stream: TcpStream, peer: SocketAddr) {
    let listen = &worker.listen[listener];
    if listen.proxy_protocol || listen.tls.is_some() || listen.passes.is_some() {
        Box::pin(enter_slowly(&worker, id, listener, stream, peer)).await;
    } else {
        let Ok(_place) = worker.place_of(peer) else { return };
        let connection = worker.register(id, listener, own_ends(listen, &stream, peer), None);
        serve(&worker, stream, connection).await;
    }
}

/// What begins with a head or a handshake; apart, so that a plain connection does not carry its state.
async fn enter_slowly(worker: &Rc<Worker>, id: u64, listener: usize, mut stream: TcpStream, peer: SocketAddr) {
    let listen = &worker.listen[listener];
    let mut who = own_ends(listen, &stream, peer);
    if listen.proxy_protocol {
        match announced(worker, listen, &mut stream, who).await {
            Some(announced) => who = announced,
            None => return,
        }
    }
    let peer = who.ends.client;
    let Ok(_place) = worker.place_of(peer) else { return };
    if let Some(passes) = &listen.passes {
        return pass_on(worker, id, listener, passes, stream, who).await;
    }
    let Some(terminator) = &listen.tls else {
        let connection = worker.register(id, listener, who, None);
        return serve(worker, stream, connection).await;
    };
    let Some((stream, tls)) = handshake(worker, terminator, stream, peer).await else { return };
    let connection = worker.register(id, listener, who, Some(tls));
    Box::pin(serve(worker, stream, connection)).await;
}

/// Passes bytes on to whom the listener or the client's greeting names.
async fn pass_on(worker: &Rc<Worker>, id: u64, listener: usize, passes: &Passes, mut stream: TcpStream, who: Who) {
    let peer = who.ends.client;
    let refused = |reason: &'static str| {
        worker.forward.metrics.word(&names::REFUSALS, reason);
        tracing::info!(%peer, reason, "a connection was refused");
    };
    let charge = Charge::new(&worker.forward.account, 0);
    let greeting = match passes {
        Passes::Host(_) => None,
        Passes::Sni => {
            let greeting =
                async { if speaks(worker, &stream).await { Some(greeting(&mut stream, &charge).await) } else { None } };
            match timeout(limit(worker.limits.tls_handshake), greeting).await {
                Ok(None) => return,
                Ok(Some(Ok(greeting))) => Some(greeting),
                Ok(Some(Err(error))) if error.kind() == io::ErrorKind::InvalidData => {
                    return refused("passthrough_malformed");
                }
                Ok(Some(Err(_))) => return refused("passthrough_closed"),
                Err(_) => return refused("passthrough_timeout"),
            }
        }
    };
    let connection = worker.register(id, listener, who, greeting.as_ref().map(told));
    drop(charge);
    let host = host(passes, greeting.as_ref());
    let read = greeting.map(|greeting| greeting.read).unwrap_or_default();
    pass(worker, stream, connection, &host, read).await;
}

/// A limit in milliseconds; 0: none.
fn limit(millis: u64) -> Duration {
    if millis == 0 { Duration::MAX } else { Duration::from_millis(millis) }
}

/// Waits until the client says something, or has left. False: a drain came first, which waits only for who has begun.
async fn speaks(worker: &Worker, stream: &TcpStream) -> bool {
    let mut byte = [0];
    let first = stream.peek(&mut byte);
    let mut drains = pin!(worker.drains.notified());
    drains.as_mut().enable();
    if worker.closing.get() {
        return timeout(LAST_LOOK, first).await.is_ok();
    }
    tokio::select! {
        biased;
        _ = first => true,
        () = drains => false,
    }
}

/// The handshake within its limit; `None`: there was none, which is counted, or not begun before a drain.
async fn handshake(
    worker: &Worker,
    terminator: &Terminator,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Encrypted, Tls)> {
    let metrics = &worker.forward.metrics;
    let shaking = Box::pin(async {
        if !speaks(worker, &stream).await {
            return None;
        }
        let socket = ClientSocket::new(stream, &worker.forward.account);
        Some(by_turns(&worker.handshakes, terminator.accept(socket)).await)
    });
    match timeout(limit(worker.limits.tls_handshake), shaking).await {
        Ok(None) => None,
        Ok(Some(Ok((stream, tls)))) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            metrics.word(&names::TLS_HANDSHAKES, if resumed { "resumed" } else { "full" });
            Some((stream, tls))
        }
        Ok(Some(Err((error, stream)))) => {
            metrics.word(&names::TLS_HANDSHAKES, "failed");
            tracing::info!(%peer, %error, "a TLS handshake failed");
            let _ = timeout(LINGER, leave(stream)).await;
            None
        }
        Err(_) => {
            metrics.word(&names::TLS_HANDSHAKES, "timeout");
            tracing::info!(%peer, "a TLS handshake took too long");
            None
        }
    }
}

/// Takes a turn for each step: thousands of greetings that come at once do not keep everybody else waiting.
async fn by_turns<F: Future>(turns: &Turns, stepping: F) -> F::Output {
    let mut stepping = pin!(stepping);
    loop {
        turns.take().await;
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(stepping.as_mut().poll(cx))).await {
            return output;
        }
        // Until the step that was just made has woken this task.
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Reads and forgets what a client still sends that was told why it is not served: with TLS 1.3 its request comes before
/// it hears of that. Closing at once would reset the connection, and the alert might be lost with it.
async fn leave(mut stream: ClientSocket) -> io::Result<()> {
    stream.shutdown().await?;
    let (mut scratch, mut left) = (vec![0; 4 * 1024], LINGER_BYTES);
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// The connection's own ends. A socket that is torn already has no address any more; the listener's does for it.
fn own_ends(listen: &Listen, stream: &TcpStream, peer: SocketAddr) -> Who {
    let ends = Ends { client: peer, server: stream.local_addr().unwrap_or(listen.address) };
    Who { ends, anonymous: false }
}

/// Who the client is and what it connected to, by the PROXY protocol; `None`: the connection is refused, which is counted.
async fn announced(worker: &Worker, listen: &Listen, stream: &mut TcpStream, own: Who) -> Option<Who> {
    let peer = own.ends.client;
    let refused = |reason: &'static str| {
        worker.forward.metrics.word(&names::REFUSALS, reason);
        tracing::info!(%peer, reason, listener = %listen.address, "a connection was refused");
        None
    };
    if !worker.trusts(peer) {
        return refused("proxy_protocol_untrusted");
    }
    let head = async { if speaks(worker, stream).await { Some(read_head(stream).await) } else { None } };
    match timeout(limit(worker.limits.head), head).await {
        Ok(None) => None,
        Ok(Some(Ok(Ok(Said::Ends(ends))))) => Some(Who { ends, anonymous: false }),
        Ok(Some(Ok(Ok(Said::Own)))) => Some(own),
        // It is a client's word that follows, whom nobody has named: nothing in it is a proxy's.
        Ok(Some(Ok(Ok(Said::Unknown)))) => Some(Who { anonymous: true, ..own }),
        Ok(Some(Ok(Err(Malformed)))) => refused("proxy_protocol_malformed"),
        Ok(Some(Err(_))) => refused("proxy_protocol_closed"),
        Err(_) => refused("proxy_protocol_timeout"),
    }
}

/// Reads exactly the head.
async fn read_head(stream: &mut TcpStream) -> io::Result<Result<Said, Malformed>> {
    let mut head = Vec::new();
    loop {
        match step(&head) {
            Ok(Step::More(more)) => {
                // Piece by piece, so that a wrong head is refused at its first bytes.
                if stream.take(more as u64).read_buf(&mut head).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(Step::Whole(said)) => return Ok(Ok(said)),
            Err(malformed) => return Ok(Err(malformed)),
        }
    }
}
