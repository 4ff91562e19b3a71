//! A worker's side of one endpoint: its names, its live state, its idle links.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http_body::Body;

use super::dial::Dial;
use super::h2::{Bounds, Figures, Stream, pool::Pool};
use super::http1::Http1;
use super::link::{Link, Raw, RawStream};
use super::proxy_head::Ends;
use super::seat::{Bound, Open};
use super::trust::Trusts;
use super::wire::Wire;
use crate::engine::instance::Instance;
use crate::engine::policy::Protocol;
use crate::engine::snapshot::{Endpoint, Live};
use crate::engine::time::Millis;
use crate::engine::upstream::Upstream;

/// Idle links kept for one endpoint by one worker.
const MAX_IDLE: usize = 256;
/// How long an idle link is trusted before anything is known of the instance's own limit. HARDENING.md.
const UNLEARNT_IDLE_MS: u64 = 30_000;
/// How long a connection over HTTP/2 without a stream is kept.
const IDLE_H2_MS: u64 = 60_000;
/// The least that is learnt: below it a pool would be of no use.
const LEAST_IDLE_MS: u64 = 500;
/// A request that may not be repeated takes a link only this soon after its last answer. HARDENING.md.
const FRESH_ENOUGH_MS: u64 = 1_000;

/// One endpoint, as one worker sees it. What an exchange keeps once no retry can follow.
#[derive(Debug)]
pub struct Peer<B: Body + 'static> {
    /// What the catalog says.
    pub instance: Arc<Instance>,
    /// What is known. Shared with the other workers and the publisher.
    pub live: Arc<Live>,
    /// What it speaks, by the rules or its label.
    pub protocol: Protocol,
    /// What the rules say of it.
    pub(super) upstream: Rc<Upstream>,
    dial: Dial,
    terms: Rc<Terms>,
    /// Survives a change of the instance's labels.
    links: Rc<Links<B>>,
}

/// What holds for all endpoints.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long an idle connection is kept at most, ms; `None`: 30 s over HTTP/1 and 60 s over HTTP/2. What an instance
    /// shows of its own limit makes it less.
    pub idle: Option<u64>,
    /// The most connections to one endpoint over all workers; `None`: no limit.
    pub bound: Option<Bound>,
    /// Bytes of an answer's head at most.
    pub head: usize,
    /// Streams at once on one HTTP/2 connection, whatever the instance allows. Above it another connection is opened.
    pub streams: u32,
    /// Counted here.
    pub h2: Rc<Figures>,
}

/// What a request wants of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The request may be sent again when the connection turns out to be dead.
    pub repeatable: bool,
    /// On whose behalf.
    pub client: Option<Ends>,
    /// It asks for a change of protocol.
    pub tunnel: bool,
}

#[derive(Debug)]
struct Links<B: Body + 'static> {
    #[expect(clippy::vec_box, reason = "a link goes in and out of here with every request; it moves as a pointer")]
    idle: RefCell<Vec<Box<Http1<B>>>>,
    shared: Rc<Pool>,
    open: Rc<Cell<u32>>,
    /// How long an idle link is trusted, ms.
    trust: Cell<u64>,
    /// The most that it may be trusted: what the instance said, or the default.
    told: Cell<u64>,
    /// Why TLS failed last, as it was logged.
    told_of: RefCell<String>,
}

