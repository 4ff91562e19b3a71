//! One request's account: what it was, where it went, what came of it. Closed when the last byte left, or when the
//! client did.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method};

use super::attempt::Timing;
use super::connection::{Connection, NEVER, Phase};
use super::error::Detail;
use super::grpc::{self, Call};
use super::limit::Admission;
use super::queue;
use super::traced::Traced;
use super::upload::{Upload, UploadBody};
use super::view::{FileView, RouteNames};
use super::worker::Worker;
use crate::engine;
use crate::engine::health::Evidence;
use crate::engine::policy::Eject;
use crate::engine::time::{Draw, Millis};
use crate::observe::access_log::{Answer, Copied, Durations, Place, Record};
use crate::observe::memory::EXCHANGE;
use crate::observe::metrics::{Done, RequestKey, RouteKey, SeriesCache};
use crate::observe::names::{self, Family};

/// This worker's side of an endpoint.
pub type Peer = crate::upstream::Peer<UploadBody>;

/// One request's account.
#[derive(Debug)]
pub struct Exchange {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    /// Microseconds.
    started: u64,
    /// The client as the rules see it.
    pub client: IpAddr,
    /// `http` or `https`, through trusted proxies.
    pub scheme: &'static str,
    /// The request's luck.
    pub draw: Draw,
    /// Where it went; `None` before a file claimed it.
    route: Option<Route>,
    /// The endpoint of the last try.
    on: Option<InFlight>,
    /// The client's body.
    pub upload: Option<Rc<Upload>>,
    /// The call of gRPC that it is.
    pub call: Option<Call>,
    /// When the call's own deadline ends it; never: what the rules allow ends before, or it has none.
    pub own_deadline: Cell<Millis>,
    /// The status that ended the call; `None`: none came, or it is no call.
    pub call_status: Option<u8>,
    /// As sent to the client; 0: nothing yet.
    pub status: u16,
    /// Why the answer is ours, or was cut.
    pub detail: Option<Detail>,
    /// Tries.
    pub attempts: u32,
    /// The locality level of the last try's endpoint.
    pub level: Option<u8>,
    /// The last try's connecting; microseconds.
    pub connect_us: Option<u64>,
    /// From the last try's start to the answer's head; microseconds.
    pub first_byte_us: Option<u64>,
    /// Of a tunnel; a body counts its own.
    bytes_in: u64,
    bytes_out: u64,
    /// Bytes in the account of memory.
    held: Cell<u64>,
    complete: bool,
    /// What the access log copies; `None`: it is off.
    log: Option<Box<Head>>,
    /// How it was decided, for who may see it.
    pub traced: RefCell<Option<Box<Traced>>>,
    /// Its places under limits, and what the client is told of them.
    pub admission: Admission,
    /// The rules say what becomes of `Strict-Transport-Security`.
    pub hsts_is_ruled: bool,
}

/// Where a request went, without holding the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// The worker's side of the file: policies and budget.
    pub file: Rc<FileView>,
    /// The counters of the router in force.
    pub series: Rc<SeriesCache>,
    /// Their key.
    pub key: RouteKey,
    /// Its names.
    pub names: Rc<RouteNames>,
    /// The table that decided.
    pub generation: u64,
    /// Another arm took it.
    pub rerouted: bool,
}

/// A request's head, as far as the log wants it.
#[derive(Debug)]
pub struct Head {
    /// When it came.
    pub at: SystemTime,
    /// As sent.
    pub method: Method,
    /// Without port, in lower case.
    pub host: Box<str>,
    /// As sent.
    pub target: Box<str>,
    /// The fields that rules read.
    pub copied: Copied,
    /// As sent on.
    pub request_id: Option<HeaderValue>,
}

/// Counts a request at its endpoint while it lives. Its end calls the next one who waits there.
#[derive(Debug)]
pub struct InFlight {
    peer: Rc<Peer>,
    /// It has said something of the instance: it is one of those that the instance is judged by.
    judged: Cell<bool>,
}

impl InFlight {
    /// Counts from here on.
    #[must_use]
    pub fn new(peer: Rc<Peer>) -> Self {
        peer.live.begin();
        Self::begun(peer)
    }

    /// One that was begun already, within a limit.
    #[must_use]
    pub fn begun(peer: Rc<Peer>) -> Self {
        Self { peer, judged: Cell::new(false) }
    }

    /// Where it is.
    #[must_use]
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// Feeds evidence about the endpoint.
    pub fn evidence(&self, worker: &Worker, evidence: Evidence, policy: &Eject) {
        self.judged.set(true);
        worker.evidence(&self.peer, evidence, policy);
    }
}

/// Counts a tunnel while it lives.
#[derive(Debug)]
pub struct OpenTunnel(Rc<Worker>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.metrics.cells().tunnels.sub(1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let live = &self.peer.live;
        if self.judged.get() {
            live.end()
        } else {
            live.abandon()
        }
        queue::call_next(live);
    }
}

