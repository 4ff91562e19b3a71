//! A client's connection as the forwarding side and its driver share it: who it is, and what it waits for.
//!
//! All of it belongs to one task. The driver (`server::connection`) has one timer; an exchange that waits writes down
//! until when, and looks at the clock when it is polled.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use http::HeaderValue;

use super::authority::Names;
use super::clock::Clock;
use super::turn::Turn;
use super::unsent::Unsent;
use super::upgrade::Tunnel;
use super::wait::after;
use crate::engine::limit::Places;
use crate::engine::time::Millis;
use crate::observe::memory::{Account, CONNECTION, Charge, ENCRYPTED};
pub use crate::upstream::Ends;
use crate::upstream::pace::SMALL;

/// No deadline.
pub const NEVER: Millis = Millis(u64::MAX);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests; not a byte of the next one.
    Idle,
    /// Some of a request's head has come.
    Head,
    /// An exchange is going on.
    Busy,
    /// Bytes are passed on after a 101.
    Tunnel,
    /// HTTP/2: its streams have phases of their own.
    Streams,
}

/// What the handshake told. The listener's side fills it in.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server name that the client asked for.
    pub sni: Option<Arc<str>>,
    /// The subject alternative names of the client's certificate.
    pub san: Arc<[String]>,
    /// What the certificate that was shown covers; `None`: any authority may be asked for.
    pub names: Option<Arc<Names>>,
    /// Whether `names` cover `sni`.
    pub sni_covered: bool,
    /// Whether HTTP/2 was agreed on (ALPN).
    pub h2: bool,
}

/// What holds for every request that comes in by one listener.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// A client that has closed its sending side before the answer still gets it. Default off.
    pub half_close: bool,
    /// HTTP/2 in the clear (the preface without TLS) is refused. Default off.
    pub refuse_h2c: bool,
    /// Requests are sent to the same target over https, at this port (443: not written). Default off.
    pub redirect: Option<u16>,
    /// Requests at once by this listener, over all workers; those above it get 503. Default 0: no limit.
    pub requests: u32,
    /// Their places.
    pub places: Arc<Places>,
    /// `Strict-Transport-Security` on every answer (RFC 6797). Only where the listener speaks TLS. Default none.
    pub hsts: Option<HeaderValue>,
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// The worker's clock.
    pub clock: Rc<Clock>,
    /// The TCP peer, or the PROXY protocol's source; IPv4-mapped addresses unmapped.
    pub peer: SocketAddr,
    /// What it connected to: our address on this connection, or the PROXY protocol's destination.
    pub local: SocketAddr,
    /// `peer`'s address as a field value.
    pub peer_field: HeaderValue,
    /// Whether `peer` is one of the trusted proxies, and speaks for itself.
    pub peer_trusted: bool,
    /// `peer` is a proxy that passes on what somebody says whom it does not know.
    pub anonymous: bool,
    /// `None`: not encrypted.
    pub tls: Option<Rc<Tls>>,
    /// The listener's terms.
    pub entrance: Rc<Entrance>,
    /// Whether it is one stream of an HTTP/2 connection, and not a connection of HTTP/1.
    pub is_stream: bool,
    /// What it is doing.
    pub phase: Cell<Phase>,
    /// Since when.
    pub since: Cell<Millis>,
    /// Until when the exchange waits for the instance.
    pub instance_deadline: Cell<Millis>,
    /// Until when the exchange waits for the client's body.
    pub upload_deadline: Cell<Millis>,
    /// Since when a write has made no progress; `NEVER`: nothing waits to be written.
    pub write_blocked: Cell<Millis>,
    /// How long that may last, ms; 0: as long as it likes.
    pub write_idle: Cell<u64>,
    /// Some of the client's last request was not read: its socket is not closed at once.
    pub lingers: Cell<bool>,
    /// The answer under way is the last one.
    pub closing: Cell<bool>,
    /// The drain's time is over: a tunnel says goodbye where its protocol has a word for it.
    pub going_away: Cell<bool>,
    /// Set with a 101; the driver takes it when HTTP has ended.
    pub tunnel: RefCell<Option<Box<Tunnel>>>,
    /// What it holds in buffers; a stream's answers are its connection's.
    pub room: Rc<Charge>,
    /// What was read for it and not written; nothing of streams, whose windows bound that.
    pub unsent: Unsent,
    /// How much more it may move before it is others' turn.
    pub turn: Turn,
    /// It is in the way and does not read: it is reset at its driver's next look.
    pub cut: Cell<bool>,
    /// Wakes the driver's task.
    pub waker: RefCell<Option<Waker>>,
}