impl<B> Peer<B>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// `label`: the key of the label that names the protocol. Connections of a peer that was reached in another way are
    /// not taken over.
    pub(super) fn new(
        endpoint: &Endpoint,
        upstream: &Rc<Upstream>,
        label: &str,
        trusts: &Trusts,
        terms: &Rc<Terms>,
        known: Option<&Self>,
    ) -> Self {
        let dial = Dial::of(&endpoint.instance, upstream, trusts);
        let known = known.filter(|known| known.upstream == *upstream && known.dial.reaches_alike(&dial));
        let links = known.map_or_else(|| Rc::new(Links::new(terms)), |known| Rc::clone(&known.links));
        let protocol = dial.protocol(&endpoint.instance, upstream, label);
        let (instance, live) = (Arc::clone(&endpoint.instance), Arc::clone(&endpoint.live));
        Self { instance, live, protocol, upstream: Rc::clone(upstream), dial, terms: Rc::clone(terms), links }
    }

    /// A connection that is open already, for what `ask` wants.
    pub fn take(&self, ask: &Ask, now: Millis) -> Option<Link<B>> {
        match ask.protocol {
            Protocol::Http1 if self.dial.is_personal() => None,
            Protocol::Http1 => self.take_idle(now, ask.repeatable).map(Link::Http1),
            // Whether it takes tunnels has to be waited for.
            Protocol::H2 if ask.tunnel => None,
            Protocol::H2 => self.links.shared.take().map(|slot| Link::H2(Box::new(Stream::new(slot)))),
        }
    }

    /// An idle link, the one used last. One that turns out to be dead gives the request back.
    fn take_idle(&self, now: Millis, repeatable: bool) -> Option<Box<Http1<B>>> {
        let mut idle = self.links.idle.borrow_mut();
        let age = now.since(idle.last()?.idle_since());
        if age > self.links.trust.get() {
            // The ones below are older still.
            idle.clear();
            return None;
        }
        if !repeatable && age >= FRESH_ENOUGH_MS {
            return None;
        }
        idle.pop()
    }

    /// A pooled link that had been idle this long turned out to be closed.
    pub fn was_closed(&self, idle: u64) {
        self.links.learn_close(idle);
    }

    /// A new link, or a place on a shared connection that has room by now. The caller bounds the time; `limit` bounds
    /// opening a connection that several wait for.
    pub async fn connect(&self, ask: &Ask, limit: Duration, now: Millis) -> io::Result<Link<B>> {
        if ask.protocol == Protocol::H2 {
            let dial = self.dial.clone();
            let dial = move || {
                let dial = dial.clone();
                async move { dial.wire(Protocol::H2, None).await }
            };
            // A worker may always have one: it could not use those of the others.
            let open = || self.open_at_once(self.links.open.get() == 0);
            let slot = self.links.shared.connect(dial, open, limit, now).await;
            let slot = slot.inspect_err(|error| self.tell(error))?;
            if !ask.tunnel || slot.on.takes_tunnels() {
                return Ok(Link::H2(Box::new(Stream::new(slot))));
            }
            // Without extended CONNECT a change of protocol is possible over HTTP/1 only.
        }
        let open = self.open_soon(limit).await?;
        let wire = self.dial.wire(Protocol::Http1, ask.client).await.inspect_err(|error| self.tell(error))?;
        Http1::new(wire, open, self.terms.head).await.map(Link::Http1)
    }

    fn open_at_once(&self, regardless: bool) -> Option<Open> {
        Open::at_once(&self.links.open, &self.live, self.terms.bound.as_ref(), regardless)
    }

    /// The right to one more connection. Waiting for it takes at most half of what connecting may take.
    async fn open_soon(&self, limit: Duration) -> io::Result<Open> {
        let bound = self.terms.bound.as_ref();
        Open::soon(&self.links.open, &self.live, bound, limit / 2, || self.links.yield_one()).await
    }

    /// A bare connection for bytes of any kind. The caller bounds the time; `limit` is that time.
    pub async fn connect_bare(&self, client: Ends, limit: Duration) -> io::Result<Raw> {
        let open = self.open_soon(limit).await?;
        let wire = Wire::Plain(self.dial.socket(Some(client)).await?);
        Ok(Raw { stream: RawStream::Wire(wire, open), read: bytes::Bytes::new() })
    }

    /// Whether connections to it are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.dial.is_encrypted()
    }

    /// Says why TLS fails, once for each reason: the status alone would not.
    fn tell(&self, error: &io::Error) {
        if error.kind() != io::ErrorKind::InvalidData {
            return;
        }
        let words = error.to_string();
        if *self.links.told_of.borrow() != words {
            let Instance { service, id, addr, .. } = &*self.instance;
            tracing::warn!(%service, instance = %id, %addr, error = %words, "TLS to an instance fails");
            self.links.told_of.replace(words);
        }
    }

    /// Takes a link back after an exchange. One with anything left of the exchange is closed.
    pub fn give_back(&self, link: Link<B>, now: Millis) {
        match link {
            Link::Http1(mut link) => {
                let keeps = !self.dial.is_personal() && !self.live.seat_is_wanted();
                if keeps && link.is_reusable() && self.links.idle.borrow().len() < MAX_IDLE {
                    link.rest(now);
                    self.links.idle.borrow_mut().push(link);
                }
            }
            Link::H2(stream) => {
                stream.slot().touch(now);
                drop(stream);
                self.yield_idle();
            }
        }
    }

    /// Learns from an answer's `Keep-Alive: timeout=N` how long the instance keeps an idle connection.
    pub fn learn(&self, headers: &HeaderMap) {
        let Some(value) = headers.get(KEEP_ALIVE) else { return };
        if let Some(seconds) = value.to_str().ok().and_then(keep_alive_timeout) {
            self.links.told.set(kept_of(seconds.saturating_mul(1_000)).min(self.terms.idle()));
            self.links.trust.set(self.links.trust.get().min(self.links.told.get()));
        }
    }

    /// How long an idle link to it is trusted, ms.
    #[must_use]
    pub fn trust(&self) -> u64 {
        self.links.trust.get()
    }

    /// Connections to it from this worker, in use or idle.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.links.open.get()
    }

    /// Closes what is too old or was closed by the instance. Returns whether any link is left.
    pub(super) fn sweep(&self, now: Millis) -> bool {
        self.yield_idle();
        self.links.shared.sweep(now, self.terms.idle.unwrap_or(IDLE_H2_MS));
        let trust = self.links.trust.get();
        // What closed connections taught fades (a restart closes them at any age); what the instance says does not.
        self.links.trust.set((trust + trust / 64).min(self.links.told.get()));
        let mut idle = self.links.idle.take();
        idle.retain_mut(|link| {
            let age = now.since(link.idle_since());
            if age > trust {
                return false;
            }
            let open = link.is_reusable();
            if !open {
                self.links.learn_close(age);
            }
            open
        });
        self.links.idle.replace(idle.into_iter().filter_map(Http1::slim).collect());
        self.links.open.get() > 0
    }

    /// Closes what is idle if somebody waits for a connection to this endpoint.
    pub(super) fn yield_idle(&self) {
        if self.live.seat_is_wanted() {
            self.links.idle.take();
            self.links.shared.yield_idle();
        }
    }

    /// Closes every idle link: the instance is no longer in the catalog.
    pub(super) fn dismiss(&self) {
        self.links.idle.borrow_mut().clear();
        self.links.shared.dismiss();
    }
}