impl Exchange {
    /// A request whose head has just come.
    #[must_use]
    pub fn begin(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Self {
        let held = EXCHANGE + connection.room.head();
        connection.enter(Phase::Busy);
        worker.metrics.cells().in_flight.add(1);
        worker.account.hold(held);
        Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            started: connection.clock.micros(),
            client: connection.client(),
            scheme: connection.scheme(),
            draw: worker.draw(),
            route: None,
            on: None,
            upload: None,
            call: None,
            own_deadline: Cell::new(NEVER),
            call_status: None,
            status: 0,
            detail: None,
            attempts: 0,
            level: None,
            connect_us: None,
            first_byte_us: None,
            bytes_in: 0,
            bytes_out: 0,
            held: Cell::new(held),
            complete: false,
            log: None,
            traced: RefCell::default(),
            hsts_is_ruled: false,
            admission: Admission::default(),
        }
    }

    /// The client's connection.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// The endpoint of the last try.
    #[must_use]
    pub fn peer(&self) -> Option<&Rc<Peer>> {
        self.on.as_ref().map(|on| &on.peer)
    }

    /// The last try's place at its endpoint.
    #[must_use]
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.on.as_ref()
    }

    /// Where it goes.
    pub fn routed(&mut self, route: Route) {
        self.route = Some(route);
    }

    /// Where it goes; `None` before a file claimed it.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    /// A try begins.
    pub fn trying(&mut self, on: InFlight, level: u8) {
        self.attempts += 1;
        self.level = Some(level);
        self.connect_us = None;
        self.first_byte_us = None;
        self.on = Some(on);
    }

    /// How long parts of the try that counts took.
    pub fn took(&mut self, timing: Timing) {
        (self.connect_us, self.first_byte_us) = (timing.connect_us, timing.first_byte_us);
    }

    /// The try that counts is at another endpoint.
    pub fn stand_at(&mut self, on: InFlight, level: u8) {
        self.level = Some(level);
        self.on = Some(on);
    }

    /// Keeps what the access log wants of the head, if it wants anything.
    pub fn note_head(&mut self, method: &Method, host: &str, target: &str, headers: &HeaderMap) {
        let Some(log) = &self.worker.access_log else { return };
        let copied = log.fields.load().copy(headers);
        self.log = Some(Box::new(Head {
            at: SystemTime::now(),
            method: method.clone(),
            host: host.into(),
            target: target.into(),
            copied,
            request_id: None,
        }));
    }

    /// Keeps the request's id for the log.
    pub fn note_request_id(&mut self, id: Option<&HeaderValue>) {
        if let Some(head) = &mut self.log {
            head.request_id = id.cloned();
        }
    }

    /// Feeds evidence about the endpoint of the last try. That a call came to the end of its own deadline is none: one that
    /// gives its instances no time would have them ejected.
    pub fn evidence(&self, evidence: Evidence) {
        let own = self.own_deadline.get();
        let is_own = match evidence {
            Evidence::Timeout => self.connection.clock.now() >= own,
            // The instance knows the deadline too, and may answer first (`grpc-status: 4`).
            Evidence::Status(504) => own != NEVER,
            _ => false,
        };
        if is_own {
            return;
        }
        if let (Some(on), Some(route)) = (&self.on, &self.route) {
            on.evidence(&self.worker, evidence, &route.file.eject);
        }
    }

    /// A call's status came behind its messages.
    pub fn call_ended(&mut self, trailers: &HeaderMap) {
        if self.call.is_some() && self.call_status.is_none() {
            self.call_status = grpc::status(trailers);
            if let Some(status) = self.call_status {
                self.evidence(engine::grpc::evidence(status));
            }
        }
    }

    /// The endpoint of the last try served it although it is ejected.
    pub fn proved(&self) {
        if let Some(on) = &self.on {
            self.worker.proved(&on.peer);
        }
    }

    /// Feeds the time that the last try's answer took, where the service judges its instances by it.
    pub fn timed(&self) {
        if let (Some(on), Some(route), Some(micros)) = (&self.on, &self.route, self.first_byte_us)
            && route.file.eject.latency_factor > 0
        {
            on.peer.live.time_answer(micros);
        }
    }

    /// Counts one in a family of routes; without names before a file claimed it.
    pub fn count(&self, family: &'static Family, word: &'static str) {
        if let Some(route) = &self.route {
            route.series.count(family, route.key, word, || route.names.names(None));
        } else {
            self.worker.count_unrouted(family, word);
        }
    }

    /// Takes a retry from the service's budget. `share`: parts per million of requests.
    #[must_use]
    pub fn within_budget(&self, share: u32) -> bool {
        let now = self.connection.clock.now();
        self.route.as_ref().is_some_and(|route| route.file.budget.take(route.file.worker, now, share))
    }

    /// Counts a head that came on a stream; one of HTTP/1 was counted as it was read.
    pub fn hold_head(&self, headers: &HeaderMap) {
        if self.connection.is_stream {
            self.hold(headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum());
        }
    }

    /// It holds so many bytes more, until it ends.
    pub fn hold(&self, bytes: u64) {
        self.held.set(self.held.get() + bytes);
        self.worker.account.hold(bytes);
    }

    /// Bytes of the body went to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
        self.connection.room.queue(bytes as u64);
        self.connection.unsent.add(bytes);
        self.connection.turn.moved(bytes);
    }

    /// Counts a tunnel while what is returned lives.
    #[must_use]
    pub fn tunnels(&self) -> OpenTunnel {
        self.worker.metrics.cells().tunnels.add(1);
        OpenTunnel(Rc::clone(&self.worker))
    }

    /// Bytes of a tunnel: from the client, and to it.
    pub fn tunnelled(&mut self, up: u64, down: u64) {
        self.bytes_in += up;
        self.bytes_out += down;
    }

    /// The tunnel has ended, by a limit or by nobody's fault.
    pub fn tunnel_ended(&mut self, by: Option<Detail>) {
        self.complete = true;
        if let Some(detail) = by {
            self.detail = Some(detail);
            self.count(&names::ERRORS, detail.word());
        }
    }

    /// The last byte of the answer came, or was ours.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The answer stays incomplete by the instance's fault.
    pub fn cut(&mut self, detail: Detail) {
        if let Some(evidence) = detail.evidence() {
            self.evidence(evidence);
        }
        self.give_up(detail);
    }

    /// The answer stays incomplete, and not by the instance's fault.
    pub fn give_up(&mut self, detail: Detail) {
        self.complete = true;
        self.detail = Some(detail);
        self.count(&names::ERRORS, detail.word());
    }

    fn close(&mut self) {
        if !self.complete {
            self.detail = Some(match std::thread::panicking() {
                true => Detail::Internal,
                false if self.connection.going_away.get() => Detail::Draining,
                false => Detail::ClientClosed,
            });
        }
        if self.status == 0 {
            self.status = self.detail.unwrap_or(Detail::ClientClosed).status().as_u16();
        }
        let now = self.connection.clock.micros();
        let done = Done {
            duration_us: now.saturating_sub(self.started),
            first_byte_us: self.first_byte_us,
            bytes_in: self.bytes_in + self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_out,
        };
        if let Some(route) = &self.route {
            let instance = self.on.as_ref().map(|on| &on.peer.instance);
            let key = RequestKey::new(route.key, instance, self.status);
            route.series.request(key, || route.names.names(instance), &done);
        } else {
            self.worker.unrouted(self.status, &done);
        }
        if let Some(head) = self.log.take() {
            self.send_to_log(*head, &done);
        }
    }

    fn send_to_log(&self, head: Head, done: &Done) {
        let Some(log) = &self.worker.access_log else { return };
        if !log.lines.wants(self.draw, self.status) {
            return;
        }
        let named = |text: &engine::label::Text| (!text.is_empty()).then(|| text.clone());
        let names = self.route.as_ref().map(|route| &route.names);
        let tls = self.connection.tls.as_ref();
        log.lines.send(Box::new(Record {
            at: head.at,
            method: head.method,
            host: head.host,
            target: head.target,
            scheme: self.scheme,
            protocol: self.connection.protocol(),
            copied: head.copied,
            client: self.client,
            peer: self.connection.sender(),
            sni: tls.and_then(|tls| tls.sni.clone()),
            san: tls.map_or_else(|| [].into(), |tls| tls.san.clone()),
            request_id: head.request_id,
            generation: self.route.as_ref().map_or(0, |route| route.generation),
            draw: self.draw,
            place: Place {
                service: names.and_then(|names| named(&names.service)),
                rule: names.and_then(|names| named(&names.rule)),
                pool: names.and_then(|names| named(&names.pool)),
                instance: self.on.as_ref().map(|on| on.peer.instance.clone()),
            },
            answer: Answer {
                status: self.status,
                grpc_status: self.call_status,
                detail: self.detail.map_or("", Detail::word),
                attempts: self.attempts,
                rerouted: self.route.as_ref().is_some_and(|route| route.rerouted),
                bytes_in: done.bytes_in,
                bytes_out: done.bytes_out,
                durations: Durations {
                    total_us: done.duration_us,
                    connect_us: self.connect_us,
                    first_byte_us: self.first_byte_us,
                },
            },
        }));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.upload.as_ref().is_some_and(|upload| !upload.is_whole()) {
            self.connection.lingers.set(true);
        }
        self.close();
        self.worker.account.let_go(self.held.get());
        self.worker.metrics.cells().in_flight.sub(1);
        self.connection.enter(Phase::Idle);
    }
}
