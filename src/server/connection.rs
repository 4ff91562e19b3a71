//! One client connection: HTTP while there is something to do, a bare socket while there is not, a tunnel after a 101.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2;
use super::io::{LINGER_BYTES, LINGER_MS, PREFACE, Transport, Watched};
use super::settings::Limits;
use super::timer::Timer;
use super::worker::Worker;
use crate::engine::time::Millis;
use crate::forward::connection::{NEVER, Phase};
use crate::forward::passthrough::pass_through;
use crate::forward::request::answer;
use crate::forward::wait::after;
use crate::forward::{Connection, Received};
use crate::observe::metrics::WorkerMetrics;
use crate::observe::names;

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves a connection until it ends. What most connections never come to is boxed: an idle one carries none of it.
pub async fn serve<T: Transport + 'static>(worker: &Rc<Worker>, transport: T, connection: Rc<Connection>) {
    let mut served = Served::new(worker, &connection);
    let mut socket = Watched::new(transport, &connection, Bytes::new());
    if connection.tls.as_ref().is_some_and(|tls| tls.h2) {
        drop(served);
        return Box::pin(h2::serve(worker, socket, &connection)).await;
    }
    loop {
        if !served.readable(&mut socket).await {
            // An encrypted connection is told its end, if that can be written at once.
            poll_fn(|cx| Poll::Ready(Pin::new(&mut socket).poll_shutdown(cx).is_ready())).await;
            return;
        }
        // In a scope of its own: what follows, which may take an hour, does not hold hyper's state.
        let (end, read);
        (end, socket, read) = {
            let forward = Rc::clone(&worker.forward);
            let shared = Rc::clone(&connection);
            let service = service_fn(move |request: Request<Incoming>| {
                answer(Rc::clone(&forward), Rc::clone(&shared), request.map(Received::Http1))
            });
            let builder = if connection.entrance.half_close { &worker.half_closing } else { &worker.http };
            let mut http = Box::new(builder.serve_connection(TokioIo::new(socket), service));
            let end = poll_fn(|cx| served.poll_http(Pin::new(&mut *http), cx)).await;
            let parts = http.into_parts();
            (end, parts.io.into_inner(), parts.read_buf)
        };
        match end {
            End::Rested => socket.unread(read),
            End::Finished => return Box::pin(served.finish(socket, read)).await,
            End::Refused(_) if read.starts_with(PREFACE) && !connection.refuses_prior_knowledge() => {
                socket.unread(read);
                drop(served);
                return Box::pin(h2::serve(worker, socket, &connection)).await;
            }
            End::Refused(word) => {
                worker.forward.metrics.word(&names::REFUSALS, word);
                tracing::info!(peer = %connection.peer, reason = word, "a request was refused before it was one");
                return Box::pin(served.linger(socket)).await;
            }
            End::TooSlow => {
                worker.forward.metrics.word(&names::REFUSALS, "client_timeout");
                tracing::info!(peer = %connection.peer, reason = "client_timeout", "a request was refused before it was one");
                // A socket that would not take these few bytes is not waited for.
                poll_fn(|cx| Poll::Ready(Pin::new(&mut socket).poll_write(cx, TOO_SLOW).is_ready())).await;
                return Box::pin(served.linger(socket)).await;
            }
            End::Cut => return,
        }
    }
}

/// Passes bytes on to an instance of `host`, without HTTP. `read`: what was read already.
pub async fn pass<T: Transport + 'static>(
    worker: &Rc<Worker>,
    transport: T,
    connection: Rc<Connection>,
    host: &str,
    read: Bytes,
) {
    let mut served = Served::new(worker, &connection);
    let socket = Watched::new(transport, &connection, Bytes::new());
    let mut passing = pin!(pass_through(Rc::clone(&worker.forward), Rc::clone(&connection), host, socket, read));
    poll_fn(|cx| served.poll_with_timer(passing.as_mut(), cx)).await;
}