const KEEP_ALIVE: http::HeaderName = http::HeaderName::from_static("keep-alive");

impl Terms {
    /// How long an idle connection over HTTP/1 is trusted before anything is known of the instance; ms.
    fn idle(&self) -> u64 {
        self.idle.unwrap_or(UNLEARNT_IDLE_MS)
    }
}

impl<B: Body + 'static> Links<B> {
    fn new(terms: &Terms) -> Self {
        Self {
            idle: RefCell::default(),
            shared: Rc::new(Pool::new(&terms.h2, Bounds { streams: terms.streams, head: terms.head })),
            open: Rc::default(),
            trust: Cell::new(terms.idle()),
            told: Cell::new(terms.idle()),
            told_of: RefCell::default(),
        }
    }

    /// Closes an idle connection. False: there is none.
    fn yield_one(&self) -> bool {
        // The oldest is of the least use.
        let mut idle = self.idle.borrow_mut();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some() || self.shared.yield_idle()
    }

    /// The instance closed a link that had been idle this long. A link closed at once says nothing about a limit.
    fn learn_close(&self, idle: u64) {
        if idle >= LEAST_IDLE_MS {
            self.trust.set(self.trust.get().min(kept_of(idle)));
        }
    }
}

/// The part of an instance's limit that is used: 80 %.
fn kept_of(limit: u64) -> u64 {
    (limit / 5 * 4).max(LEAST_IDLE_MS)
}

/// The `timeout` of a `Keep-Alive` field, in seconds.
fn keep_alive_timeout(value: &str) -> Option<u64> {
    value.split(',').find_map(|part| {
        let (name, number) = part.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("timeout") { number.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_alive_field_gives_its_timeout() {
        assert_eq!(keep_alive_timeout("timeout=5, max=100"), Some(5));
        assert_eq!(keep_alive_timeout("max=100, Timeout = 7"), Some(7));
        assert_eq!(keep_alive_timeout("timeout=soon"), None);
        assert_eq!(keep_alive_timeout("max=100"), None);
    }
}
