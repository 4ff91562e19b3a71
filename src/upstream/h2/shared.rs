//! One connection over HTTP/2, shared by the requests of a worker. A task drives it; the requests and the pool hold it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use tokio::task::{AbortHandle, spawn_local};
use tokio_util::io::InspectReader;

use super::super::seat::Open;
use super::super::wire::Wire;
use crate::engine::time::Millis;

/// A stream's window. The connection's is as large as those of all streams together, so that a client that does not
/// read holds up nobody else.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The most that HTTP/2 allows (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Bytes that a stream may hand over before the socket takes them.
const SEND_BUFFER: usize = 64 * 1024;
/// Silence with streams open after which the instance is asked for a sign of life.
const SILENCE_MS: u64 = 10_000;
/// How long it may take to give one.
const PONG_MS: u64 = 10_000;
/// Between two questions in one silence. Servers of gRPC close a connection that asks more often.
const ASK_AGAIN_MS: u64 = 300_000;

/// One connection.
#[derive(Debug)]
pub struct Shared {
    sender: SendRequest<Bytes>,
    driver: AbortHandle,
    state: Rc<State>,
    life: RefCell<Life>,
    streams: u32,
    _open: Open,
}

/// What is set for every connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Streams at once, whatever the instance allows.
    pub streams: u32,
    /// Bytes of an answer's head.
    pub head: usize,
}

/// What instances did to a worker's connections over HTTP/2.
#[derive(Debug, Default)]
pub struct Figures {
    /// Connections that they told us to leave.
    pub goaways: Cell<u64>,
    /// Streams that they took back before the end of the answer.
    pub resets: Cell<u64>,
}

/// What the driving task, the pool and the streams know of a connection.
#[derive(Debug, Default)]
struct State {
    /// The task has ended, or the instance takes no more streams.
    closed: Cell<bool>,
    /// The instance has said GOAWAY.
    told_to_leave: Cell<bool>,
    figures: Rc<Figures>,
    active: Cell<u32>,
    /// Reads that brought something.
    reads: Cell<u64>,
    idle_since: Cell<Millis>,
}

/// Signs of life.
#[derive(Debug)]
struct Life {
    ping: PingPong,
    /// When a question was asked that is not answered yet.
    asked: Option<Millis>,
    /// `State::reads` when last looked at.
    reads: u64,
    /// When to ask next in this silence.
    ask_at: Millis,
}