/// Why HTTP stopped on a connection.
enum End {
    /// Nothing to do for a while: the buffers are given back.
    Rested,
    /// The last answer was sent, a tunnel begins, or the client left.
    Finished,
    /// hyper refused a head.
    Refused(&'static str),
    /// A head did not come in time.
    TooSlow,
    /// Idle for too long, or a write is stuck.
    Cut,
}

/// A connection's driver: limits and the one timer.
struct Served {
    connection: Rc<Connection>,
    metrics: Rc<WorkerMetrics>,
    limits: Rc<Limits>,
    timer: Timer,
    keep_alive: u64,
    last_at: Millis,
    /// It was counted as ended by us, and HTTP told so.
    told: bool,
}

impl Served {
    fn new(worker: &Worker, connection: &Rc<Connection>) -> Self {
        let limits = Rc::clone(&worker.limits);
        Self {
            connection: Rc::clone(connection),
            metrics: Rc::clone(&worker.forward.metrics),
            timer: Timer::new(&connection.clock),
            keep_alive: worker.jittered(limits.keep_alive),
            last_at: after(connection.clock.now(), worker.jittered(limits.connection_age)),
            told: false,
            limits,
        }
    }

    /// Waits for the next byte. False: there will be none.
    async fn readable<T: Transport>(&mut self, socket: &mut Watched<T>) -> bool {
        let expires = self.connection.since.get().plus(self.keep_alive).min(self.last_at);
        poll_fn(|cx| {
            self.connection.remember(cx);
            loop {
                if let Poll::Ready(readable) = socket.poll_readable(cx) {
                    return Poll::Ready(readable.is_ok());
                }
                if self.connection.closing.get() || self.connection.clock.now() >= expires {
                    self.count_closed();
                    return Poll::Ready(false);
                }
                if self.timer.poll(&self.connection.clock, expires, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Polls HTTP, then what has come due.
    fn poll_http<H>(&mut self, mut http: Pin<&mut H>, cx: &mut Context<'_>) -> Poll<End>
    where
        H: Future<Output = hyper::Result<()>> + Graceful,
    {
        self.connection.remember(cx);
        loop {
            if let Poll::Ready(result) = http.as_mut().poll(cx) {
                // The last answer may be written before HTTP could be told that it is the last.
                if self.connection.closing.get() && result.is_ok() {
                    self.count_closed();
                }
                return Poll::Ready(result.map_or_else(|error| refusal(&error), |()| End::Finished));
            }
            let now = self.connection.clock.now();
            if let Some(end) = self.overdue(now) {
                return Poll::Ready(end);
            }
            if self.connection.closing.get() && !self.told {
                self.count_closed();
                http.as_mut().last_answer();
                continue;
            }
            if self.timer.poll(&self.connection.clock, self.due(now), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn overdue(&mut self, now: Millis) -> Option<End> {
        let connection = &self.connection;
        let since = connection.since.get();
        if now >= connection.write_ends() {
            self.metrics.word(&names::WRITE_CUTS, "connection");
            connection.cut.set(true);
            return Some(End::Cut);
        }
        if connection.cut.get() {
            self.metrics.word(&names::MEMORY_RESETS, "connection");
            return Some(End::Cut);
        }
        if now >= self.last_at {
            connection.closing.set(true);
        }
        let flushed = connection.write_blocked.get() == NEVER;
        match connection.phase.get() {
            Phase::Idle if now >= since.plus(self.keep_alive) => {
                self.count_closed();
                Some(End::Cut)
            }
            Phase::Idle if flushed && now >= since.plus(self.limits.rest_after) => Some(End::Rested),
            Phase::Head if now >= after(since, self.limits.head) => Some(End::TooSlow),
            Phase::Idle | Phase::Head | Phase::Busy | Phase::Tunnel | Phase::Streams => None,
        }
    }

    /// Counts a connection that ends because of its time, or ours, once.
    fn count_closed(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let reason = match self.connection.closing.get() {
            _ if self.connection.clock.now() >= self.last_at => "connection_age",
            true if self.connection.lingers.get() => "refused",
            true => "drain",
            false => "keep_alive",
        };
        self.metrics.word(&names::CLOSED, reason);
    }

    /// When to look again.
    fn due(&self, now: Millis) -> Millis {
        let connection = &self.connection;
        let since = connection.since.get();
        let own = match connection.phase.get() {
            Phase::Idle => since.plus(self.keep_alive.min(self.limits.rest_after)),
            Phase::Head => after(since, self.limits.head),
            Phase::Busy | Phase::Tunnel | Phase::Streams => NEVER,
        };
        let all = [
            own,
            self.last_at,
            connection.write_ends(),
            connection.instance_deadline.get(),
            connection.upload_deadline.get(),
        ];
        all.into_iter().map(|at| later(at, now)).min().unwrap_or(NEVER)
    }

    /// HTTP is over: a tunnel takes the socket, or it is closed so that the last answer is not lost.
    async fn finish<T: Transport>(&mut self, socket: Watched<T>, read: Bytes) {
        let tunnel = self.connection.tunnel.take();
        if let Some(tunnel) = tunnel {
            let connection = Rc::clone(&self.connection);
            connection.enter(Phase::Tunnel);
            let mut passing = pin!(tunnel.run(socket, read, &connection));
            return poll_fn(|cx| self.poll_with_timer(passing.as_mut(), cx)).await;
        }
        if self.connection.lingers.get() {
            self.linger(socket).await;
        }
    }

    fn poll_with_timer<F: Future>(&mut self, mut future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.connection.remember(cx);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            let due = later(self.connection.instance_deadline.get(), self.connection.clock.now());
            if self.timer.poll(&self.connection.clock, due, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and forgets for a while what the client still sends. Closing at once would reset the connection, and the
    /// answer might be lost with it.
    async fn linger<T: Transport>(&mut self, mut socket: Watched<T>) {
        let connection = Rc::clone(&self.connection);
        let until = connection.clock.read_millis().plus(LINGER_MS);
        connection.instance_deadline.set(until);
        let mut left = LINGER_BYTES;
        let mut scratch = vec![0u8; 8 * 1024];
        let mut reading = pin!(poll_fn(|cx| {
            // Over TLS the end of what we say is bytes, too: a client that does not read holds them up.
            if connection.clock.now() >= until {
                return Poll::Ready(());
            }
            if std::task::ready!(Pin::new(&mut socket).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                let mut buffer = ReadBuf::new(&mut scratch);
                match std::task::ready!(Pin::new(&mut socket).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() && left > buffer.filled().len() => {
                        left -= buffer.filled().len();
                    }
                    _ => return Poll::Ready(()),
                }
            }
        }));
        poll_fn(|cx| self.poll_with_timer(reading.as_mut(), cx)).await;
    }
}

/// When to look again at what is due at `at`: what is due already has just been polled, and waits for something else (a
/// client that does not read).
fn later(at: Millis, now: Millis) -> Millis {
    if at <= now { now.plus(LINGER_MS) } else { at }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A tunnel that never began holds the connection that holds it.
        self.connection.tunnel.take();
    }
}

/// What a connection's HTTP can be told.
trait Graceful {
    /// The answer under way is the last; without one the connection ends.
    fn last_answer(self: Pin<&mut Self>);
}

impl<I, B, S> Graceful for hyper::server::conn::http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn last_answer(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What a connection's error means. hyper has written the bare status of a head that it refused.
fn refusal(error: &hyper::Error) -> End {
    if error.is_parse_too_large() {
        End::Refused("head_too_large")
    } else if error.is_parse() {
        End::Refused("bad_request")
    } else {
        // The client left, or an answer was cut on purpose; the exchange's account has it.
        End::Cut
    }
}
