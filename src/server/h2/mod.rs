//! HTTP/2 towards clients: one task drives the connection, and each stream is a request in a task of its own.
//!
//! In reading order: [`serve`] is the connection; [`streams`] what it knows of its streams, [`meter`] what frames it sends, [`table`]
//! what they make us keep, [`inbound`] a request as the
//! rest of the proxy wants it, [`stream`] one request and its answer, [`tunnel`] a WebSocket on a stream, [`date`] a field.

pub mod date;
pub mod inbound;
pub mod meter;
pub mod stream;
pub mod streams;
pub mod table;
pub mod tunnel;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection as Http, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::spawn_local;

use super::io::{Transport, Watched};
use super::settings::Limits;
use super::timer::Timer;
use super::worker::Worker;
use crate::engine::time::Millis;
use crate::forward::Connection;
use crate::forward::connection::{NEVER, Phase};
use crate::forward::wait::after;
use crate::observe::memory::{Pressure, STREAMS};
use crate::observe::names;
use meter::{Meter, Metered};
use streams::Streams;

/// How long a client may take to close a connection that it was told to leave, when it has no stream left.
const LEAVE_MS: u64 = 1_000;
/// The most that a stream holds above its buffer.
const PIECE: u64 = 16 * 1024;

/// A client that has sent so much is uploading: it waits for the window at every half of it.
const UPLOADING: u64 = 128 * 1024;
/// The window of a stream while memory is ample: at 50 ms of way and back 5 MB/s in place of 1.3. The connection's own is
/// not changed, and bounds what all streams hold as before.
const WIDE: u32 = 256 * 1024;

/// How connections are served.
#[must_use]
pub fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2.streams)
        .initial_window_size(limits.h2.stream_window)
        .initial_connection_window_size(limits.h2.connection_window)
        .max_header_list_size(limits.h2.header_list)
        .max_send_buffer_size(limits.h2.send_buffer)
        .max_local_error_reset_streams(Some(limits.h2.own_resets as usize))
        .enable_connect_protocol();
    builder
}

/// Serves a connection whose client has chosen HTTP/2 until it ends.
pub async fn serve<T: Transport + 'static>(worker: &Rc<Worker>, mut socket: Watched<T>, connection: &Rc<Connection>) {
    connection.enter(Phase::Streams);
    connection.room.hold(STREAMS);
    socket.linger();
    worker.forward.metrics.cells().h2_connections.add(1);
    let mut served = Served::new(worker, connection);
    let socket = Metered::new(socket, connection, &served.meter);
    let Some(mut http) = served.handshake(socket).await else { return };
    worker.slow.know(&served.streams);
    let end = poll_fn(|cx| served.poll(&mut http, cx)).await;
    if let End::Refused(error) = end {
        if !served.given_up {
            worker.forward.metrics.word(&names::REFUSALS, "h2");
        }
        tracing::info!(peer = %connection.peer, %error, "an HTTP/2 connection was given up");
    }
}

/// Why a connection ended.
enum End {
    /// Both sides are done, or the client left.
    Finished,
    /// The client broke the protocol, or did too much of what it allows.
    Refused(h2::Error),
    /// Stuck: nothing moves any more.
    Cut,
}

/// A connection's driver: its limits and its one timer.
struct Served {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    streams: Rc<Streams>,
    meter: Rc<Meter>,
    timer: Timer,
    keep_alive: u64,
    last_at: Millis,
    /// Since when the client knows that it should leave.
    told: Option<Millis>,
    /// It took back too much of what it asked.
    given_up: bool,
    /// The streams' window is wide, which is held against the connection.
    is_wide: bool,
    /// Requests that the library gave us, and those that it answered or reset itself.
    taken: u64,
    refused: u64,
}

impl Served {
    fn new(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Self {
        let limits = &worker.limits;
        Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            streams: Rc::new(Streams::new(connection, limits.h2.resets)),
            meter: Rc::new(Meter::new(limits.h2.frames, connection.clock.now())),
            timer: Timer::new(&connection.clock),
            keep_alive: worker.jittered(limits.keep_alive),
            last_at: after(connection.clock.now(), worker.jittered(limits.connection_age)),
            told: None,
            given_up: false,
            is_wide: false,
            taken: 0,
            refused: 0,
        }
    }