/// What a connection's streams have from it.
struct Told {
    peer: SocketAddr,
    local: SocketAddr,
    peer_field: HeaderValue,
    peer_trusted: bool,
    anonymous: bool,
    tls: Option<Rc<Tls>>,
    entrance: Rc<Entrance>,
    room: Rc<Charge>,
}

impl Connection {
    /// Whether a preface of HTTP/2 is no beginning here: over TLS it has to be agreed on (RFC 9113, 3.2), and in the clear the
    /// listener may not want it.
    #[must_use]
    pub fn refuses_prior_knowledge(&self) -> bool {
        self.tls.as_ref().map_or(self.entrance.refuse_h2c, |tls| !tls.h2)
    }

    /// A connection that was just accepted.
    #[must_use]
    pub fn new(
        clock: Rc<Clock>,
        ends: Ends,
        peer_trusted: bool,
        tls: Option<Tls>,
        entrance: Rc<Entrance>,
        account: &Rc<Account>,
    ) -> Self {
        let room = Rc::new(Charge::new(account, CONNECTION + if tls.is_some() { ENCRYPTED } else { 0 }));
        let tls = tls.map(Rc::new);
        let Ends { client, server: local } = ends;
        let peer = SocketAddr::new(client.ip().to_canonical(), client.port());
        let peer_field = HeaderValue::try_from(peer.ip().to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self::fresh(clock, Told { peer, local, peer_field, peer_trusted, anonymous: false, tls, entrance, room }, false)
    }

    /// One stream of an HTTP/2 connection: the same client, with deadlines of its own.
    #[must_use]
    pub fn stream(&self) -> Self {
        let told = Told {
            peer: self.peer,
            local: self.local,
            peer_field: self.peer_field.clone(),
            peer_trusted: self.peer_trusted,
            anonymous: self.anonymous,
            tls: self.tls.clone(),
            entrance: Rc::clone(&self.entrance),
            room: Rc::clone(&self.room),
        };
        let stream = Self::fresh(Rc::clone(&self.clock), told, true);
        stream.write_idle.set(self.write_idle.get());
        stream
    }

    /// One that has done nothing and waits for nothing yet.
    fn fresh(clock: Rc<Clock>, told: Told, is_stream: bool) -> Self {
        let Told { peer, local, peer_field, peer_trusted, anonymous, tls, entrance, room } = told;
        Self {
            peer,
            local,
            peer_field,
            peer_trusted,
            anonymous,
            tls,
            entrance,
            is_stream,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(clock.now()),
            turn: Turn::new(&clock),
            clock,
            instance_deadline: Cell::new(NEVER),
            upload_deadline: Cell::new(NEVER),
            write_blocked: Cell::new(NEVER),
            write_idle: Cell::new(0),
            lingers: Cell::new(false),
            closing: Cell::new(false),
            going_away: Cell::new(false),
            tunnel: RefCell::new(None),
            room,
            unsent: Unsent::default(),
            cut: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// When a client that takes nothing is cut.
    #[must_use]
    pub fn write_ends(&self) -> Millis {
        after(self.write_blocked.get(), self.write_idle.get())
    }

    /// Changes what it is doing.
    pub fn enter(&self, phase: Phase) {
        if self.phase.replace(phase) == Phase::Head {
            self.room.head_ended();
        }
        self.since.set(self.clock.now());
    }

    /// How much of an answer is read at once for it; `None`: nothing until the client has taken what it was given, and
    /// the task is woken then. A stream's window bounds what is read for it.
    #[must_use]
    pub fn room_for_answer(&self) -> Option<usize> {
        if self.is_stream {
            return Some(SMALL);
        }
        let room = self.unsent.room(self.write_blocked.get() != NEVER)?;
        Some(if self.room.memory().is_ample() { room } else { SMALL })
    }

    /// Its two ends, as an instance may be told of them.
    #[must_use]
    pub fn ends(&self) -> Ends {
        Ends { client: self.peer, server: self.local }
    }

    /// The address that the rules see.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.peer.ip()
    }

    /// By whom control headers are judged: the peer, or the unspecified address where the peer does not know who speaks.
    #[must_use]
    pub fn sender(&self) -> IpAddr {
        if self.anonymous { Ipv4Addr::UNSPECIFIED.into() } else { self.peer.ip() }
    }

    /// What the client speaks, for the log.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.is_stream { "HTTP/2" } else { "HTTP/1.1" }
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Keeps the task's waker for whoever wants the driver to look.
    pub fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the driver, so that it looks at what has changed.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}