impl Shared {
    /// Starts a connection on an open socket. Waits for the answer to a first question, for the instance's settings come
    /// before it: how many streams it allows, and whether it speaks HTTP/2 at all. The caller bounds the time.
    pub async fn start(
        wire: Wire,
        open: Open,
        figures: &Rc<Figures>,
        bounds: Bounds,
        now: Millis,
    ) -> io::Result<Rc<Self>> {
        let state = Rc::new(State { figures: Rc::clone(figures), ..State::default() });
        state.idle_since.set(now);
        let heard = Rc::clone(&state);
        let wire = InspectReader::new(wire, move |bytes: &[u8]| {
            heard.reads.set(heard.reads.get() + u64::from(!bytes.is_empty()));
        });
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(bounds.streams).min(MAX_WINDOW))
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX))
            .handshake::<_, Bytes>(wire)
            .await
            .map_err(io::Error::other)?;
        let mut ping = connection.ping_pong().ok_or_else(|| io::Error::other("the connection gave its pings away"))?;
        ping.send_ping(Ping::opaque()).map_err(io::Error::other)?;
        let told = Rc::clone(&state);
        let probe = sender.clone();
        let task = spawn_local(async move {
            // Its streams get the error; without a stream it concerns nobody.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an instance ended");
            }
            told.look_at(probe);
            told.closed.set(true);
        });
        let started = Starting(Some(task.abort_handle()));
        poll_fn(|cx| ping.poll_pong(cx)).await.map_err(io::Error::other)?;
        let life = Life { ping, asked: None, reads: state.reads.get(), ask_at: now.plus(SILENCE_MS) };
        let driver = started.keep();
        let streams = bounds.streams;
        Ok(Rc::new(Self { sender, driver, state, life: RefCell::new(life), streams, _open: open }))
    }

    /// A place for one stream, if there is room and the instance takes new ones.
    pub fn slot(self: &Rc<Self>) -> Option<Slot> {
        let allowed = (self.sender.current_max_send_streams() as u64).min(u64::from(self.streams));
        if self.is_closed() || u64::from(self.state.active.get()) >= allowed {
            return None;
        }
        self.state.active.set(self.state.active.get() + 1);
        Some(Slot { on: Rc::clone(self) })
    }

    /// Whether it is open and the instance allows any stream at all.
    pub fn takes_streams(&self) -> bool {
        !self.is_closed() && self.sender.current_max_send_streams() > 0
    }

    /// Whether it has ended, or takes no more streams.
    pub fn is_closed(&self) -> bool {
        if self.state.closed.get() {
            return true;
        }
        let refused = self.state.look_at(self.sender.clone());
        if refused {
            self.state.closed.set(true);
        }
        refused
    }

    /// A stream on it failed.
    pub fn stream_failed(&self, error: &h2::Error) {
        if error.is_remote() && error.is_reset() {
            let resets = &self.state.figures.resets;
            resets.set(resets.get() + 1);
        }
    }

    /// Whether no stream is open on it.
    pub fn is_idle(&self) -> bool {
        self.state.active.get() == 0
    }

    /// Takes no new streams from here on; those that are open go on.
    pub fn retire(&self) {
        self.state.closed.set(true);
    }

    /// What sends requests on it.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// Whether the instance takes tunnels (RFC 8441).
    pub fn takes_tunnels(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Once a second: asks a silent instance for a sign of life, and cuts the connection where none comes. Returns
    /// whether the connection is still of use. `idle`: how long it is kept without a stream, ms.
    pub fn sweep(&self, now: Millis, idle: u64) -> bool {
        if self.is_closed() {
            return false;
        }
        let active = self.state.active.get() > 0;
        if !active && now.since(self.state.idle_since.get()) >= idle {
            return false;
        }
        let dead = self.life.borrow_mut().is_dead(self.state.reads.get(), active, now);
        if dead {
            self.driver.abort();
            self.state.closed.set(true);
        }
        !dead
    }
}

impl State {
    /// Whether the connection takes no more streams; an instance's GOAWAY is counted.
    fn look_at(&self, mut sender: SendRequest<Bytes>) -> bool {
        let Poll::Ready(Err(error)) = sender.poll_ready(&mut Context::from_waker(Waker::noop())) else { return false };
        if error.is_remote() && error.is_go_away() && !self.told_to_leave.replace(true) {
            self.figures.goaways.set(self.figures.goaways.get() + 1);
        }
        true
    }
}

impl Life {
    fn is_dead(&mut self, reads: u64, active: bool, now: Millis) -> bool {
        if std::mem::replace(&mut self.reads, reads) != reads {
            self.ask_at = now.plus(SILENCE_MS);
        }
        if let Some(asked) = self.asked {
            if self.ping.poll_pong(&mut Context::from_waker(Waker::noop())).is_pending() {
                return now >= asked.plus(PONG_MS);
            }
            self.asked = None;
            self.ask_at = now.plus(ASK_AGAIN_MS);
        } else if active && now >= self.ask_at {
            // An error means that the connection is ending, which its task tells.
            self.asked = self.ping.send_ping(Ping::opaque()).is_ok().then_some(now);
        }
        false
    }
}

/// Ends the task of a connection that did not come about.
struct Starting(Option<AbortHandle>);

impl Starting {
    fn keep(mut self) -> AbortHandle {
        self.0.take().expect("kept once, by value")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// One stream's place on a connection.
#[derive(Debug)]
pub struct Slot {
    /// The connection.
    pub on: Rc<Shared>,
}

impl Slot {
    /// Notes when the stream ended, for the connection's idle time.
    pub fn touch(&self, now: Millis) {
        self.on.state.idle_since.set(now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let active = &self.on.state.active;
        active.set(active.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