    /// The exchange of settings, within the time of a head. `None`: there was none.
    async fn handshake<T: Transport>(&mut self, socket: Metered<T>) -> Option<Http<Metered<T>, Bytes>> {
        let deadline = after(self.connection.clock.now(), self.worker.limits.head);
        let mut shaking = pin!(self.worker.h2.handshake(socket));
        poll_fn(|cx| {
            self.connection.remember(cx);
            loop {
                if let Poll::Ready(http) = shaking.as_mut().poll(cx) {
                    return Poll::Ready(http.ok());
                }
                if self.connection.clock.now() >= deadline {
                    self.worker.forward.metrics.word(&names::REFUSALS, "client_timeout");
                    return Poll::Ready(None);
                }
                if self.timer.poll(&self.connection.clock, deadline, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Takes what came, then looks at what has come due.
    fn poll<T: Transport>(&mut self, http: &mut Http<Metered<T>, Bytes>, cx: &mut Context<'_>) -> Poll<End> {
        self.connection.remember(cx);
        loop {
            while let Poll::Ready(next) = http.poll_accept(cx) {
                self.taken += u64::from(matches!(next, Some(Ok(_))));
                match next {
                    // Dropped, and so reset: the connection is given up below.
                    Some(Ok(_)) if self.streams.are_reset_too_often() => {}
                    Some(Ok((request, respond))) => self.begin(request, respond),
                    Some(Err(error)) if error.is_io() || error.is_remote() => return Poll::Ready(End::Finished),
                    Some(Err(error)) => return Poll::Ready(End::Refused(error)),
                    None => return Poll::Ready(End::Finished),
                }
            }
            self.settle();
            self.streams.remember(self.meter.remembered());
            let now = self.connection.clock.now();
            let resets = self.streams.are_reset_too_often();
            if (resets || self.meter.is_flooded()) && !self.given_up {
                (self.given_up, self.told) = (true, Some(now));
                let why = if resets { "h2_resets" } else { "h2_frames" };
                self.worker.forward.metrics.word(&names::REFUSALS, why);
                http.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            if self.is_over(now) {
                return Poll::Ready(End::Cut);
            }
            if self.connection.closing.get() && self.told.is_none() {
                self.told = Some(now);
                self.worker.forward.metrics.cells().h2_goaways.add(1);
                http.graceful_shutdown();
                continue;
            }
            if self.connection.going_away.get() {
                self.streams.go_away();
            }
            if self.fit_window(http) {
                continue;
            }
            self.streams.wake_due(now);
            if self.timer.poll(&self.connection.clock, self.due(now), cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What streams left behind that were taken back is not waiting any more, and what the library has not given us it
    /// has refused. Only where the socket takes what it is given can either be said: what it refuses it has to tell.
    fn settle(&mut self) {
        if self.connection.write_blocked.get() != NEVER {
            return;
        }
        let each = self.worker.limits.h2.send_buffer as u64 + PIECE;
        self.connection.room.keep_queued(self.streams.count() as u64 * each);
        let refused = self.meter.requests().saturating_sub(self.taken);
        for _ in self.refused..refused {
            self.worker.forward.metrics.word(&names::REFUSALS, "h2_stream");
        }
        self.refused = self.refused.max(refused);
    }

    /// Widens the streams' window for a client that uploads while memory is ample, and narrows it when memory is short.
    /// Whether the client is to be told.
    fn fit_window<T: Transport>(&mut self, http: &mut Http<Metered<T>, Bytes>) -> bool {
        let limits = &self.worker.limits.h2;
        let wide = WIDE.min(limits.connection_window).max(limits.stream_window);
        if self.meter.uploaded() < UPLOADING || wide == limits.stream_window {
            return false;
        }
        let (memory, room) = (self.connection.room.memory(), &self.connection.room);
        let more = u64::from(wide - limits.stream_window);
        let (window, is_due) = match self.is_wide {
            false => (wide, memory.is_ample()),
            true => (limits.stream_window, memory.pressure() > Pressure::None),
        };
        // Refused while the client has not acknowledged what it was told before: tried again at the next look.
        if !is_due || http.set_initial_window_size(window).is_err() {
            return false;
        }
        self.is_wide = !self.is_wide;
        if self.is_wide {
            room.hold(more)
        } else {
            room.let_go(more)
        }
        true
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let stream = Rc::new(self.connection.stream());
        let open = self.streams.open(&stream);
        spawn_local(stream::run(Rc::clone(&self.worker), open, stream, request, respond));
    }

    /// Whether nothing more is to be expected. Also tells the client to leave when it is time.
    fn is_over(&mut self, now: Millis) -> bool {
        let stuck = now >= self.connection.write_ends();
        if stuck {
            self.worker.forward.metrics.word(&names::WRITE_CUTS, "connection");
            self.connection.cut.set(true);
        } else if self.connection.cut.get() {
            self.worker.forward.metrics.word(&names::MEMORY_RESETS, "connection");
        }
        let idle_since = self.streams.idle_since();
        if now >= self.last_at || now >= after(idle_since, self.keep_alive) {
            self.connection.closing.set(true);
        }
        let left = self.told.is_some_and(|told| now >= told.max(idle_since).plus(LEAVE_MS) && idle_since != NEVER);
        let half = now >= after(self.meter.head_since(), self.worker.limits.head);
        if half {
            self.worker.forward.metrics.word(&names::REFUSALS, "client_timeout");
        }
        stuck || left || half || self.connection.cut.get()
    }

    /// When to look again.
    fn due(&self, now: Millis) -> Millis {
        let idle_since = self.streams.idle_since();
        let leave = match self.told {
            Some(told) if idle_since != NEVER => told.max(idle_since).plus(LEAVE_MS),
            Some(_) => NEVER,
            None => after(idle_since, self.keep_alive).min(self.last_at),
        };
        let stuck = self.connection.write_ends();
        // What is due already has just been looked at, and waits for something else.
        let later = |at: Millis| if at <= now { now.plus(LEAVE_MS) } else { at };
        let half = after(self.meter.head_since(), self.worker.limits.head);
        let lingers = later(self.connection.instance_deadline.get());
        later(leave).min(later(stuck)).min(later(half)).min(later(self.streams.next_due())).min(lingers)
    }
}
